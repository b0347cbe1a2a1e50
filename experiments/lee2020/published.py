"""The figures of Lee, Tran, Firat and Cho (2020), to lay beside a study's.

Keys are language pairs, then presets, with the IWSLT sizes under the names of
the others. Rows that the paper itself quotes from Ma et al. (2019) are left
out.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import re
from typing import Any

from latentnmt.experiments.report.rows import (
  NOT_APPLICABLE,
  CorrelationRow,
  ModelRow,
  RankingRow,
  columns,
)
from latentnmt.experiments.report.tables import Table

NAMES: Mapping[str, str] = {
  "wmt14_en_de": "WMT'14 En-De",
  "wmt14_de_en": "WMT'14 De-En",
  "wmt16_en_ro": "WMT'16 En-Ro",
  "wmt16_ro_en": "WMT'16 Ro-En",
  "iwslt16_de_en": "IWSLT'16 De-En",
}

# Table 1: BLEU raw, BLEU distilled, log-likelihood raw, likewise distilled.
QUALITY: Mapping[str, Mapping[str, tuple[float, float, float, float]]] = {
  "wmt14_en_de": {
    "transformer_small": (24.54, 24.94, -1.77, -2.36),
    "transformer_base": (28.18, 27.86, -1.44, -2.19),
    "transformer_large": (29.39, 28.29, -1.35, -2.23),
    "gauss_base": (15.74, 24.54, -1.51, -2.44),
    "gauss_large": (17.33, 25.53, -1.47, -2.24),
    "flow_small": (18.17, 21.98, -1.41, -2.13),
    "flow_base": (18.57, 21.82, -1.23, -2.05),
  },
  "wmt14_de_en": {
    "transformer_small": (29.15, 28.40, -1.66, -2.24),
    "transformer_base": (32.21, 32.24, -1.42, -2.12),
    "transformer_large": (33.16, 32.24, -1.35, -2.05),
    "gauss_base": (21.64, 29.29, -1.41, -2.17),
    "gauss_large": (23.03, 30.30, -1.31, -2.04),
    "flow_small": (23.17, 27.14, -1.28, -1.73),
    "flow_base": (23.12, 26.72, -1.20, -1.71),
  },
  "wmt16_en_ro": {
    "transformer_small": (30.12, 29.57, -1.72, -1.95),
    "transformer_base": (33.46, 33.28, -1.63, -2.52),
    "gauss_base": (28.03, 29.71, -2.38, -3.48),
    "gauss_large": (28.16, 30.91, -2.44, -3.54),
    "flow_small": (26.85, 28.63, -1.53, -2.42),
    "flow_base": (27.49, 29.09, -1.50, -2.31),
  },
  "wmt16_ro_en": {
    "transformer_small": (29.33, 28.87, -1.84, -1.93),
    "transformer_base": (32.19, 31.15, -1.79, -2.28),
    "gauss_base": (26.48, 27.81, -2.41, -2.92),
    "gauss_large": (27.35, 28.02, -2.32, -3.01),
    "flow_small": (26.03, 26.12, -1.65, -2.05),
    "flow_base": (27.14, 27.33, -1.64, -2.01),
  },
  "iwslt16_de_en": {
    "transformer_small": (31.54, 31.72, -1.84, -2.56),
    "gauss_base": (24.36, 26.80, -1.98, -2.70),
    "flow_small": (23.64, 26.69, -1.66, -2.28),
    "flow_base": (24.89, 27.00, -1.57, -2.46),
  },
}

# Table 2, WMT'14 En-De: Pearson's coefficient over checkpoints, raw and
# distilled.
_AGREEMENT = {
  "transformer_base": (0.926, -0.758),
  "gauss_base": (0.831, -0.897),
  "flow_base": (0.678, -0.873),
}

# Table 4, WMT'14 En-De: BLEU and sentences/s, one by one on a V100, of latent
# models of distilled data, by k; of autoregressive ones of raw data.
_SPEED = {
  "gauss_base": (
    (23.15, 24.54, 24.87, 24.94, 24.92),
    (28.77, 20.52, 16.51, 12.00, 8.11),
  ),
  "gauss_large": (
    (24.31, 25.53, 25.69, 25.68, 25.68),
    (19.83, 14.72, 10.25, 7.88, 4.91),
  ),
  "flow_base": (
    (21.57, 21.82, 21.79, 21.81, 21.80),
    (5.82, 5.60, 4.84, 3.60, 3.37),
  ),
}
_BEAM = {
  "transformer_small": (24.54, 2.69),
  "transformer_base": (28.18, 2.58),
  "transformer_large": (29.39, 1.93),
}
# Table 3, IWSLT'16, models of raw data: BLEU and "ELBO" by k = 0, 1, 2, 4.
_REFINED = {
  "gauss_base": ((22.88, 24.36, 24.60, 24.69), (-1.11, -0.93, -0.90, -0.89)),
  "flow_base": ((24.57, 24.89, 24.81, 24.92), (-1.22, -1.17, -1.16, -1.15)),
}

_SHORT = {"transformer": "Tr", "gauss": "Ga", "flow": "Fl"}
_BLEU = "BLEU {bleu:.2f} | BLEU, paper {paper_bleu:.2f}"
_BY_METHOD = "decoding {paper_method} | " + _BLEU


@dataclasses.dataclass(frozen=True)
class PaperRow:
  """Figures of the paper for one of its models."""

  model: str  # name of our preset
  data: str  # "raw" or "distilled"
  figure: float  # what the table is about, beside BLEU
  bleu: float | None = None
  method: str | None = None

  @property
  def name(self) -> str:
    """The paper's name of the model, and ours."""
    family, size = self.model.split("_")
    return f"{_SHORT[family]}-{size[0].upper()} ({self.model})"


