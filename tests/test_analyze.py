import csv
import json
import shutil

import pytest

from experiments import analyze
from latentnmt import checkpoint, zoo
from latentnmt.config import ExperimentConfig, TrainConfig, to_dict
from latentnmt.types import InputError

ROW = {
  "run": "gauss",
  "model": "gauss_tiny",
  "data": "raw",
  "parameters": 1_234_567,
  "method": "delta1",
  "k": 1,
  "bleu": 12.345,
  "bleu_low": 11.0,
  "bleu_high": 13.0,
  "bleu_signature": "nrefs:1|bs:1000",
  "chrf": 40.04,
  "log_likelihood": -2.5,
  "estimator": "iwae",
  "K": 100,
  "ess": 12.34,
  "lee2020": -1.0,
  "bits_per_byte": 1.2345,
  "megabytes": 5.0,
  "sentences_per_second_batch32": 100.0,
  "sentences_per_second_batch1": 7.0,
}


def cells(text):
  lines = [line for line in text.split("\n") if line.startswith("|")]
  rows = [[c.strip() for c in line.split("|")[1:-1]] for line in lines]
  head, rule, *body = rows
  assert all(set(c) <= set("-:") for c in rule)
  assert {len(row) for row in rows} == {len(head)}
  return [dict(zip(head, row, strict=True)) for row in body]


def test_table_has_a_line_for_each_row():
  (row,) = cells(analyze.table([ROW]))
  assert row["run"] == "gauss" and row["parameters"] == "1,234,567"
  assert row["BLEU"] == "12.35" and row["95 %"] == "11.00 to 13.00"
  assert row["log p(y given x)"] == "-2.500" and row["ESS"] == "12.3"
  speeds = [name for name in row if name.startswith("sentences/s")]
  assert speeds == ["sentences/s at 1", "sentences/s at 32"]
  assert analyze.missing([ROW]) == []


def test_missing_figures_are_dashes_and_named_and_others_empty():
  bare = ROW | {"bleu": None, "sentences_per_second_batch1": None, "k": ""}
  row = cells(analyze.table([bare]))[0]
  assert row["BLEU"] == row["sentences/s at 1"] == "–"
  assert row["k"] == ""
  assert analyze.missing([ROW, bare]) == [
    "– BLEU is missing for gauss delta1.",
    "– sentences/s at 1 is missing for gauss delta1.",
  ]


def test_table_without_any_speed_still_has_the_column():
  bare = {k: v for k, v in ROW.items() if not k.startswith("sentences_per")}
  assert cells(analyze.table([bare]))[0]["sentences/s"] == "–"


def test_csv_has_all_digits():
  (row,) = csv.DictReader(analyze.as_csv([ROW]).splitlines())
  assert float(row["bleu"]) == ROW["bleu"] and row["run"] == "gauss"


def test_verdict_names_what_exceeds_the_truth():
  row = {"run": "a", "estimator": "iwae", "errors": 1.9}
  worse = row | {"errors": 2.1}
  assert analyze.verdict([row])[0].startswith("No likelihood")
  assert "a: iwae exceeds the truth by 2.1" in analyze.verdict([row, worse])[0]
  assert analyze.verdict([worse | {"estimator": "lee2020"}])[0].startswith("No")


def _make_run(study, name, preset, fingerprint, results, best=None):
  run = study / name
  run.mkdir(parents=True)
  config = ExperimentConfig(
    zoo.config(preset, vocab_size=50), TrainConfig(), preset, fingerprint
  )
  (run / "config.json").write_text(json.dumps(to_dict(config)))
  if best:
    checkpoint.mark_finished(
      run, "steps", step=best, best_step=best, best_bleu=20.0
    )
  for row in results:
    checkpoint.append_result(run, {"split": "test"} | row)
  return run


def _nats(estimator, value, step, **fields):
  fields = {"metric": "nats_per_token", "K": 8, "bits_per_byte": 1.5} | fields
  row = {"estimator": estimator, "value": value, "step": step}
  return row | {"ess_median": 3.0, "sentences": 10, "tokens": 99} | fields


def _bleu(method, value):
  signature = f"signature:{method[0]}"
  row = {"metric": "bleu", "method": method, "value": value}
  return row | {"low": value - 1, "high": value + 1, "signature": signature}


@pytest.fixture
def study(tmp_path):
  study = tmp_path / "quick"
  distilled = {"targets": {"data": "data", "method": "beam4"}}
  for name, made_from in ("data", {}), ("data-distilled", distilled):
    (study / name).mkdir(parents=True)
    meta = {"fingerprint": name, "made_from": made_from}
    (study / name / "meta.json").write_text(json.dumps(meta))
  _make_run(
    study,
    "gauss",
    "gauss_tiny",
    "data-distilled",
    [
      _bleu("delta0", 10.0),
      _bleu("delta1", 12.0),
      _nats("iwae", -2.25, 200),
      _nats("iwae", -1.5, 200, metric="nats_per_token_given_length"),
      _nats("elbo", -3.0, 200),
      _nats("iwae", -9.0, 400),
      {"metric": "lee2020_per_position", "value": -0.5, "step": 200},
      {"metric": "bleu", "method": "delta1", "value": 99.0, "split": "dev"},
    ],
    best=200,
  )
  _make_run(
    study,
    "teacher",
    "transformer_tiny",
    "data",
    [
      _bleu("beam4", 20.0),
      _nats("exact", -2.0, 100, K=None),
      *(
        {
          "metric": "sentences_per_second",
          "method": "beam4",
          "batch_size": size,
          "value": 50.0 + size,
          "device": "2-core oracle",
        }
        for size in (8, 1)
      ),
      {"metric": "parameters", "value": 1000},
    ],
  )
  return study


