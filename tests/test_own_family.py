"""A family of one's own, in a folder outside the package, goes everywhere."""

import csv
import os
from pathlib import Path
import subprocess
import sys

import jax
import pytest

import latentnmt as ln

FOLDER = Path(__file__).parent / "own_family"
TARGET = "bag_of_words:BagOfWords"


@pytest.fixture
def importable(monkeypatch):
  monkeypatch.syspath_prepend(str(FOLDER))


def config(**sizes):
  sizes = ln.TransformerConfig(8, width=16, heads=2, max_length=32, **sizes)
  return ln.CustomModelConfig(TARGET, sizes, fields=(("hidden", 8),))


def test_a_model_of_ones_own_keeps_the_contract(importable):
  model = ln.build(config())
  assert type(model).__name__ == "BagOfWords" and model.hidden == 8
  ln.testing.check_model(model, jax.random.key(0))


def test_it_takes_its_own_methods_alone(importable):
  model = ln.build(config())
  assert ln.parse_method("pointwise", model.methods) == model.methods[0]()
  with pytest.raises(ln.InputError, match="BagOfWords .* takes pointwise"):
    ln.translate(model, {}, jax.numpy.ones((1, 2), int), ln.Beam(4))
  with pytest.raises(ln.InputError, match="for example pointwise"):
    ln.parse_method("beam4", model.methods)


@pytest.mark.slow
def test_a_study_of_it_runs_from_outside_the_package(tmp_path):
  """Preprocess, train, translate, score, likelihood, benchmark and analyze."""
  command = [sys.executable, "-m", "latentnmt.experiments.study"]
  command += ["--recipe=bag_of_words:RECIPE", "--study=bag", "--out=runs"]
  environment = os.environ | {"PYTHONPATH": str(FOLDER)}
  subprocess.run(command, cwd=tmp_path, env=environment, check=True)
  study = tmp_path / "runs" / "bag"
  with open(study / "report.csv", newline="") as file:
    (row,) = csv.DictReader(file)
  assert row["family"] == "bag of words"
  assert row["method"] == "pointwise" and row["estimator"] == "exact"
  assert float(row["log_likelihood"]) < 0 and row["bleu"]
  # The truth is known, and no likelihood of many sentences exceeds it.
  report = (study / "report.md").read_text()
  assert "bag of words" in report or "bag" in report
  html = (study / "report.html").read_text()
  assert "bag" in html and "<svg" in html or "<img" in html
  again = subprocess.run(
    command, cwd=tmp_path, env=environment, capture_output=True, text=True
  )
  assert again.returncode == 0 and "are finished" in again.stderr
