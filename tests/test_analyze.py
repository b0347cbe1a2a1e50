import csv
import dataclasses
import html.parser
import json
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from latentnmt import files, zoo
from latentnmt.config import (
  CustomModelConfig,
  ExperimentConfig,
  TrainConfig,
  to_dict,
)
from latentnmt.data import Corpus, prepare
from latentnmt.errors import InputError
from latentnmt.experiments.report import (
  collect,
  comparison,
  plots,
  tables,
  webpage,
)
from latentnmt.experiments.report.correlation import correlation, correlations
from latentnmt.experiments.report.grid import grid, objective
from latentnmt.experiments.report.per_sentence import SentenceFigures
from latentnmt.experiments.report.rows import (
  NOT_APPLICABLE,
  Interval,
  ModelRow,
  Score,
  Speed,
  TrainingLog,
  TruthRow,
  as_csv,
)
from latentnmt.experiments.study.layout import StudyDirectory
from latentnmt.metrics import Resampled
from latentnmt.runs import Result, RunDirectory

ROW = ModelRow(
  run="gauss",
  model="gauss_tiny",
  family="Gaussian prior",
  data="raw",
  split="test",
  parameters=1_234_567,
  method="delta1",
  primary=True,
  k=1,
  bleu=Score(12.345, 11.0, 13.0, signature="nrefs:1|bs:1000"),
  chrf=Score(40.04),
  bound=-1.25,
  eq3=-31.5,
  log_likelihood=-2.5,
  estimator="iwae",
  K=100,
  ess=12.34,
  lee2020=-1.0,
  bits_per_byte=1.2345,
  megabytes=5.0,
  speeds={1: Speed(7.0), 32: Speed(100.0)},
)


def change(row, **fields):
  """A row with other fields; a number for BLEU is its value."""
  if isinstance(fields.get("bleu"), float | int | None) and "bleu" in fields:
    fields["bleu"] = Score(fields["bleu"])
  return dataclasses.replace(row, **fields)


def cells(table):
  """Rows of a table's Markdown, by header."""
  text = tables.as_markdown("study", [table])
  lines = [line for line in text.split("\n") if line.startswith("|")]
  rows = [[c.strip() for c in line.split("|")[1:-1]] for line in lines]
  head, rule, *body = rows
  assert all(set(c) <= set("-:") for c in rule)
  assert {len(row) for row in rows} == {len(head)}
  return [dict(zip(head, row, strict=True)) for row in body]


# Tables of rows.


def test_tables_have_a_line_for_each_row():
  (row,) = cells(tables.quality([ROW], "test"))
  assert row["run"] == "gauss" and row["decoding"] == "delta1"
  assert row["BLEU"] == "12.35" and row["95 %"] == "11.00 to 13.00"
  assert row["log p(y given x)"] == "-2.500" and row["ESS"] == "12.3"
  assert row["K"] == "100"
  (row,) = cells(tables.speed([ROW]))
  assert row["parameters"] == "1,234,567"
  speeds = [name for name in row if name.startswith("sentences/s")]
  assert speeds == ["sentences/s at 1", "sentences/s at 32"]
  assert not any("speed-up" in name for name in row)
  assert tables.speed([ROW]).missing() == []


def test_escapes_have_a_column_where_there_are_some():
  assert "escaped" not in cells(tables.quality([ROW], "test"))[0]
  rows = [change(ROW, run="ctc", escaped=3), change(ROW, escaped=0)]
  table = tables.quality(rows, "test")
  assert [row["escaped"] for row in cells(table)] == ["3", "0"]
  assert any(note.startswith("escaped:") for note in table.notes)


def test_missing_figures_are_dashes_and_named_and_others_empty():
  bare = change(
    ROW,
    bleu=Score(None, 11.0, 13.0),
    speeds={32: Speed(100.0)},
    K=NOT_APPLICABLE,
  )
  table = tables.speed([ROW, bare])
  row = cells(table)[1]
  assert row["BLEU"] == row["sentences/s at 1"] == "–"
  assert table.missing() == [
    "– BLEU is missing for gauss delta1.",
    "– sentences/s at 1 is missing for gauss delta1.",
  ]
  assert cells(tables.quality([bare], "test"))[0]["K"] == ""


def test_speed_without_any_measured_still_has_the_column():
  bare = change(ROW, speeds={})
  assert cells(tables.speed([bare]))[0]["sentences/s"] == "–"


