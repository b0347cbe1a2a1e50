"""Verdicts on the paper's claims, on studies whose figures are made up."""

import dataclasses
from types import SimpleNamespace
import zlib

import numpy as np
import pytest

from latentnmt.errors import InputError
from latentnmt.experiments.lee2020 import claims, closing_question, published
from latentnmt.experiments.report import comparison, tables
from latentnmt.experiments.report.comparison import AGAINST, FOR, OPEN, Models
from latentnmt.experiments.report.rows import (
  NOT_APPLICABLE,
  CorrelationRow,
  Interval,
  ModelRow,
  Ranked,
  RankingRow,
  Score,
  Speed,
)
from latentnmt.metrics import Resampled

FAMILIES = {
  "transformer": "autoregressive",
  "gauss": "Gaussian prior",
  "flow": "flow prior",
}
# The claims, in their order.
NAMES = """
  agrees_over_checkpoints opposed_over_checkpoints agrees_over_sizes
  differs_over_families flow_is_likeliest gauss_translates_better
  distillation_costs_likelihood distillation_gains_bleu
  refinement_helps_gauss_more latent_is_faster gauss_is_faster
""".split()


def about(run):
  """Fields of a run "<preset>-<data>"."""
  model, data = run.rsplit("-", 1)
  family = FAMILIES[model.split("_")[0]]
  return {"run": run, "model": model, "data": data, "family": family}


def row(run, method=None, **fields):
  """The primary row of a run "<preset>-<data>"."""
  method = method or ("beam4" if "transformer" in run else "delta1")
  k = method.removeprefix("delta")
  fields = {
    "method": method,
    "k": int(k) if k.isdecimal() else NOT_APPLICABLE,
    "ess": NOT_APPLICABLE,
    "scored_on": "x",
    "bleu": Score(data="x"),
  } | fields
  return ModelRow(**about(run), **fields)


def sentences(**figures):
  """Double of `SentenceFigures`: figures by name, then by run, each +- 0.1."""

  def find(name):
    def figure(row, method=None):
      value = figures.get(name, {}).get(row.run)
      if isinstance(value, dict):
        value = value.get(method or row.method)
      if value is None:
        return None
      seed = zlib.crc32(repr((name, row.run, method)).encode())
      rng = np.random.default_rng(seed)
      return Resampled(value, value + rng.uniform(-0.1, 0.1, size=200))

    return figure

  names = "log_p", "lee2020", "bleu"
  return SimpleNamespace(**{name: find(name) for name in names})


def verdicts(rows, correlations=(), **figures):
  """(verdict, verdict by lee2020) by the claim's function."""
  models = Models(rows, sentences(**figures), list(correlations))
  found, _ = claims.check(models)
  lines = [(line.log_p, line.lee2020) for line in found.rows]
  return dict(zip(NAMES, lines, strict=True))


@pytest.mark.parametrize(
  "exists, says, expected",
  [
    (False, [FOR, FOR], "supported: 2 for"),
    (False, [FOR, OPEN], "undecided: 1 for, 1 open"),
    (False, [FOR, AGAINST, OPEN], "contradicted: 1 for, 1 against, 1 open"),
    (False, [], "undecided"),
    (True, [FOR, AGAINST], "supported: 1 for, 1 against"),
    (True, [AGAINST, AGAINST], "contradicted: 2 against"),
    (True, [AGAINST, OPEN], "undecided: 1 against, 1 open"),
  ],
)
def test_verdict(exists, says, expected):
  claim = claims.Claim("", iter, "x", exists=exists)
  found = [claims.Comparison("", "", s) for s in says]
  assert claims.verdict(claim, found) == expected


def test_what_is_missing_is_said():
  lonely = [row("transformer_tiny-raw")]
  found = verdicts(lonely)
  assert {v for v, _ in found.values()} == {"undecided"}
  assert found["gauss_translates_better"][1] == "", "is not about likelihood"
  table, _ = claims.check(Models(lonely, sentences(), []))
  needs = [line.needs for line in table.rows]
  assert all(needs) and "a flow prior and another model" in needs[4]
  models = [row(f"{name}_tiny-raw") for name in FAMILIES]
  _, evidence = claims.check(Models(models, sentences(), []))
  text = tables.as_markdown("", [evidence])
  assert "no log p of flow_tiny-raw, transformer_tiny-raw" in text
  assert "no BLEU of gauss_tiny-raw, flow_tiny-raw" in text
  assert "not both are measured at one batch size" in text


def test_the_estimator_may_decide_a_finding():
  rows = [row(f"{name}_base-raw") for name in FAMILIES]
  names = [r.run for r in rows]
  found = verdicts(
    rows,
    log_p=dict(zip(names, (-2.0, -3.0, -4.0), strict=True)),
    lee2020=dict(zip(names, (-2.0, -3.0, -1.0), strict=True)),
    bleu=dict(zip(names, (30.0, 20.0, 10.0), strict=True)),
  )
  assert found["flow_is_likeliest"] == (
    *("contradicted: 2 against", "supported: 2 for"),
  )
  assert found["differs_over_families"] == (
    *("contradicted: 3 against", "supported: 2 for, 1 against"),
  )
  assert found["gauss_translates_better"] == ("supported: 1 for", "")


