"""The two binaries that score, on a run that was never trained."""

import json
import os
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from latentnmt import checkpoint, files, likelihood, metrics, zoo
from latentnmt.config import CtcConfig, ExperimentConfig, TrainConfig
from latentnmt.data import Corpus, PreparedData, prepare
from latentnmt.experiments import evaluate_likelihood
from latentnmt.models import build, init_params
from latentnmt.runs import RunDirectory

WORDS = "ein haus und der alte mann sieht das rote auto am see".split()
PRESETS = {"ar": "transformer_tiny", "latent": "gauss_tiny"}


def _lines(count, seed):
  rng = np.random.default_rng(seed)
  return [" ".join(rng.choice(WORDS, rng.integers(2, 9))) for _ in range(count)]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
  """A prepared corpus and a run of each family, of one checkpoint."""
  study = tmp_path_factory.mktemp("study")
  sizes = {"train": 40, "dev": 3, "test": 11}
  splits = {
    split: (_lines(size, size), _lines(size, size + 1))
    for split, size in sizes.items()
  }
  log_probs = {"test": np.linspace(-30, -20, 11)}
  corpus = Corpus(splits, ("de", "en"), "a test", log_probs)
  data = prepare(corpus, study / "data", vocab_size=50)
  for name, preset in PRESETS.items():
    transformer = dict(width=16, hidden=16, heads=2, max_length=40)
    config = zoo.config(preset, vocab_size=50, transformer=transformer)
    config = ExperimentConfig(config, TrainConfig(), preset, data.fingerprint)
    RunDirectory(study / name).create(config, data.tokenizer)
    _save(study / name, build(config.model))
  return study


def _save(run, model, step=7):
  init = jax.jit(init_params, static_argnums=0)
  params = init(model, jax.random.key(step))
  state = SimpleNamespace(step=step, params=params, opt_state={})
  with checkpoint.Checkpoints(run) as checkpoints:
    checkpoints.save(state, checkpoint.Progress(), 1.0 / step)


def _rows(run):
  return [result.as_row() for result in RunDirectory(run).results()]


def _results(run):
  lines = (run / "results.jsonl").read_text().splitlines()
  rows = _rows(run)
  assert len(rows) == len(lines), "no row replaces another of the same process"
  return rows


def _find(rows, metric, estimator):
  (row,) = [
    r for r in rows if (r["metric"], r.get("estimator")) == (metric, estimator)
  ]
  return row


def test_lines_are_scored_in_their_order_whatever_the_batches(study):
  data = PreparedData.open(study / "data")
  model, params, tokenizer = checkpoint.load(study / "latent")
  sources, targets = data.sources("test"), data.targets("test")
  key = jax.random.key(0)
  together, apart = (
    likelihood.log_likelihood_lines(
      *(model, params, tokenizer, sources, targets, key),
      samples=4,
      batch_tokens=batch_tokens,
    )
    for batch_tokens in (4096, 16)
  )
  for name, value in vars(together).items():
    assert len(value) == 11
    np.testing.assert_allclose(value, vars(apart)[name], rtol=1e-4, atol=1e-4)
  lengths = [len(ids) for ids in tokenizer.encode(targets)]
  np.testing.assert_array_equal(together.num_tokens, lengths)