def test_refinement_is_a_line_for_each_run_and_figure():
  rows = [
    change(ROW, method=f"delta{k}", k=k, bleu=10.0 + k, bound=-k - 0.5)
    for k in (0, 1, 4)
  ]
  other = change(ROW, run="flow", method="delta1", bleu=9.0, bound=None)
  candidates = change(ROW, method="delta1-l3", bleu=50.0)
  teacher = change(ROW, run="teacher", method="beam4", k=NOT_APPLICABLE)
  table = tables.refinement([teacher, *rows, candidates, other])
  assert [list(row.values()) for row in cells(table)] == [
    ["gauss", "raw", "BLEU", "10.00", "11.00", "14.00"],
    ["gauss", "raw", "bound", "-0.500", "-1.500", "-4.500"],
    ["gauss", "raw", "Eq. 3", "-31.500", "-31.500", "-31.500"],
    ["flow", "raw", "BLEU", "–", "9.00", "–"],
    ["flow", "raw", "Eq. 3", "–", "-31.500", "–"],
  ]
  assert table.missing()[0] == ("– k = 0 is missing for flow BLEU, flow Eq. 3.")
  assert tables.refinement([teacher]).rows == []


def test_csv_has_all_digits():
  (row,) = csv.DictReader(as_csv([ROW]).splitlines())
  assert float(row["bleu"]) == ROW.bleu.value and row["run"] == "gauss"
  assert float(row["sentences_per_second_batch32"]) == 100.0
  assert float(row["bleu_low"]) == 11.0 and "bleu_value" not in row


def test_what_does_not_apply_is_not_what_is_missing():
  assert NOT_APPLICABLE is not None and not NOT_APPLICABLE
  table = tables.Table("t", "a {k:d} | b {ess:.1f}", [], [])
  values = [ModelRow("x", k=NOT_APPLICABLE, ess=None)]
  assert dataclasses.replace(table, rows=values).cells() == [["", "–"]]
  assert as_csv(values).splitlines()[1].replace(",", "") == "xTrue"


def test_verdict_names_what_exceeds_the_truth():
  row = TruthRow("a", "iwae", -1.0, -1.0, 0.0, 0.1, 0.1, 1.9)
  worse = change(row, errors=2.1)
  assert tables.verdict([row])[0].startswith("No likelihood")
  assert "a: iwae exceeds the truth by 2.1" in tables.verdict([row, worse])[0]
  other = change(worse, estimator="lee2020")
  assert tables.verdict([other])[0].startswith("No")


# Correlation.


@pytest.mark.parametrize("n, noise", [(4, 0.1), (8, 1.0), (30, 5.0)])
def test_correlation_is_scipys(n, noise):
  rng = np.random.default_rng(n)
  x = rng.normal(size=n)
  y = x + noise * rng.normal(size=n)
  found, spearman = correlation(list(zip(x, y, strict=True)))
  pearson = stats.pearsonr(x, y)
  low, high = pearson.confidence_interval(0.95)
  np.testing.assert_allclose(
    [found.value, found.low, found.high],
    [pearson.statistic, low, high],
  )
  r = stats.spearmanr(x, y).statistic
  assert spearman.value == pytest.approx(r)
  assert spearman.low <= r <= spearman.high


def test_interval_of_ranks_covers_as_often_as_it_says():
  # Normal pairs of correlation r have Spearman's 6 / pi asin(r / 2).
  rng, r = np.random.default_rng(0), 0.7
  truth = 6 / np.pi * np.arcsin(r / 2)
  inside = 0
  for _ in range(300):
    x, e = rng.normal(size=(2, 20))
    y = r * x + np.sqrt(1 - r * r) * e
    _, found = correlation(list(zip(x, y, strict=True)))
    inside += found.low <= truth <= found.high
  assert 0.9 < inside / 300 < 0.99


def test_perfect_agreement_and_none_at_all():
  pearson, spearman = correlation([(x, 2.0 * x) for x in range(5)])
  assert pearson.value == pytest.approx(1)
  assert spearman.high == pytest.approx(1)
  none = (Interval(*[NOT_APPLICABLE] * 3),) * 2
  assert correlation([(1.0, y) for y in range(5)]) == none
  assert correlation([(x, x) for x in range(3)]) == none


POINT = ModelRow(
  run="gauss",
  model="gauss_tiny",
  family="Gaussian prior",
  data="raw",
  split="dev",
  method="delta1",
  estimator="iwae",
  K=8,
)