def test_a_study_is_one_row_per_run_and_method(study):
  teacher, first, second = cells(analyze.table(analyze.collect(study, "test")))
  assert teacher["run"] == "teacher" and teacher["data"] == "raw"
  assert teacher["log p(y given x)"] == "-2.000" and teacher["K"] == ""
  assert teacher["sentences/s at 1"] == "51.0"
  assert teacher["sentences/s at 8"] == "58.0"
  assert teacher["parameters"] == "1,000" and teacher["MB"] == "–"
  assert [first["decoding"], second["decoding"]] == ["delta0", "delta1"]
  assert second["BLEU"] == "12.00" and second["k"] == "1"
  assert second["data"] == "distilled" and second["lee2020"] == "-0.500"
  assert second["log p(y given x)"] == "-2.250", "of the best checkpoint"
  assert second["sentences/s at 8"] == "–"


def test_report_states_its_conditions(study):
  rows = analyze.collect(study, "test")
  text = analyze.report("quick", rows, analyze.compare(study, "test"), "test")
  for words in (
    "signature:d",
    "signature:b",
    "2-core oracle",
    "10 sentences, 99 tokens",
    "not a likelihood",
    "– MB is missing for teacher beam4, gauss delta0, gauss delta1.",
  ):
    assert words in text
  assert "known log p" not in text


def test_raw_data_may_be_elsewhere(study):
  shutil.rmtree(study / "data")
  rows = analyze.collect(study, "test")
  assert [row["data"] for row in rows] == ["raw", "distilled", "distilled"]
  shutil.rmtree(study / "data-distilled")
  row = {"metric": "bleu", "method": "beam4", "value": 1.0, "data": "data"}
  checkpoint.append_result(study / "teacher", {"split": "test"} | row)
  rows = analyze.collect(study, "test")
  assert [row["data"] for row in rows] == ["raw", None, None]


def test_translations_of_the_best_checkpoint_count(study):
  for step, value in (200, 15.0), (400, 16.0):
    row = {"split": "test", "step": step} | _bleu("delta1", value)
    checkpoint.append_result(study / "gauss", row)
  *_, row = analyze.collect(study, "test")
  assert (row["bleu"], row["bleu_step"]) == (15.0, 200)


def test_unknown_tokens_are_a_condition(study):
  row = _nats("iwae", -2.25, 200, split="test", unknown=7, truncated=0)
  checkpoint.append_result(study / "gauss", row)
  text = "\n".join(analyze.conditions(analyze.collect(study, "test"), "test"))
  assert "7 of the tokens are unknown to the vocabulary" in text
  assert "cut before" not in text
  row = {"split": "test", "truncated": 3} | _bleu("delta1", 15.0)
  checkpoint.append_result(study / "gauss", row)
  text = "\n".join(analyze.conditions(analyze.collect(study, "test"), "test"))
  assert "3 sources were cut before they were translated" in text


def test_truth_gives_a_second_table(study):
  for estimator, value in ("iwae", -0.3), ("lee2020", 4.0):
    row = {
      "metric": "difference_to_truth",
      "estimator": estimator,
      "value": value,
      "standard_error": 0.1,
      "per_token": value / 8,
      "truth_per_token": -1.0,
    }
    checkpoint.append_result(study / "gauss", {"split": "test"} | row)
  rows = analyze.compare(study, "test")
  iwae, lee2020 = cells(analyze.truth_table(rows))
  assert iwae["difference/sentence"] == "-0.300"
  assert iwae["in standard errors"] == "-3.0"
  assert lee2020["nats/token"] == "-0.500"
  assert lee2020["difference/token"] == "+0.500"
  text = analyze.report("x", analyze.collect(study, "test"), rows, "test")
  assert "Against the known" in text and "No likelihood or bound" in text


def test_a_run_without_results_still_has_a_row(tmp_path):
  _make_run(tmp_path, "new", "gauss_tiny", "", [])
  (row,) = analyze.collect(tmp_path, "test")
  assert row["method"] is None and row["run"] == "new"
  assert "– BLEU is missing for new." in analyze.missing([row])


def test_a_folder_without_runs_is_refused(tmp_path):
  with pytest.raises(InputError, match="no run directories"):
    analyze.collect(tmp_path, "test")


def test_the_binary_writes_and_prints_the_report(study, binary):
  done = binary("analyze", f"--study={study}")
  assert done.status == 0, done.stderr
  assert (study / "report.md").read_text() in done.stdout
  assert len((study / "report.csv").read_text().splitlines()) == 4
  bad = binary("analyze", f"--study={study / 'data'}")
  assert bad.status == 2 and bad.stderr.count("\n") == 1