def test_close_figures_are_open():
  rows = [row("gauss_base-raw"), row("flow_base-raw")]
  bleu = {"gauss_base-raw": 10.05, "flow_base-raw": 10.0}
  found = verdicts(rows, bleu=bleu)
  assert found["gauss_translates_better"][0] == "undecided: 1 open"


def test_sizes_of_a_family():
  rows = [row("flow_small-raw"), row("flow_base-raw")]
  figures = {"flow_small-raw": -2.0, "flow_base-raw": -1.0}
  bleu = {"flow_small-raw": 20.0, "flow_base-raw": 15.0}
  found = verdicts(rows, log_p=figures, lee2020=figures, bleu=bleu)
  assert found["agrees_over_sizes"] == ("contradicted: 1 against",) * 2


def test_distillation_and_its_twins():
  rows = [row(f"gauss_base-{data}") for data in ("raw", "distilled")]
  rows += [row(f"transformer_base-{data}") for data in ("raw", "distilled")]
  rows += [row("gauss_large-distilled")]
  values = dict(zip((r.run for r in rows), (-2, -3, -1, -2, -9), strict=True))
  bleu = dict(zip((r.run for r in rows), (10, 20, 30, 29, 21), strict=True))
  found = verdicts(rows, log_p=values, lee2020=values, bleu=bleu)
  assert found["distillation_costs_likelihood"][0] == "supported: 2 for"
  assert found["distillation_gains_bleu"][0] == "supported: 1 for"


def test_pairs_are_of_one_size_and_data_and_named():
  runs = "gauss_base-raw", "flow_base_75m-raw", "flow_small-raw"
  rows = [row(run) for run in (*runs, "gauss_large-raw", "flow_base-distilled")]
  models = Models(rows, sentences(), [])
  pairs = models.pairs("Gaussian prior", "flow prior")
  assert [(a.run, b.run) for a, b in pairs] == [runs[:2]]
  text = tables.as_markdown("", claims.check(Models(rows, sentences(), [])))
  assert "presets' names: gauss_base-raw with flow_base_75m-raw." in text


def test_refinement_counts_what_both_were_given():
  rows = [row("gauss_base-raw"), row("flow_base-raw")]
  rows += [
    row(run, method, primary=False)
    for run, steps in (("gauss_base-raw", (0, 4, 8)), ("flow_base-raw", (0, 4)))
    for method in (*(f"delta{k}" for k in steps), "delta9-l3")
  ]
  bleu = {
    "gauss_base-raw": {"delta0": 10.0, "delta4": 12.0, "delta8": 5.0},
    "flow_base-raw": {"delta0": 13.0, "delta4": 13.5},
  }
  verdict, evidence = claims.check(Models(rows, sentences(bleu=bleu), []))
  text = tables.as_markdown("", [evidence])
  assert "gauss_base-raw - flow_base-raw, k = 0 to 4" in text
  assert "BLEU +1.50 (" in text and "+2.00 and +0.50" in text
  models = Models(rows[:2], sentences(bleu=bleu), [])
  assert models.gains_more(*rows[:2]).outcome == OPEN, "no k = 0"


@pytest.mark.parametrize(
  "slowest, fastest, says",
  [(19.0, 22.0, FOR), (4.0, 22.0, OPEN), (1.0, 2.0, AGAINST), (0, 0, OPEN)],
)
def test_speed_is_decided_by_ranges(slowest, fastest, says):
  speeds = {8: Speed(1e9), 1: Speed(5.0, 4.5, 5.5)}
  teacher = row("transformer_base-raw", speeds=speeds)
  ends = (slowest, fastest) if slowest else (None, None)
  latent = row("gauss_base-raw", speeds={1: Speed(20.0, *ends)})
  found = comparison.faster(latent, teacher)
  assert found.outcome == says and "4.00" in found.figures
  assert found.subject == "gauss_base-raw delta1 / transformer_base-raw beam4"


def _correlation(run, figure, low, high):
  pearson = Interval((low + high) / 2, low, high) if low else Interval()
  remark = "" if low else "few"
  fields = {"figure": figure, "n": 8, "split": "dev", "remark": remark}
  return CorrelationRow(**about(run), **fields, pearson=pearson)


def test_checkpoints_agree_or_are_opposed():
  rows = [row("transformer_base-raw"), row("gauss_base-raw")]
  correlations = [
    _correlation("transformer_base-raw", "exact", 0.5, 0.9),
    _correlation("gauss_base-raw", "iwae (K = 20)", -0.9, -0.2),
    _correlation("gauss_base-raw", "elbo", -0.9, 0.9),
    _correlation("gauss_base-raw", "lee2020", 0.2, 0.9),
    _correlation("flow_base-distilled", "iwae (K = 20)", -0.9, -0.2),
    _correlation("flow_base-distilled", "lee2020", None, None),
  ]
  found = verdicts(rows, correlations)
  assert found["agrees_over_checkpoints"] == (
    *("contradicted: 1 for, 1 against", "supported: 2 for"),
  )
  assert found["opposed_over_checkpoints"] == (
    *("supported: 1 for", "undecided: 1 open"),
  )