def _points(count, **fields):
  return [
    change(
      POINT,
      **{"step": i, "bleu": i**2, "log_likelihood": float(i)}
      | {"elbo": -float(i), "lee2020": float(i % 3)}
      | fields,
    )
    for i in range(count)
  ]


def test_agreement_is_a_line_for_each_run_and_figure():
  latent_only = dict.fromkeys(("K", "elbo", "lee2020"), NOT_APPLICABLE)
  exact = {"run": "teacher", "estimator": "exact"}
  points = _points(5, **exact, **latent_only) + _points(5)
  points += _points(3, run="new") + _points(4, run="flat", bleu=1.0)
  rows = cells(tables.agreement(correlations(points)))
  assert [(r["run"], r["log-likelihood"]) for r in rows[:5]] == [
    ("teacher", "exact"),
    ("gauss", "iwae (K = 8)"),
    ("gauss", "elbo"),
    ("gauss", "lee2020"),
    ("new", "iwae (K = 8)"),
  ]
  r = stats.pearsonr(range(5), np.arange(5) ** 2).statistic
  assert rows[0]["Pearson (95 %)"].startswith(f"+{r:.3f} (+")
  assert rows[0]["Spearman (95 %)"].startswith("+1.000 (+1.00 to +1.00)")
  assert rows[2]["Spearman (95 %)"].startswith("-1.000")
  assert rows[4]["n"] == "3" and rows[4]["Pearson (95 %)"] == ""
  assert rows[4]["remark"] == "too few checkpoints"
  assert rows[5]["remark"] == "one of the two does not vary"
  assert tables.agreement([]).rows == []


# Reading a study.


def _append(run, row):
  """Adds a result to a run, of test unless it says another split."""
  result = Result.from_row({"split": "test"} | row)
  RunDirectory(run).append_result(result)


def _make_run(study, name, preset, fingerprint, rows, best=None, model=None):
  run = RunDirectory(study / name)
  config = ExperimentConfig(
    model or zoo.config(preset, vocab_size=50),
    TrainConfig(kl_start=99),
    preset,
    fingerprint,
  )
  files.write_json(run.config_path, to_dict(config))
  if best:
    run.mark_finished("steps", step=best, best_step=best, best_score=20.0)
  for row in rows:
    _append(run, row)
  for step in (10, 20):
    log = {"step": step, "elbo": -5.0 + step / 10, "kl": 0.1, "log_pl": -0.2}
    files.append_json_line(run.metrics_path, log)
  dev = {"step": 20, "dev_bleu": 10.0, "dev_elbo": -3.0}
  files.append_json_line(run.metrics_path, dev)
  return run


def _nats(estimator, value, step, **fields):
  fields = {"metric": "nats_per_token", "K": 8, "bits_per_byte": 1.5} | fields
  row = {"estimator": estimator, "value": value, "step": step}
  return row | {"ess_median": 3.0, "sentences": 10, "tokens": 99} | fields


def _bleu(method, value, **fields):
  signature = f"signature:{method[0]}"
  row = {"metric": "bleu", "method": method, "value": value}
  row |= {"low": value - 1, "high": value + 1, "signature": signature}
  return row | fields


def _speeds(method, speeds):
  row = {"metric": "sentences_per_second", "device": "2-core oracle"}
  return [
    row | {"method": method, "batch_size": size, "value": value}
    for size, value in speeds.items()
  ]


@pytest.fixture
def study(tmp_path):
  study = tmp_path / "quick"
  lines = ["<b>ein</b> & zwei", "drei", "vier", "fünf"]
  corpus = {s: (lines, lines[::-1]) for s in ("train", "dev", "test")}
  data = prepare(
    Corpus(corpus, ("de", "en"), "a test"), study / "data", vocab_size=40
  )
  distilled = study / "data-distilled"
  distilled.mkdir()
  targets = {"data": data.fingerprint, "method": "beam4"}
  meta = {"fingerprint": "other", "made_from": {"targets": targets}}
  (distilled / "meta.json").write_text(json.dumps(meta))
  run = _make_run(
    study,
    "gauss",
    "gauss_tiny",
    "other",
    [
      _bleu("delta0", 10.0),
      _bleu("delta1", 12.0),
      {"metric": "bound", "method": "delta1", "value": -1.25},
      _nats("iwae", -2.25, 200),
      _nats("iwae", -1.5, 200, metric="nats_per_token_given_length"),
      _nats("elbo", -3.0, 200),
      _nats("iwae", -9.0, 400),
      {"metric": "lee2020_per_position", "value": -0.5, "step": 200},
      _bleu("delta1", 99.0, split="dev"),
      *_speeds("delta1", {8: 580.0}),
    ],
    best=200,
  )
  run.write_hypotheses("test", "delta1", ["<i>", "b", "c", "d"])
  _make_run(
    study,
    "teacher",
    "transformer_tiny",
    data.fingerprint,
    [
      _bleu("beam4", 20.0),
      _bleu("greedy", 19.0),
      _nats("exact", -2.0, 100, K=None),
      *_speeds("beam4", {8: 58.0, 1: 51.0}),
      {"metric": "parameters", "value": 1000},
    ],
  )
  return study


