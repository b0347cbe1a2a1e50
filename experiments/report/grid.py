"""Decoders by objectives: what of likelihood and BLEU is whose doing."""

from collections.abc import Mapping
from typing import Any

from latentnmt.experiments.report.comparison import Models, size
from latentnmt.experiments.report.rows import (
  AUTOREGRESSIVE,
  CTC,
  DAG,
  EXACT,
  FACTORISED,
  NOT_APPLICABLE,
  ModelRow,
)
from latentnmt.experiments.report.tables import Table

_DECODERS = AUTOREGRESSIVE, FACTORISED, CTC, DAG


def objective(row: ModelRow) -> str:
  """Returns what a model was trained for, in words."""
  plain = row.glancing or "maximum likelihood"
  # Of a model of one's own nobody says which latents it has.
  bounded = row.estimator != EXACT and row.log_likelihood is not None
  if not (row.latents or bounded):
    return plain
  return ", ".join(filter(None, ("ELBO", row.latents, row.glancing)))


def grid(models: Models) -> Table:
  """Shows likelihood and BLEU of decoders by objectives.

  A line for each decoder, training data and size, where there are at least two
  decoders.
  """
  rows = [row for row in models.best() if row.decoder]
  decoders = {row.decoder for row in rows}
  objectives = sorted({objective(row) for row in rows}, key=_order)
  lines = _lines(models, rows, objectives) if len(decoders) > 1 else []
  return Table(
    "Decoders by objectives: nats per token, BLEU",
    "decoder {decoder} | data {data} | size {size}"
    + "".join(f" | {name} {{c{i}}}" for i, name in enumerate(objectives)),
    lines,
    [
      "In each cell log p(y given x), the length paid for, with its 95 %"
      " bootstrap interval, and the best BLEU of the decodings that were tried"
      " on this split, with its method; of several models the likeliest. A"
      " figure after ≥ is a lower bound: the ELBO trains, and importance"
      " sampling or annealing scores.",
      "Down a column the decoding distribution differs, along a line the"
      " objective. An ELBO's decoder is factorised, or a CTC and so on, given"
      " the latents.",
    ],
  )


def _order(name: str) -> tuple:
  """Maximum likelihood first, glancing last."""
  return "glancing" in name, "ELBO" in name, name


def _lines(models: Models, rows, objectives) -> list[Mapping[str, Any]]:
  cells: dict[tuple, dict[str, ModelRow]] = {}
  for row in sorted(rows, key=lambda row: _nats(models, row)):
    line = row.decoder, row.data or NOT_APPLICABLE, size(row)
    cells.setdefault(line, {})[objective(row)] = row  # the likeliest is last
  names = [*_DECODERS, *(decoder for decoder, *_ in cells)]
  return [
    dict(run=decoder, decoder=decoder, data=data, size=of_size)
    | {
      f"c{i}": _cell(models, found[name]) if name in found else NOT_APPLICABLE
      for i, name in enumerate(objectives)
    }
    for (decoder, data, of_size), found in sorted(
      cells.items(), key=lambda item: (item[0][1:], names.index(item[0][0]))
    )
  ]


def _nats(models: Models, row: ModelRow) -> float:
  figure = models.sentences.log_p(row)
  found = figure.value if figure else row.log_likelihood
  return float("-inf") if found is None else found


def _cell(models: Models, row: ModelRow) -> str | None:
  """Returns a model's figures; None where it has none."""
  parts, figure = [], models.sentences.log_p(row)
  bound = "" if row.estimator == EXACT else "≥ "
  if figure:
    low, high = figure.interval
    parts = [f"{bound}{figure.value:.3f} ({low:.3f} to {high:.3f})"]
  elif row.log_likelihood is not None:
    parts = [f"{bound}{row.log_likelihood:.3f}"]
  if row.bleu.value is not None:
    parts.append(f"BLEU {row.bleu.value:.2f} {row.method}")
  return "; ".join(parts) or None