@pytest.mark.parametrize("name", PRESETS)
def test_likelihood_rows(study, binary, name):
  run = study / name
  done = binary(
    "evaluate_likelihood",
    *(f"--run={run}", f"--data={study / 'data'}", "--samples=4"),
  )
  assert done.status == 0, done.stderr
  rows = _results(run)
  saved = np.load(run / "likelihood" / "test.7.npz")
  targets = PreparedData.open(study / "data").targets("test")
  tokens = saved["num_tokens"].sum()
  for row in rows:
    assert row["split"] == "test" and row["step"] == 7
    assert row["sentences"] == 11 and row["tokens"] == tokens
    assert row["truncated"] == row["escaped"] == 0
    assert np.isfinite(row["value"])
  estimator = "exact" if name == "ar" else "iwae"
  paid = saved["log_likelihood"]
  np.testing.assert_allclose(
    paid, saved["given_length"] + saved["log_pl"], rtol=1e-6
  )
  row = _find(rows, "nats_per_token", estimator)
  np.testing.assert_allclose(row["value"], paid.sum() / tokens, rtol=1e-5)
  assert row.get("samples") == (None if name == "ar" else 4)
  np.testing.assert_allclose(
    row["bits_per_byte"], metrics.bits_per_byte(paid, targets), rtol=1e-5
  )
  row = _find(rows, "difference_to_truth", estimator)
  difference = paid - np.linspace(-30, -20, 11)
  np.testing.assert_allclose(row["value"], difference.mean(), rtol=1e-5)
  np.testing.assert_allclose(
    row["standard_error"], difference.std(ddof=1) / 11**0.5, rtol=1e-5
  )
  if name == "latent":
    _check_latent_rows(rows, saved)
  else:
    assert {row["estimator"] for row in rows} == {"exact"}