def _add_checkpoints(study, split):
  """Five checkpoints of each run, scored on a split."""
  for step in range(100, 600, 100):
    a = step / 100
    for name, method, rows in (
      ("teacher", "greedy", [_nats("exact", -5.0 + a, step, K=None)]),
      (
        "gauss",
        "delta1",
        [
          _nats("iwae", -4.0 - a, step),
          _nats("elbo", -6.0 - a, step),
          {"metric": "lee2020_per_position", "value": -(a**2), "step": step},
        ],
      ),
    ):
      for row in [_bleu(method, 3 * a, step=step), *rows]:
        _append(study / name, row | {"split": split})


def _collect(study):
  return collect.collect(StudyDirectory(study), "test")


def _samples(study, rows, count=20):
  figures = SentenceFigures(StudyDirectory(study), "test", rows)
  return figures.samples(count)


def test_a_study_is_one_row_per_run_and_method(study):
  rows = _collect(study)
  beam, greedy, first, second = cells(tables.speed(rows))
  assert beam["run"] == "teacher" and beam["data"] == "raw"
  assert beam["sentences/s at 1"] == "51.0" and beam["speed-up at 8"] == "1.0x"
  assert beam["parameters"] == "1,000" and beam["MB"] == "–"
  assert greedy["sentences/s at 8"] == "–" and greedy["speed-up at 8"] == ""
  assert [first["decoding"], second["decoding"]] == ["delta0", "delta1"]
  assert second["BLEU"] == "12.00" and second["speed-up at 8"] == "10.0x"
  assert second["sentences/s at 1"] == "–"


def test_each_model_is_judged_by_its_primary_decoding(study):
  rows = _collect(study)
  teacher, gauss = cells(tables.quality(rows, "test"))
  assert teacher["decoding"] == "beam4" and teacher["BLEU"] == "20.00"
  assert teacher["log p(y given x)"] == "-2.000" and teacher["K"] == ""
  assert gauss["data"] == "distilled" and gauss["lee2020"] == "-0.500"
  assert gauss["log p(y given x)"] == "-2.250", "of the best checkpoint"
  assert collect.primary_method(["greedy", "beam2"]) == "beam2"
  bleu, bound = cells(tables.refinement(rows))
  assert (bleu["k = 0"], bleu["k = 1"]) == ("10.00", "12.00")
  assert (bound["k = 0"], bound["k = 1"]) == ("–", "-1.250")


def test_report_states_its_conditions(study):
  rows = _collect(study)
  shown = tables.quality(rows, "test"), tables.speed(rows)
  text = tables.as_markdown("quick", shown)
  for words in (
    "signature:d",
    "signature:b",
    "2-core oracle",
    "10 sentences, 99 tokens",
    "not a likelihood",
    "Speed-up: over teacher with beam4",
    "– MB is missing for teacher beam4, teacher greedy, gauss delta0, gauss",
  ):
    assert words in text
  assert "known log p" not in text


def test_raw_data_may_be_elsewhere(study):
  shutil.rmtree(study / "data")
  rows = _collect(study)
  kinds = {row.run: row.data for row in rows}
  assert kinds == {"teacher": "raw", "gauss": "distilled"}
  shutil.rmtree(study / "data-distilled")
  fingerprint = RunDirectory(study / "teacher").config().data
  row = _bleu("beam4", 1.0, data=fingerprint, split="test")
  _append(study / "teacher", row)
  rows = _collect(study)
  kinds = {row.run: row.data for row in rows}
  assert kinds == {"teacher": "raw", "gauss": None}
  assert _samples(study, rows) == []


def test_raw_comes_before_distilled(study):
  fingerprint = RunDirectory(study / "teacher").config().data
  _make_run(study, "later", "gauss_tiny", fingerprint, [])
  runs = collect.runs(StudyDirectory(study), "test")
  names = [run.about.run for run in runs]
  assert names == ["teacher", "later", "gauss"]