def beside(
  pair: str,
  ranking: list[RankingRow],
  rows: list[ModelRow],
  correlations: list[CorrelationRow],
) -> list[Table]:
  """Returns the paper's tables of a pair, with ours of the same models."""
  tables = [_quality(pair, ranking or [row for row in rows if row.primary])]
  if pair == "wmt14_en_de":
    tables += [_agreement(pair, correlations), _speed(pair, rows)]
  if pair == "iwslt16_de_en":
    tables.append(_refinement(pair, rows))
  return tables


def _quality(pair: str, ours: Sequence[RankingRow | ModelRow]) -> Table:
  theirs = [
    PaperRow(model, data, figures[2 + i], figures[i])
    for model, figures in QUALITY[pair].items()
    for i, data in enumerate(("raw", "distilled"))
  ]
  shown = _BLEU + (
    " | log p(y given x) {log_p:.2f} | lee2020 {lee2020:.2f}"
    " | log-likelihood, paper {paper_figure:.2f}"
  )
  notes = [
    "The paper's figures are not directly comparable. Its BLEU has no sacreBLEU"
    " signature, and its wordpieces, and so its tokens, are others.",
    "What the paper calls log-likelihood is most likely lee2020 for latent"
    " models, the only estimator in its public code, with the true length"
    " given; for autoregressive models it is log p(y given x).",
  ]
  if pair == "iwslt16_de_en":
    notes.append(
      "IWSLT'16: the paper says 2K sentences of dev and of test, not of which"
      " years; ours are tst2013 and tst2014, 993 and 1,305."
    )
  return _table(pair, 1, theirs, ours, shown, notes)


def _agreement(pair: str, correlations: list[CorrelationRow]) -> Table:
  found = {(row.run, row.figure): row.pearson.value for row in correlations}
  ours = [
    columns(row) | {"pearson_lee2020": found.get((row.run, "lee2020"))}
    for row in correlations
    if row.figure not in ("elbo", "lee2020")
  ]
  theirs = [
    PaperRow(model, data, figure)
    for model, figures in _AGREEMENT.items()
    for data, figure in zip(("raw", "distilled"), figures, strict=True)
  ]
  shown = (
    "Pearson, log p(y given x) {pearson:+.3f} | Pearson, lee2020"
    " {pearson_lee2020:+.3f} | Pearson, paper {paper_figure:+.3f}"
  )
  notes = ["Of likelihood and BLEU over the checkpoints of a training."]
  return _table(pair, 2, theirs, ours, shown, notes)


def _speed(pair: str, rows: list[ModelRow]) -> Table:
  beams = [PaperRow(m, "raw", s, b, "beam4") for m, (b, s) in _BEAM.items()]
  theirs = [*beams, *_by_steps(_SPEED, "distilled")]
  shown = _BY_METHOD + (
    " | sentences/s at 1 {sentences_per_second_batch1:.2f}"
    " | sentences/s at 1, paper {paper_figure:.2f}"
  )
  note = "The paper's speed is of a V100, ours of what Table 4 names."
  return _table(pair, 4, theirs, rows, shown, [note])


def _refinement(pair: str, rows: list[ModelRow]) -> Table:
  shown = _BY_METHOD + " | bound {bound:.2f} | ELBO, paper {paper_figure:.2f}"
  note = (
    "bound: as in Table 3, of the model's own translations. How the paper comes"
    " by its ELBO of them it does not say."
  )
  return _table(pair, 3, _by_steps(_REFINED, "raw"), rows, shown, [note])


def _by_steps(figures: Mapping, data: str) -> list[PaperRow]:
  """Rows of BLEU and of another figure, by the number of refinements."""
  return [
    PaperRow(model, data, figure, bleu, f"delta{k}")
    for model, pairs in figures.items()
    for k, bleu, figure in zip((0, 1, 2, 4, 8), *pairs, strict=False)
  ]


def _table(
  pair: str,
  number: int,
  theirs: list[PaperRow],
  ours: Sequence[Any],
  shown: str,
  notes: list[str],
) -> Table:
  """A table of the paper, with each row the first of ours that is like it.

  Models are alike by preset; the sizes for IWSLT and the 75M parameters that
  the paper prints go by the common name.
  """
  found: dict[tuple, dict[str, Any]] = {}
  for values in map(columns, ours):
    preset = re.sub("_(iwslt|75m)$", "", values["model"])
    # What we have not measured is no gap in a table of the paper.
    known = {name: v for name, v in values.items() if v is not None}
    for method in (None, values["method"]):
      found.setdefault((preset, values["data"], method), known)
  nothing = dict.fromkeys(re.findall(r"{(\w+)", shown), NOT_APPLICABLE)
  lines = []
  for row in theirs:
    mine = found.get((row.model, row.data, row.method), {})
    paper = {f"paper_{name}": value for name, value in vars(row).items()}
    lines.append(nothing | mine | paper | {"name": row.name})
  title = f"Beside the paper: {NAMES[pair]}, its Table {number}"
  shown = "model {name} | data {paper_data} | " + shown
  return Table(title, shown, lines, notes)
