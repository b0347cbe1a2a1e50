"""The run directory: its small files, and those of older versions."""

import json
import os
from pathlib import Path
import subprocess
import sys

import numpy as np
import pytest
import workers

import latentnmt
from latentnmt import files
from latentnmt.config import override
from latentnmt.errors import InputError
from latentnmt.runs import Result, RunDirectory


class _Tokenizer:
  """What `create` needs of one."""

  def save(self, path):
    path.write_text("pieces")


def _created(path, config=None) -> RunDirectory:
  run = RunDirectory(path)
  run.create(config or workers.config(), _Tokenizer())
  return run


def test_a_run_knows_all_of_its_paths(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  run = RunDirectory("runs/a")
  assert run == RunDirectory(Path("runs/a")) == RunDirectory(run)
  assert run.name == "a" and str(run) == os.fspath(run) == "runs/a"
  assert run.checkpoints_path == tmp_path / "runs/a/checkpoints"
  assert run.hypotheses_path("dev", "beam4").name == "dev.beam4.txt"
  assert run.likelihood_path("test", 7) == Path("runs/a/likelihood/test.7.npz")
  assert not run.path.exists()


def test_a_run_directory_belongs_to_one_configuration(tmp_path):
  config = workers.config()
  run = _created(tmp_path / "a" / "run", config)
  assert run.config() == config
  assert run.config_tree()["version"] == latentnmt.__version__
  before = run.config_path.read_bytes()
  run.create(config, _Tokenizer())
  other = override(config, "train.steps=5", "model.transformer.width=32")
  with pytest.raises(InputError) as error:
    run.create(other, _Tokenizer())
  assert "train.steps: 4 -> 5" in str(error.value)
  assert "model.transformer.width: 16 -> 32" in str(error.value)
  assert run.config_path.read_bytes() == before


def test_other_directories_are_left_alone(tmp_path):
  (tmp_path / "mine").write_text("precious")
  for path in (tmp_path, tmp_path / "mine"):
    with pytest.raises(InputError, match="no run directory"):
      _created(path)
  assert os.listdir(tmp_path) == ["mine"]


def test_what_a_start_cut_short_leaves_is_taken_over(tmp_path):
  (tmp_path / "vocab.model").write_text("pie")
  run = _created(tmp_path)
  assert run.vocabulary_path.read_text() == "pieces"


def test_what_is_missing_or_damaged_is_said(tmp_path):
  (tmp_path / "file").write_text("")
  for path in (tmp_path / "none", tmp_path / "file"):
    with pytest.raises(InputError, match="not a run .*latentnmt train"):
      RunDirectory(path).config()
  with pytest.raises(InputError, match="cannot be made"):
    _created(tmp_path / "file/run")
  run = _created(tmp_path / "run")
  run.config_path.write_text("{")
  with pytest.raises(InputError, match="damaged"):
    run.config()


def test_settings_of_an_older_version_are_read(tmp_path):
  run = _created(tmp_path / "run")
  tree = run.config_tree()
  del tree["version"]
  transformer = tree["model"]["transformer"]
  transformer["products"] = transformer.pop("matmul_dtype")
  del tree["model"]["family"]
  files.write_json(run.config_path, tree)
  assert run.config() == workers.config()
  run.create(workers.config(), _Tokenizer())


def test_settings_of_another_version_name_the_two(tmp_path):
  run = _created(tmp_path / "run")
  tree = {**run.config_tree(), "version": "9.1"}
  tree["model"]["wings"] = 2
  files.write_json(run.config_path, tree)
  here = latentnmt.__version__.replace(".", r"\.")
  with pytest.raises(InputError, match=rf"wings.*9\.1 and this is {here}"):
    run.config()
  del tree["version"]
  files.write_json(run.config_path, tree)
  with pytest.raises(InputError, match="by latentnmt before 0.2 and"):
    run.config()


def test_the_end_of_training(tmp_path):
  run = RunDirectory(tmp_path / "run")
  assert run.finished() is None
  run.mark_finished("patience", step=9, best_step=5, best_score=20.5)
  expected = dict(reason="patience", step=9, best_step=5, best_score=20.5)
  expected["select"] = "bleu"
  assert run.finished() == expected
  assert run.finished_path.read_text() == json.dumps(expected) + "\n"


def test_hypotheses_are_one_a_line(tmp_path):
  run = RunDirectory(tmp_path)
  lines = ["ein Haus", "", "two\nlines", "bye\u2028bye"]
  path = run.write_hypotheses("dev", "beam4", lines)
  assert path == run.hypotheses_path("dev", "beam4")
  text = path.read_text(encoding="utf-8")
  assert text == "ein Haus\n\ntwo lines\nbye\u2028bye\n"


# Results.


def test_the_last_result_of_its_kind_wins(tmp_path):
  run = RunDirectory(tmp_path)
  key = {"metric": "bleu", "split": "test", "method": "beam4", "step": 7}
  run.append_result(Result(**key, value=1.0))
  run.append_result(Result(**{**key, "step": 8}, value=2.0))
  run.append_result(Result(**key, value=3.0))
  results = run.results()
  assert [(r.step, r.value) for r in results] == [(7, 3.0), (8, 2.0)]


def test_a_result_is_read_back_with_its_details():
  result = Result(
    "nats_per_token", -2.5, "test", 7, estimator="iwae", samples=100,
    length="paid", data="fbe8", details={"sentences": 3, "sweep": [-2.5, -3.0]},
  )  # fmt: skip
  row = json.loads(json.dumps(result.as_row()))
  assert Result.from_row(row) == result
  assert "method" not in row and row["sweep"] == [-2.5, -3.0]
  assert result.get("samples") == 100 and result.get("sentences") == 3
  assert result.get("method") is result.get("wings") is None


def test_results_of_an_older_version_are_read(tmp_path):
  run = RunDirectory(tmp_path)
  row = {"metric": "nats_per_token", "value": -4.8, "estimator": "iwae"}
  files.append_json_line(run.results_path, {**row, "K": 100, "seed": 0})
  row = {**row, "estimator": "exact", "K": None, "seed": None}
  files.append_json_line(run.results_path, row)
  sampled, exact = run.results()
  assert sampled.samples == 100 and sampled.details == {"seed": 0}
  assert exact.samples is None and exact.value == -4.8


# Figures of each sentence, and of each step.


def _columns() -> dict[str, np.ndarray]:
  """Likelihood columns that this version writes, of three sentences."""
  rng = np.random.default_rng(0)
  log_pl, given = rng.normal(-2, 1, 3), rng.normal(-30, 5, 3)
  return {
    "log_likelihood": given + log_pl,
    "given_length": given,
    "elbo": given + log_pl - 1,
    "annealed": given + log_pl + 1,
    "sweep": (given + log_pl)[:, None] - np.arange(4.0)[None],
    "reconstruction": given + 20,
    "lee2020": given + 10,
    "kl": rng.normal(20, 1, 3),
    "log_pl": log_pl,
    "num_tokens": np.float64([4, 5, 6]),
    "escaped": np.float32([0, 1, 0]),
    "samples": np.int64(8),
  }


def test_figures_of_each_sentence_are_read_back(tmp_path):
  run, columns = RunDirectory(tmp_path), _columns()
  assert run.likelihood("test", 7) == {}
  run.write_likelihood("test", 7, **columns)
  found = run.likelihood("test", 7)
  assert found.keys() == columns.keys()
  for name, values in columns.items():
    np.testing.assert_array_equal(found[name], values)
  assert run.likelihood("test", 8) == run.likelihood("dev", 7) == {}


@pytest.mark.parametrize("annealed", [True, False])
def test_the_length_is_paid_in_figures_of_an_older_version(tmp_path, annealed):
  """They had log p(y|x, T) where this has log p(y|x)."""
  run, columns = RunDirectory(tmp_path), _columns()
  if not annealed:
    del columns["annealed"]
  old = {k: v for k, v in columns.items() if k != "given_length"}
  for name in {"log_likelihood", "elbo", "annealed"} & set(old):
    old[name] = old[name] - old["log_pl"]
  old["sweep"] = old["sweep"] - old["log_pl"][:, None]
  run.write_likelihood("test", 7, **old)
  found = run.likelihood("test", 7)
  assert found.keys() == columns.keys()
  for name, values in columns.items():
    np.testing.assert_allclose(found[name], values, rtol=1e-12)


def test_figures_of_before_there_was_an_escape_have_none(tmp_path):
  run, columns = RunDirectory(tmp_path), _columns()
  del columns["escaped"]
  run.write_likelihood("test", 7, **columns)
  np.testing.assert_array_equal(run.likelihood("test", 7)["escaped"], [0] * 3)


def test_metrics_of_both_versions_have_both_bounds(tmp_path):
  run = RunDirectory(tmp_path)
  assert run.metrics() == []
  old = {"step": 1, "elbo": -5.0, "log_pl": -0.5, "loss": 7.0}
  dev = {"step": 2, "dev_elbo": -4.0, "dev_log_pl": -0.25, "dev_bleu": 1.0}
  skipped = {"step": 3, "elbo": None, "log_pl": None}
  new = {"step": 4, "elbo": -3.5, "elbo_given_length": -3.0, "log_pl": -0.5}
  files.write_json_lines(run.metrics_path, [old, dev, skipped, new])
  assert run.metrics() == [
    {**old, "elbo": -5.5, "elbo_given_length": -5.0},
    {**dev, "dev_elbo": -4.25, "dev_elbo_given_length": -4.0},
    skipped,
    new,
  ]
  # What is there is not rewritten by reading.
  assert files.read_json_lines(run.metrics_path)[0] == old


def test_small_files_are_read_without_jax():
  program = (
    "import sys; from latentnmt import config, files, runs, zoo;"
    " assert 'jax' not in sys.modules"
  )
  subprocess.run([sys.executable, "-c", program], check=True)