def test_twins_that_differ_in_data_alone_share_one_timing(study):
  fingerprint = RunDirectory(study / "teacher").config().data
  rows = [_bleu("delta1", 11.0), _bleu("delta0", 9.0)]
  _make_run(study, "later", "gauss_tiny", fingerprint, rows)
  _make_run(study, "flow", "flow_tiny", fingerprint, [_bleu("delta1", 8.0)])

  def speeds():
    rows = _collect(study)
    return {
      (row.run, row.method): row.speeds[8].sentences_per_second for row in rows
    }

  found = speeds()
  assert found["gauss", "delta1"] == found["later", "delta1"] == 580.0
  assert found["later", "delta0"] is None, "which nobody measured"
  assert found["flow", "delta1"] is None, "another model"
  _append(study / "later", _speeds("delta1", {8: 77.0})[0])
  found = speeds()
  assert (found["later", "delta1"], found["gauss", "delta1"]) == (77.0, 580.0)


def test_translations_of_the_best_checkpoint_count(study):
  for step, value in (200, 15.0), (400, 16.0):
    row = _bleu("delta1", value, step=step, split="test")
    _append(study / "gauss", row)
  *_, row = _collect(study)
  assert (row.bleu.value, row.bleu.step) == (15.0, 200)


def test_unknown_tokens_are_a_condition(study):
  row = _nats("iwae", -2.25, 200, split="test", unknown=7, truncated=0)
  _append(study / "gauss", row)
  rows = _collect(study)
  text = "\n".join(tables.conditions(rows, "test"))
  assert "7 of the tokens are unknown to the vocabulary" in text
  assert "cut before" not in text
  row = _bleu("delta1", 15.0, split="test", truncated=3)
  _append(study / "gauss", row)
  rows = _collect(study)
  text = "\n".join(tables.conditions(rows, "test"))
  assert "3 sources were cut before they were translated" in text


def test_normalised_references_are_a_condition(study):
  names = ["unescape", "strip_romanian_diacritics"]
  row = _bleu("delta1", 15.0, split="test", reference_normalizers=names)
  _append(study / "gauss", row)
  rows = _collect(study)
  text = "\n".join(tables.conditions(rows, "test"))
  expected = "References normalised: unescape, strip_romanian_diacritics."
  assert expected in text
  assert "normalised" not in "\n".join(tables.conditions(rows[:1], "test"))


# Sentences.


def _add_likelihoods(study, **latent):
  """Values of each sentence, for both runs."""
  tokens = np.float32([2, 3, 4, 1])
  exact = {"log_likelihood": -2 * tokens, "log_pl": 0 * tokens}
  exact |= {"num_tokens": tokens, "num_positions": tokens}
  latent = (
    exact
    | {
      "log_likelihood": np.float32([-5, -6, -7, -8]),
      "log_pl": np.float32([-1, -1, 0, 0]),
      "elbo": np.float32([-6, -7, -8, -9]),
      "kl": np.float32([1, 1, 1, 2]),
      "lee2020": np.float32([-4, -4, -4, -4]),
      "num_positions": np.float32([4, 4, 4, 4]),
    }
    | latent
  )
  for run, step, values in ("teacher", 100, exact), ("gauss", 200, latent):
    (study / run / "likelihood").mkdir()
    np.savez(study / run / "likelihood" / f"test.{step}.npz", **values)


def _figures(study):
  return SentenceFigures(StudyDirectory(study), "test", _collect(study))


def _ranking(study):
  return cells(tables.ranking(_figures(study).ranking()))


def test_all_models_are_ranked_on_one_scale(study):
  assert _ranking(study) == []
  _add_likelihoods(study)
  teacher, gauss = _ranking(study)
  assert (
    teacher["log p(y given x)"] == "-2.000" == teacher["paper's convention"]
  )
  assert teacher["95 %"] == "-2.000 to -2.000" and teacher["KL"] == ""
  assert gauss["log p(y given x)"] == "-2.800", "28 nats of ten tokens"
  assert gauss["ELBO"] == "-3.200" and gauss["KL"] == "0.500"
  assert gauss["paper's convention"] == "-1.000", "the mean of -4 / 4 positions"
  assert gauss["estimator"] == "iwae"
  ranks = "rank", "its rank", "rank by BLEU"
  assert [teacher[name] for name in ranks] == ["1", "2", "1"]
  assert [gauss[name] for name in ranks] == ["2", "1", "2"]