# The closing question.


def _closing(rows, **figures):
  models = Models(rows, sentences(**figures), [])
  return [line.log_p for line in closing_question.check(models)[0].rows]


def _of(run, decoder, latents="", glancing=""):
  estimator = "iwae" if latents else "exact"
  fields = dict(decoder=decoder, latents=latents, glancing=glancing)
  fields |= dict(run=run, estimator=estimator, model=f"{run}_tiny")
  return dataclasses.replace(row("transformer_tiny-raw"), **fields)


KINDS = [
  _of("ar", "autoregressive"),
  _of("ctc", "CTC"),
  _of("glanced", "CTC", glancing="glancing"),
  _of("latent", "CTC", latents="Gaussian prior"),
]


@pytest.mark.parametrize(
  "log_p, bleu, says",
  [
    ((-1, -3, -4, -2), (30, 20, 25, 18), ["supported: 1 for"] * 3),
    ((-3, -1, 0, -2), (30, 20, 25, 18), ["contradicted: 1 against"] * 3),
    ((-1, -1, -1, -1), (30, 20, 25, 20), ["undecided: 1 open"] * 3),
  ],
)
def test_the_closing_question_is_decided_by_pairs(log_p, bleu, says):
  names = [r.run for r in KINDS]
  log_p, bleu = (dict(zip(names, v, strict=True)) for v in (log_p, bleu))
  assert _closing(KINDS, log_p=log_p, bleu=bleu) == says


def test_the_closing_question_says_what_it_needs():
  models = Models([_of("ar", "autoregressive")], sentences(), [])
  table, evidence = closing_question.check(models)
  assert all(line.needs for line in table.rows) and evidence.rows == []
  # Other data, or another size, is another comparison.
  other = [KINDS[0], row("flow_base-raw", decoder="CTC", estimator="exact")]
  assert _closing(other) == ["undecided"] * 3


def test_models_scored_on_different_data_are_refused():
  rows = [row("gauss_base-raw"), row("flow_base-raw", bleu=Score(data="y"))]
  with pytest.raises(InputError, match="cannot be compared: .* on x, .* on y"):
    claims.check(Models(rows, sentences(), []))


# The paper's figures.


def test_the_papers_figures_have_what_its_text_says_of_them():
  for pair, models in published.QUALITY.items():
    exact = [v for name, v in models.items() if "transformer" in name]
    assert sorted(exact) == sorted(exact, key=lambda v: v[2]), pair
    raw = {name: v[2] for name, v in models.items()}
    assert max(raw, key=raw.get) == "flow_base", pair
    if "gauss_large" in models:
      assert models["gauss_large"][1] > models["flow_base"][1], pair
    assert all(v[2] > v[3] for v in models.values()), "distillation costs"
  quality = published.QUALITY["wmt14_en_de"]
  for model, (bleu, speed) in published._SPEED.items():
    assert bleu[1] == quality[model][1] and list(speed) == sorted(speed)[::-1]
  for model, (bleu, _) in published._BEAM.items():
    assert bleu == quality[model][0]
  for model, (bleu, _) in published._REFINED.items():
    assert bleu[1] == published.QUALITY["iwslt16_de_en"][model][0]


def test_ours_stand_beside_the_papers():
  ours = row("flow_base_iwslt-raw", bleu=Score(20.0), bound=-1.5)
  ranked = RankingRow(
    **about(ours.run),
    bleu=Score(20.0),
    log_p=Ranked(-3.0),
    lee2020=Ranked(-1.4),
  )
  first, *_, last = published.beside("iwslt16_de_en", [ranked], [ours], [])
  lines = {(r["name"], r["paper_data"]): r for r in first.rows}
  line = lines["Fl-B (flow_base)", "raw"]
  assert first.cells()[first.rows.index(line)] == [
    *("Fl-B (flow_base)", "raw", "20.00", "24.89", "-3.00", "-1.40", "-1.57"),
  ]
  assert first.cells()[0][2] == "" and not first.missing()
  assert any("not directly comparable" in note for note in first.notes)
  cells = last.cells()
  assert cells[5][2:] == ["delta1", "20.00", "24.89", "-1.50", "-1.17"]
  rows = [_correlation("gauss_base-raw", "iwae (K = 20)", 0.5, 0.7)]
  rows += [_correlation("gauss_base-raw", "lee2020", 0.1, 0.3)]
  tables_of = published.beside("wmt14_en_de", [], [], rows)
  assert len(tables_of) == 3 and len(tables_of[2].rows) == 18
  assert tables_of[1].cells()[2][2:] == ["+0.600", "+0.200", "+0.831"]
  assert len(published.beside("wmt16_ro_en", [], [], [])) == 1