def test_sentences_that_only_the_escape_reaches_are_counted(study, binary):
  """A CTC of one slot for two tokens cannot make most references."""
  transformer = dict(width=16, hidden=16, heads=2, max_length=40)
  output = CtcConfig(scale=0.5, extra=0)
  config = zoo.config(
    "ctc_tiny", vocab_size=50, transformer=transformer, output=output
  )
  data = PreparedData.open(study / "data")
  run = RunDirectory(study / "ctc")
  config = ExperimentConfig(config, TrainConfig(), "ctc_tiny", data.fingerprint)
  run.create(config, data.tokenizer)
  _save(study / "ctc", build(config.model))
  done = binary("evaluate_likelihood", f"--run={run}", f"--data={data.path}")
  assert done.status == 0, done.stderr
  x, y = (
    np.array([len(ids) for ids in data.tokenizer.encode(lines)])
    for lines in (data.sources("test"), data.targets("test"))
  )
  unreached = y - 1 > np.maximum(x // 2, 1)
  escaped = run.likelihood("test", 7)["escaped"]
  assert 0 < unreached.sum() and (escaped[unreached] == 1).all()
  assert {row["escaped"] for row in _rows(study / "ctc")} == {escaped.sum()}
  assert f"{escaped.sum():.0f} of 11 sentences" in done.stdout


def test_kept_checkpoints_are_scored_by_the_same_programs(
  study, tmp_path, caplog
):
  run = shutil.copytree(study / "latent", tmp_path / "run")
  _save(run, build(RunDirectory(run).config().model), step=9)
  data = PreparedData.open(study / "data")
  values, compiled = [], []
  for step in checkpoint.steps(run):
    caplog.clear()
    with jax.log_compiles():
      estimate = likelihood.log_likelihood_lines(
        *checkpoint.load(run, step),
        data.sources("dev"),
        data.targets("dev"),
        jax.random.key(0),
        samples=2,
      )
    values.append(estimate.log_likelihood)
    compiled.append([r for r in caplog.messages if "Compiling" in r])
  assert len(values) == 2 and compiled[0] and not compiled[1]
  assert not np.allclose(*values)


def test_kept_checkpoints_give_rows_and_values_each(study, binary, tmp_path):
  run = shutil.copytree(study / "ar", tmp_path / "run")
  (run / "results.jsonl").unlink(missing_ok=True)
  shutil.rmtree(run / "likelihood", ignore_errors=True)
  _save(run, build(RunDirectory(run).config().model), step=9)
  flags = f"--run={run}", f"--data={study / 'data'}", "--split=dev"
  bad = binary("evaluate_likelihood", *flags, "--checkpoint=last")
  assert bad.status == 2 and "give best, kept or a step" in bad.stderr
  done = binary("evaluate_likelihood", *flags, "--checkpoint=kept")
  assert done.status == 0, done.stderr
  rows = [r for r in _results(run) if r["metric"] == "nats_per_token"]
  assert [row["step"] for row in rows] == [7, 9]
  for row in rows:
    values = np.load(run / "likelihood" / f"dev.{row['step']}.npz")
    nats = values["log_likelihood"].sum() / values["num_tokens"].sum()
    np.testing.assert_allclose(row["value"], nats, rtol=1e-5)
  assert rows[0]["value"] != rows[1]["value"]


def _check_latent_rows(rows, saved):
  tokens = saved["num_tokens"].sum()
  log_pl = saved["log_pl"]
  given = {name: saved[name] for name in ("reconstruction", "lee2020")}
  given |= {"elbo": saved["elbo"] - log_pl, "iwae": saved["given_length"]}
  for estimator, nats in given.items():
    row = _find(rows, "nats_per_token_given_length", estimator)
    expected = nats.sum() / tokens
    np.testing.assert_allclose(row["value"], expected, rtol=1e-5)
    assert row["length"] == "given"
    assert ("ess_min" in row) == (estimator == "iwae")
    # The length is paid for once, whichever of the two an estimator gives.
    row = _find(rows, "nats_per_token", estimator)
    expected = (nats + log_pl).sum() / tokens
    np.testing.assert_allclose(row["value"], expected, rtol=1e-5)
    assert row["length"] == "paid"
  row = _find(rows, "lee2020_per_position", "lee2020")
  expected = np.mean(saved["lee2020"] / saved["num_positions"])
  np.testing.assert_allclose(row["value"], expected, rtol=1e-5)
  row = _find(rows, "nats_per_token", "iwae")
  assert 1 <= row["ess_min"] <= row["ess_median"] <= 4
  assert row["beyond_length_classes"] == 0
  error = np.sqrt(np.sum(saved["standard_error"] ** 2)) / tokens
  np.testing.assert_allclose(row["standard_error"], error, rtol=1e-5)


def test_long_sentences_are_refused_or_cut_and_counted(study, binary, tmp_path):
  lines = {"train": 40, "dev": 3, "test": 3}
  splits = {s: (_lines(n, n), _lines(n, n + 1)) for s, n in lines.items()}
  splits["test"][1][1] = " ".join(WORDS * 9)
  tokenizer = PreparedData.open(study / "data").tokenizer
  prepare(
    Corpus(splits, ("de", "en"), "long"), tmp_path / "data", tokenizer=tokenizer
  )
  run = shutil.copytree(study / "latent", tmp_path / "run")
  command = (
    "evaluate_likelihood",
    *(f"--run={run}", f"--data={tmp_path / 'data'}", "--samples=2"),
  )
  refused = binary(*command)
  assert refused.status == 2
  assert "1 of 3 targets are longer" in refused.stderr
  done = binary(*command, "--truncate")
  assert done.status == 0, done.stderr
  assert "1 of 3 pairs were cut to 40 tokens a side." in done.stderr
  row = files.read_json_lines(run / "results.jsonl")[-1]
  assert row["truncated"] == 1 and "bits_per_byte" not in row


def test_bleu_scores_every_translation(study, binary):
  data = PreparedData.open(study / "data")
  runs = study / "ar", study / "latent"
  flags = [f"--data={study / 'data'}", "--resamples=20"]
  flags += [f"--run={run}" for run in runs]
  none = binary("evaluate_bleu", *flags)
  assert none.status == 2 and "translate with it first" in none.stderr
  targets = data.targets("test")
  _translated(runs[0], data.fingerprint, "test", "beam4", targets)
  _translated(runs[1], data.fingerprint, "test", "delta1-t0.5", targets[::-1])
  _translated(runs[1], data.fingerprint, "dev", "delta0", data.targets("dev"))
  done = binary("evaluate_bleu", *flags)
  assert done.status == 0, done.stderr
  rows = _rows(runs[1])
  (row,) = [r for r in rows if r.get("method") == "delta1-t0.5"][:1]
  score = metrics.bleu(targets[::-1], targets, resamples=20)
  assert row["metric"] == "bleu" and row["value"] == score.value
  assert row["signature"] == score.signature and row["low"] == score.low
  assert {(r["split"], r["metric"]) for r in rows if "method" in r} == {
    (split, metric) for split in ("dev", "test") for metric in ("bleu", "chrf")
  }
  assert (row["step"], row["data"]) == (7, data.fingerprint)


def test_bleu_of_every_checkpoint_and_what_the_model_says(
  study, binary, tmp_path
):
  data = PreparedData.open(study / "data")
  run = shutil.copytree(study / "latent", tmp_path / "run")
  shutil.rmtree(run / "hypotheses", ignore_errors=True)
  (run / "results.jsonl").unlink(missing_ok=True)
  lines, method = data.targets("test"), "delta1-t0.5"
  told = {"bound_per_token": -2.5, "eq3_per_token": -30.0, "output_tokens": 9}
  _translated(run, data.fingerprint, "test", method, lines, **told)
  for step in (8, 10):
    other = f"{method}.step{step}"
    lines = lines[::-1] if step == 8 else lines[2:] + lines[:2]
    _translated(run, data.fingerprint, "test", other, lines, step=step)
  flags = f"--run={run}", f"--data={study / 'data'}", "--resamples=0"
  done = binary("evaluate_bleu", *flags)
  assert done.status == 0, done.stderr
  rows = _results(run)
  assert {row["method"] for row in rows} == {method}
  assert {
    row["step"]: row["value"] for row in rows if row["metric"] == "bleu"
  }.keys() == {7, 8, 10}
  values = {(r["metric"], r["step"]): r["value"] for r in rows}
  assert values["bound", 7] == -2.5 and values["eq3", 7] == -30.0
  assert values["bleu", 7] > 99 > values["bleu", 8]
  assert ("bound", 8) not in values
  assert not any("bound_per_token" in row for row in rows)


def test_bleu_names_what_the_references_went_through(study, binary, tmp_path):
  splits = {s: (_lines(3, 1), _lines(3, 2)) for s in ("train", "dev", "test")}
  tokenizer = PreparedData.open(study / "data").tokenizer
  data = prepare(
    Corpus(splits, ("en", "ro"), "a test"),
    tmp_path / "data",
    normalizers=("unescape", "strip_romanian_diacritics"),
    tokenizer=tokenizer,
  )
  run = shutil.copytree(study / "ar", tmp_path / "run")
  shutil.rmtree(run / "hypotheses", ignore_errors=True)
  (run / "results.jsonl").unlink(missing_ok=True)
  lines = data.targets("test")
  _translated(run, data.fingerprint, "test", "greedy", lines)
  flags = f"--run={run}", f"--data={data.path}", "--resamples=0"
  done = binary("evaluate_bleu", *flags)
  assert done.status == 0, done.stderr
  expected = ["unescape", "strip_romanian_diacritics"]
  names = [row["reference_normalizers"] for row in _results(run)]
  assert names == [expected, expected]


def _translated(run, fingerprint, split, method, lines, step=7, **told):
  """Writes what `translate` would."""
  about = {"step": step, "data": fingerprint, "truncated": 0} | told
  return RunDirectory(run).write_hypotheses(split, method, lines, about)


def _short(path):
  path.write_text("one\n")


def _of_other_data(path):
  _translated(path.parents[1], "abc", "test", "greedy", [""] * 11)


def _of_nothing(path):
  path.with_suffix(".json").unlink()


@pytest.mark.parametrize(
  "spoil, message",
  [
    (_short, "test.greedy.txt: 1 hypotheses for 11 references"),
    (_of_other_data, r"test.greedy.txt translates other data \(abc\) than"),
    (_of_nothing, "test.greedy.txt has no .json beside it"),
  ],
)
def test_one_bad_file_and_no_score_is_written(
  study, binary, tmp_path, spoil, message
):
  data = PreparedData.open(study / "data")
  run = shutil.copytree(study / "ar", tmp_path / "run")
  shutil.rmtree(run / "hypotheses", ignore_errors=True)
  (run / "results.jsonl").unlink(missing_ok=True)
  for method in ("beam4", "greedy"):
    path = _translated(
      run, data.fingerprint, "test", method, data.targets("test")
    )
  spoil(path)
  flags = f"--run={run}", f"--data={study / 'data'}", "--resamples=0"
  done = binary("evaluate_bleu", *flags)
  assert done.status == 2 and not done.stdout
  assert re.search(message, done.stderr.splitlines()[-1])
  assert not (run / "results.jsonl").exists()


def test_translations_tell_what_they_are_of(study, binary, tmp_path):
  splits = {s: (_lines(3, 1), _lines(3, 2)) for s in ("train", "dev", "test")}
  splits["test"][0][1] = " ".join(WORDS * 9)
  tokenizer = PreparedData.open(study / "data").tokenizer
  corpus = Corpus(splits, ("de", "en"), "long")
  data = prepare(corpus, tmp_path / "data", tokenizer=tokenizer)
  run = shutil.copytree(study / "latent", tmp_path / "run")
  flags = f"--run={run}", f"--data={data.path}", "--methods=delta0"
  refused = binary("translate", *flags)
  assert refused.status == 2 and "1 of 3 sources are longer" in refused.stderr
  done = binary("translate", *flags, "--truncate")
  assert done.status == 0, done.stderr
  assert "1 of 3 sources were cut to 40 tokens." in done.stderr
  about = json.loads((run / "hypotheses" / "test.delta0.json").read_text())
  expected = {"step": 7, "data": data.fingerprint, "truncated": 1}
  assert expected.items() <= about.items()


def test_methods_are_checked_before_any_translates(study, binary):
  flags = f"--run={study / 'ar'}", f"--data={study / 'data'}"
  done = binary("translate", *flags, "--methods=greedy,beam2,delta1")
  assert done.status == 2
  (line,) = done.stderr.splitlines()  # no bar: nothing was decoded
  assert "cannot decode by delta1; it takes greedy or beam" in line


@pytest.mark.parametrize(
  "arguments, message",
  [
    (["--methods=greedy", "--output={study}"], "{study}: Is a directory"),
    (["--methods=greedy", "--output={file}/x"], "{file}: "),
    (["--methods="], "none is given"),
  ],
)
def test_what_cannot_be_done_is_one_line(study, binary, arguments, message):
  (study / "empty.txt").write_text("")
  places = {"study": study, "file": study / "ar" / "config.json"}
  flags = f"--run={study / 'ar'}", f"--input={study / 'empty.txt'}"
  done = binary("translate", *flags, *(a.format(**places) for a in arguments))
  assert done.status == 2, done.stderr
  line = done.stderr.splitlines()[-1]
  assert line.startswith("error: ") and message.format(**places) in line
  assert "Traceback" not in done.stderr


def test_distillation_refuses_its_folder_before_it_translates(study, binary):
  flags = f"--run={study / 'ar'}", f"--data={study / 'data'}"
  done = binary("distill", *flags, f"--out={study / 'latent'}")
  assert done.status == 2
  (line,) = done.stderr.splitlines()  # no bar
  assert "latent exists and is no prepared corpus" in line
  assert not (study / "latent.parts").exists()


def test_a_killed_process_leaves_whole_values_or_none(tmp_path):
  path = tmp_path / "a" / "values.npz"
  with pytest.raises(KeyboardInterrupt), files.replacing(path) as partial:
    partial.write_text("half")
    raise KeyboardInterrupt
  assert not list(path.parent.iterdir())


def test_unknown_tokens_are_counted(study):
  data = PreparedData.open(study / "data")
  model, _, tokenizer = checkpoint.load(study / "ar")
  lines = ["ein § haus", "ein haus", "§§ §"]
  ids = tokenizer.encode(lines)
  sources = tokenizer.encode(data.sources("test")[:3])
  ones = np.ones(3)
  estimate = SimpleNamespace(
    num_tokens=ones, num_positions=ones, escaped=ones - 1
  )
  row = evaluate_likelihood.counts(model, estimate, sources, ids)
  assert row["unknown"] == sum(ids.count(2) for ids in ids) >= 3
  assert row["truncated"] == 0


def test_devices_do_not_change_the_result(study, binary):
  flags = [f"--run={study / 'latent'}", f"--data={study / 'data'}"]
  flags += ["--samples=3", "--split=dev"]
  path = study / "latent" / "likelihood" / "dev.7.npz"
  done = binary("evaluate_likelihood", *flags)
  assert done.status == 0, done.stderr
  one = dict(np.load(path))
  path.unlink()
  subprocess.run(
    [sys.executable, "-m", "latentnmt.experiments.evaluate_likelihood", *flags],
    env=os.environ | {"JAX_NUM_CPU_DEVICES": "4"},
    check=True,
  )
  for name, value in np.load(path).items():
    np.testing.assert_allclose(value, one[name], rtol=1e-4, atol=1e-4)


def test_annealing_is_asked_for_by_its_temperatures(study, binary):
  run = study / "latent"
  flags = f"--run={run}", f"--data={study / 'data'}", "--samples=8"
  sizes = "--temperatures=3", "--chains=2", "--leapfrog=1"
  done = binary("evaluate_likelihood", *flags, *sizes, "--seed=5")
  assert done.status == 0, done.stderr
  rows = [row for row in _rows(run) if row["split"] == "test"]
  row = _find(rows, "nats_per_token", "annealed")
  assert (row["samples"], row["temperatures"], row["leapfrog"]) == (2, 3, 1)
  assert 1 <= row["ess_mean"] <= 2 and 0 <= row["acceptance_mean"] <= 1
  saved = np.load(run / "likelihood" / "test.7.npz")
  paid, tokens = saved["annealed"], saved["num_tokens"].sum()
  np.testing.assert_allclose(row["value"], paid.sum() / tokens, rtol=1e-5)
  row = _find(rows, "nats_per_token_given_length", "annealed")
  given = (paid - saved["log_pl"]).sum() / tokens
  np.testing.assert_allclose(row["value"], given, rtol=1e-5)
  row = _find(rows, "nats_per_token", "iwae")
  assert len(row["sweep"]) == 4 and row["sweep"][0] == row["value"]
  limit = _find(rows, "nats_per_token", "extrapolated")["value"]
  assert limit >= row["value"] - 1e-6
  done = binary("evaluate_likelihood", *flags, "--temperatures=1")
  assert done.status == 2 and "--temperatures=1" in done.stderr


def test_estimators_are_validated_on_a_run(study, binary):
  where = f"--run={study / 'latent'}", f"--data={study / 'data'}"
  done = binary(
    "validate_estimators",
    *(*where, "--sentences=5", "--samples=8"),
    *("--temperatures=3", "--chains=2", "--leapfrog=1"),
  )
  assert done.status == 0, done.stderr
  table = [line.split(" | ") for line in done.stdout.splitlines()[2:]]
  assert {len(cells) for cells in table[2:]} == {9}
  own = [cells for cells in table if cells[0] == "| the model's own"]
  paid = [cells for cells in table if cells[0] == "| test, length paid"]
  names = ["elbo", "iwae", "extrapolated (no bound)", "annealed"]
  assert [cells[1] for cells in paid] == names
  assert [cells[1] for cells in own] == [*names, "annealed in reverse"]
  assert all(cells[3] and cells[4] for cells in paid)  # truth and error
  assert not any(cells[3] for cells in own)


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["--run=there"], "both --run and --data"),
    (["--run=a", "--data=b", "--positions=3"], "--positions"),
    (["--split=dev"], "--split"),
  ],
)
def test_validation_names_what_does_not_fit(binary, arguments, message):
  done = binary("validate_estimators", *arguments)
  assert done.status == 2 and done.stderr.startswith("error:")
  assert message in done.stderr