def test_annealed_stands_for_latent_models_that_all_have_it(study):
  _add_likelihoods(study, annealed=np.float32([-1, -1, -1, -1]))
  teacher, gauss = _ranking(study)
  assert teacher["estimator"] == "exact" and gauss["estimator"] == "annealed"
  assert gauss["log p(y given x)"] == "-0.600", "2 of the length, 4 of y"
  fingerprint = RunDirectory(study / "teacher").config().data
  _make_run(study, "later", "gauss_tiny", fingerprint, [])
  _, later, gauss = _ranking(study)
  assert later["log p(y given x)"] == "–" == later["rank"]
  assert gauss["log p(y given x)"] == "-2.800"


def test_translations_are_resampled_where_they_are_whole(study):
  rows, figures = _collect(study), _figures(study)
  gauss, teacher = rows[-1], rows[0]
  assert figures.bleu(gauss).value == 0.0
  assert figures.bleu(gauss, "delta0") is None, "no such file"
  RunDirectory(study / "teacher").write_hypotheses("test", "beam4", ["a"])
  assert figures.bleu(teacher) is None, "a line for four"


def test_truth_gives_a_table(study):
  for estimator, value in ("iwae", -0.3), ("lee2020", 4.0):
    row = {
      "metric": "difference_to_truth",
      "estimator": estimator,
      "value": value,
      "standard_error": 0.1,
      "per_token": value / 8,
      "truth_per_token": -1.0,
    }
    _append(study / "gauss", row)
  table = tables.truth(collect.compare(StudyDirectory(study), "test"))
  iwae, lee2020 = cells(table)
  assert iwae["difference/sentence"] == "-0.300"
  assert iwae["in standard errors"] == "-3.0"
  assert lee2020["nats/token"] == "-0.500"
  assert lee2020["difference/token"] == "+0.500"
  text = tables.as_markdown("study", [table])
  assert "Against the known" in text and "No likelihood or bound" in text


def test_a_run_without_results_still_has_a_row(tmp_path):
  _make_run(tmp_path, "new", "gauss_tiny", "", [])
  (row,) = _collect(tmp_path)
  assert row.method is None and row.run == "new"
  table = tables.quality([row], "test")
  assert "– BLEU is missing for new." in table.missing()


def test_a_folder_without_runs_is_refused(tmp_path):
  with pytest.raises(InputError, match="no run directories"):
    _collect(tmp_path)


def test_checkpoints_are_read_where_most_were_scored(study):
  directory = StudyDirectory(study)
  assert collect.most_checkpoints(directory, "test") == []
  _add_checkpoints(study, "dev")
  for row in _bleu("delta1", 1.0, step=99), _nats("iwae", -99.0, 99):
    _append(study / "gauss", row | {"split": "dev"})
  points = collect.most_checkpoints(directory, "test")
  assert {p.split for p in points} == {"dev"} and len(points) == 10
  first, last = points[0], points[-1]
  assert (first.run, first.step, first.method) == ("teacher", 100, "greedy")
  assert first.log_likelihood == -4.0 and first.lee2020 is NOT_APPLICABLE
  assert (last.run, last.data, last.K) == ("gauss", "distilled", 8)
  assert (last.log_likelihood, last.elbo) == (-9.0, -11.0)
  assert (last.lee2020, last.bleu.value) == (-25.0, 15.0)
  rows = correlations(points)
  assert [round(row.spearman.value) for row in rows] == [1, -1, -1, -1]
  # The best checkpoint's figures on test are not those of the others.
  assert _collect(study)[-1].log_likelihood == -2.25


def test_a_model_of_ones_own_is_a_family_like_any_other(study):
  """Its module need not be there: results say that it is exact."""
  fingerprint = RunDirectory(study / "teacher").config().data
  transformer = zoo.config("gauss_tiny", vocab_size=50).transformer
  model = CustomModelConfig("nowhere:Bag", transformer, family="bags of words")
  rows = [_bleu("mode", 5.0), _nats("exact", -4.0, 50, K=None)]
  _make_run(study, "bag", "", fingerprint, rows, model=model)
  names = [r.about.run for r in collect.runs(StudyDirectory(study), "test")]
  assert names == ["bag", "teacher", "gauss"]
  row, *_ = _collect(study)
  assert (row.model, row.family, row.estimator) == (
    *("nowhere:Bag", "bags of words", "exact"),
  )
  assert row.primary and row.K is NOT_APPLICABLE and row.data == "raw"
  (line, *_) = cells(tables.quality(_collect(study), "test"))
  assert line["log p(y given x)"] == "-4.000" and line["K"] == ""


