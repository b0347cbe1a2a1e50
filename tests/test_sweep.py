"""The sweep's own part: training is replaced."""

import json

import pytest

from latentnmt import data
from latentnmt.errors import InputError
from latentnmt.experiments import sweep, train

GRID = ["train.warmup=10,20", "model.transformer.dropout=0.1,0.3"]
BLEU = {(10, 0.1): 1.0, (10, 0.3): 3.0, (20, 0.1): None, (20, 0.3): 3.0}


def test_points_are_all_combinations():
  assert sweep.grid_points(GRID) == [
    ("train.warmup=10", "model.transformer.dropout=0.1"),
    ("train.warmup=10", "model.transformer.dropout=0.3"),
    ("train.warmup=20", "model.transformer.dropout=0.1"),
    ("train.warmup=20", "model.transformer.dropout=0.3"),
  ]
  names = map(sweep.run_name, sweep.grid_points(GRID[::-1]))
  assert next(names) == "dropout0.1-warmup10"


@pytest.mark.parametrize("text", ["train.warmup", "=3", "train.warmup=1,,2"])
def test_a_grid_that_is_none_is_refused(text):
  with pytest.raises(InputError, match="not of the form field=value,value"):
    sweep.grid_points([text])


class Trainings:
  """Takes the place of `fit`: writes what a training would, or diverges."""

  def __init__(self):
    self.ran, self.fail = [], None

  def __call__(self, config, prepared, run, **_):
    point = config.train.warmup, config.model.transformer.dropout
    run.create(config, prepared.tokenizer)
    if run.finished():
      return
    if point == self.fail:
      raise KeyboardInterrupt
    self.ran.append(point)
    if BLEU[point] is None:
      raise FloatingPointError("The gradient of step 3 is not finite")
    run.checkpoints_path.mkdir()
    steps = config.train.steps
    run.mark_finished(
      "steps", step=steps, best_step=steps // 2, best_score=BLEU[point]
    )


@pytest.fixture
def trainings(monkeypatch, tmp_path):
  pairs = ["ja nein"] * 3, ["yes no"] * 3
  corpus = data.Corpus(dict.fromkeys(data.SPLITS, pairs), ("de", "en"), "few")
  prepared = data.prepare(corpus, tmp_path / "data", vocab_size=20)
  fake = Trainings()
  flags = {
    "DATA": str(prepared.path),
    "PRESET": "transformer_tiny",
    "MODEL": None,
    "SET": ["train.steps=8", "train.eval_every=4"],
    "GRID": GRID,
    "WARM_START": None,
    "OUT": str(tmp_path / "sweep" / "tiny.json"),
  }
  for name, value in flags.items():
    holder = type("Value", (), {"value": value})
    monkeypatch.setattr(sweep, f"_{name}", holder)
  monkeypatch.setattr(sweep, "fit", fake)
  return fake


def test_the_best_is_chosen_and_trainings_take_it(trainings, tmp_path, capsys):
  sweep.main([])
  assert trainings.ran == list(BLEU)
  path = tmp_path / "sweep" / "tiny.json"
  found = json.loads(path.read_text())
  assert [row["score"] for row in found["results"]] == list(BLEU.values())
  assert found["results"][0]["step"] == 4
  # Of two equal ones the first.
  chosen = ["train.warmup=10", "model.transformer.dropout=0.3"]
  assert found["chosen"] == chosen == train.chosen_settings(str(path))
  table = capsys.readouterr().out.splitlines()
  assert table[2] == (
    "| train.warmup | model.transformer.dropout | dev BLEU | step |"
  )
  assert "| **10** | **0.3** | **3.00** | **4** |" in table
  assert "| 20 | 0.1 | diverged |  |" in table
  assert not list((tmp_path / "sweep").glob("tiny/*/checkpoints"))


def test_a_sweep_that_was_cut_off_continues(trainings, tmp_path):
  trainings.fail = (20, 0.1)
  with pytest.raises(KeyboardInterrupt):
    sweep.main([])
  assert not (tmp_path / "sweep" / "tiny.json").exists()
  trainings.fail, trainings.ran = None, []
  sweep.main([])
  assert trainings.ran == [(20, 0.1), (20, 0.3)]


def test_all_diverged_is_an_error():
  with pytest.raises(InputError, match="Every training"):
    sweep.chosen([{"settings": ["a=1"], "score": None, "step": None}])


@pytest.mark.parametrize(
  "text, message", [(None, "run that first"), ("{", "damaged"), ("[]", "sweep")]
)
def test_settings_are_read_from_a_sweep_only(text, message, tmp_path):
  path = tmp_path / "chosen.json"
  if text:
    path.write_text(text)
  with pytest.raises(InputError, match=message):
    train.chosen_settings(str(path))
  assert train.chosen_settings(None) == []