# The page.


# The closing question.


@pytest.mark.parametrize(
  "preset, glancing, expected",
  [
    ("transformer_tiny", (), ("autoregressive", "maximum likelihood")),
    ("factorised_tiny", (), ("factorised", "maximum likelihood")),
    ("ctc_tiny", (0.5,), ("CTC", "glancing")),
    ("gauss_tiny", (), ("factorised", "ELBO, Gaussian prior")),
    ("ctc_flow_tiny", (0.5,), ("CTC", "ELBO, flow prior, glancing")),
  ],
)
def test_decoder_and_objective_are_read(tmp_path, preset, glancing, expected):
  run = RunDirectory(tmp_path / "run")
  train = TrainConfig(glancing=glancing)
  config = ExperimentConfig(zoo.config(preset, vocab_size=50), train, preset)
  files.write_json(run.config_path, to_dict(config))
  (row,) = collect.collect(StudyDirectory(tmp_path), "test")
  assert (row.decoder, objective(row)) == expected


def test_a_model_of_ones_own_has_the_objective_that_its_figures_have():
  row = change(ROW, decoder="mine", latents="")
  assert objective(row) == "ELBO"
  assert objective(change(row, estimator="exact")) == "maximum likelihood"


def _grid(rows, log_p=None):
  figures = SimpleNamespace(log_p=lambda row: (log_p or {}).get(row.run))
  return grid(comparison.Models(rows, figures, []))


def test_grid_is_of_decoders_by_objectives():
  exact = dict(estimator="exact", latents="", primary=True, data="raw")
  gauss = change(ROW, decoder="factorised", latents="Gaussian prior")
  ctc = change(ROW, run="ctc", model="ctc_tiny", decoder="CTC", **exact)
  rows = [
    gauss,
    change(ctc, method="greedy", bleu=20.0),
    change(ctc, method="prefix8", bleu=21.0, primary=False),
    change(ctc, run="ctc2", log_likelihood=-9.0, bleu=40.0),
    change(ctc, run="glanced", glancing="glancing", bleu=None),
    change(ctc, run="ar", decoder="autoregressive", log_likelihood=None,
           bleu=None),
    change(ctc, run="dag", decoder="DAG", model="dag_base"),
  ]  # fmt: skip
  figure = Resampled(-2.0, np.full(5, -2.0))
  lines = cells(_grid(rows, {"ctc": figure}))
  assert [line["decoder"] for line in lines] == [
    *("DAG", "autoregressive", "factorised", "CTC"),
  ]
  names = list(lines[0])
  assert names[:3] == ["decoder", "data", "size"]
  assert names[3:] == ["maximum likelihood", "ELBO, Gaussian prior", "glancing"]
  _, teacher, latent, slots = ([line[n] for n in names[3:]] for line in lines)
  assert teacher == ["–", "", ""]
  assert latent == ["", "≥ -2.500; BLEU 12.35 delta1", ""]
  likeliest = "-2.000 (-2.000 to -2.000); BLEU 21.00 prefix8"
  assert slots == [likeliest, "", "-2.500"]
  assert _grid([gauss]).rows == [], "one decoder"


class _Page(html.parser.HTMLParser):
  """What a page refers to, its texts, and whether its elements close."""

  def __init__(self, text):
    super().__init__()
    self.references, self.texts, self.open, self.ids = [], [], [], []
    self.feed(text)
    assert not self.open

  def handle_starttag(self, tag, attributes):
    if tag not in ("meta", "img"):
      self.open.append(tag)
    for name, value in attributes:
      if name in ("src", "href", "srcset", "data", "action"):
        self.references.append(value)
      if name == "id":
        self.ids.append(value)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    self.texts.append(data)


def test_the_binary_writes_the_report(study, binary):
  _add_checkpoints(study, "dev")
  _add_likelihoods(study)
  flags = "--samples=2", "--findings", "--paper=wmt14_en_de"
  done = binary("analyze", f"--study={study}", *flags)
  assert done.status == 0, done.stderr
  found = (study / "findings.md").read_text()
  assert found in done.stdout and "supported: 1 for" in found
  assert (study / "report.md").read_text() in done.stdout
  assert len((study / "report.csv").read_text().splitlines()) == 5
  assert len((study / "checkpoints.csv").read_text().splitlines()) == 11
  assert len((study / "ranking.csv").read_text().splitlines()) == 3
  text = (study / "report.html").read_text()
  found = _Page(text)
  inside = {f"#{name}" for name in found.ids}
  images = [r for r in found.references if r.startswith("data:image/svg+xml")]
  assert len(images) == 4 and set(found.references) <= inside | set(images)
  assert not re.search(r"@import|url\(|<script|<link", text)
  assert "viewport" in text and "Table 2" in text and "Table 5" in text
  assert "The closing question: decoder" in text
  assert "Decoders by objectives" in text
  assert "What the findings rest on" in text and "its Table 4" in text
  assert {"<b>ein</b> & zwei", "<i>", "d", "gauss, delta1"} <= set(found.texts)
  assert "b" not in found.texts, "not one of the two"
  assert "Plots need matplotlib" not in text


def test_a_folder_of_no_study_is_one_line(study, binary):
  bad = binary("analyze", f"--study={study / 'data'}")
  assert bad.status == 2 and bad.stderr.count("\n") == 1


def test_markup_in_names_is_text():
  table = tables.Table("<t>", "<h> {x}", [{"x": "a<b|c&"}], ["<n>"])
  assert _Page(tables.as_html(table)).texts.count("a<b|c&") == 1
  assert r"a<b\|c&" in tables.as_markdown("<s>", [table])
  figure = plots.Figure("<t>", "<c>", b"<svg/>")
  text = webpage.document("<s>", [("<a>", plots.as_html(figure))])
  assert {"<s>", "<a>", "<t>", "<c>"} <= set(_Page(text).texts)


def test_report_without_matplotlib_says_how_to_have_plots(study, monkeypatch):
  monkeypatch.setattr(plots.importlib.util, "find_spec", lambda name: None)
  rows = _collect(study)
  ((_, text),) = plots.sections(rows, [], [])
  assert "pip install 'latentnmt[plots]'" in text


# Plots.


def test_names_in_a_plot_cover_neither_each_other_nor_marks(monkeypatch):
  figure = pytest.importorskip("matplotlib.figure").Figure((5, 4), dpi=100)
  axes = figure.subplots()
  places = [(i / 6, (i % 2) / 30) for i in range(7)]
  axes.plot(*zip(*places, strict=True), "o-")
  axes.set(ylim=(-1, 1))
  labels = [(place, f"name {i}", "black") for i, place in enumerate(places)]
  plots.write_labels(axes, labels)
  boxes = [text.get_window_extent() for text in axes.texts]
  assert len(boxes) == 7
  for i, box in enumerate(boxes):
    assert not any(box.overlaps(other) for other in boxes[:i])
    assert not box.count_contains(axes.transData.transform(places))


def test_plots_are_there_for_what_there_is():
  pytest.importorskip("matplotlib")
  teacher = change(
    ROW, run="teacher", family="autoregressive", k=NOT_APPLICABLE
  )
  bare = change(ROW, bleu=None)
  assert len(plots.scatter([ROW, teacher], [])) == 1
  assert plots.scatter([bare], _points(1)) == []
  assert plots.speed([bare]) is None
  bare_log = TrainingLog("x")
  assert plots.training([bare_log]) is None
  curves = {"step": [(1, 1)], "kl": [(1, 0.5)]}
  assert plots.training([bare_log, TrainingLog("y", curves=curves)])
  (figure,) = plots.scatter([bare], _points(4))
  assert "checkpoints, on dev" in figure.title
  again = plots.scatter([bare], _points(4))[0]
  assert figure.svg == again.svg, "a report does not change by itself"
  far = change(POINT, step=9, bleu=0.0, log_likelihood=-100.0)
  (figure,) = plots.scatter([bare], [far, *_points(4)])
  assert figure.caption.endswith("Too far left to be shown, early ones: 1.")


def test_families_have_their_colours_whatever_the_study():
  families = "student prior", "flow prior"
  rows = [ModelRow("x", family=family, data="raw") for family in families]
  look = plots.Look(rows)
  assert look.colour(rows[1]) == plots.Look(rows[1:]).colour(rows[1])
  assert look.colour(rows[0]) != look.colour(rows[1])
  assert look.mark(rows[0])["marker"] != look.mark(rows[1])["marker"]


def test_reading_a_report_imports_no_jax():
  code = (
    "import sys, latentnmt.experiments.analyze\n"
    "sys.exit('jax' in sys.modules or 'latentnmt.data' in sys.modules)"
  )
  subprocess.run([sys.executable, "-c", code], check=True)
