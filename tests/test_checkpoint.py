"""Checkpoints: kept, damaged, continued from and loaded."""

import os

import chex
import jax
import jax.numpy as jnp
import pytest
import workers

from latentnmt import checkpoint
from latentnmt.checkpoint import Checkpoints, Progress
from latentnmt.errors import InputError
from latentnmt.runs import RunDirectory
from latentnmt.train import TrainState


class _Tokenizer:
  """What `create` needs of one."""

  def save(self, path):
    path.write_text("pieces")


def _run(path) -> RunDirectory:
  run = RunDirectory(path)
  run.create(workers.config(), _Tokenizer())
  return run


def _state(step, value) -> TrainState:
  return TrainState(
    jnp.int32(step), {"w": jnp.full(3, value)}, {"m": jnp.full(3, -value)}
  )


def _save(checkpoints, scores):
  """Saves a state of value step + 0.5 at each step of {step: bleu or None}."""
  progress = Progress()
  for step, bleu in scores.items():
    progress = progress if bleu is None else progress.after(step, bleu)
    checkpoints.save(_state(step, step + 0.5), progress, bleu)


def _break(run, step, item=""):
  """Cuts every file of a checkpoint short, as a power cut does."""
  checkpoints = RunDirectory(run).checkpoints_path
  for folder, _, names in os.walk(checkpoints / str(step) / item):
    for name in names:
      with open(os.path.join(folder, name), "r+b") as file:
        file.truncate(1)


def test_latest_best_and_every_nth_are_kept(tmp_path):
  with Checkpoints(tmp_path, keep_every=4) as checkpoints:
    _save(checkpoints, {2: 1.0, 4: 2.0, 6: 9.0, 8: 3.0, 10: 3.0, 12: 4.0})
  with Checkpoints(tmp_path, keep_every=4) as checkpoints:
    assert checkpoints.steps() == [4, 6, 8, 10, 12]
    assert checkpoints.best() == 6 and checkpoints.latest() == 12
    state, progress = checkpoints.restore(_state(0, 0.0))
  assert progress == Progress(best=9.0, best_step=6, evaluations_since=3)
  chex.assert_trees_all_equal(state, _state(12, 12.5))


def test_one_without_a_dev_bleu_is_there_while_it_is_the_latest(tmp_path):
  run = _run(tmp_path / "run")
  with Checkpoints(run) as checkpoints:
    _save(checkpoints, {1: None})
    assert checkpoints.steps() == [1] and checkpoints.best() is None
  with pytest.raises(InputError, match="no checkpoint yet"):
    checkpoint.find_step(run)
  with Checkpoints(run) as checkpoints:
    assert checkpoints.restore(_state(0, 0.0))[0].step == 1
    _save(checkpoints, {2: None})
    assert checkpoints.steps() == [2]
    _save(checkpoints, {3: 7.0, 4: 1.0, 5: 2.0, 6: None, 7: None})
  assert checkpoint.steps(run) == [3, 4, 5] and checkpoint.find_step(run) == 3
  with Checkpoints(run) as checkpoints:
    assert checkpoints.steps() == [3, 4, 5, 7] and checkpoints.best() == 3
    state, progress = checkpoints.restore(_state(0, 0.0))
    assert state.step == 7 and progress == Progress(7.0, 3, 2)
    _save(checkpoints, {8: 0.0})
    assert checkpoints.steps() == [3, 5, 8]
  assert sorted(os.listdir(run.checkpoints_path)) == ["3", "5", "8"]


def test_without_checkpoints_the_initial_state_comes_back(tmp_path):
  with Checkpoints(tmp_path) as checkpoints:
    state, progress = checkpoints.restore(_state(0, 0.0))
  assert state.step == 0 and progress == Progress()


def test_what_is_saved_does_not_change_when_its_buffers_are_reused(tmp_path):
  update = jax.jit(lambda x: x + 1, donate_argnums=0)
  state = TrainState(jnp.int32(1), {"w": jnp.zeros(1 << 20)}, ())
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(state, Progress(), 0.0)
    w = state.params["w"]
    for _ in range(20):
      w = update(w)
    w.block_until_ready()
  with Checkpoints(tmp_path) as checkpoints:
    saved = checkpoints.restore(TrainState(jnp.int32(0), {"w": w}, ()))[0]
  assert float(jnp.max(jnp.abs(saved.params["w"]))) == 0


@pytest.mark.parametrize("item", ["params", "optimizer", "progress", ""])
def test_a_damaged_checkpoint_is_passed_over(tmp_path, caplog, item):
  with Checkpoints(tmp_path) as checkpoints:
    _save(checkpoints, {1: 1.0, 2: 2.0})
  _break(tmp_path, 2, item)
  with Checkpoints(tmp_path) as checkpoints:
    state, progress = checkpoints.restore(_state(0, 0.0))
    assert state.step == 1 and progress.best == 1.0
    assert "cannot be read" in caplog.text
    assert checkpoints.steps() == [1]
    _save(checkpoints, {2: 2.0})
    assert checkpoints.steps() == [1, 2]


def test_where_none_can_be_read_nothing_is_removed(tmp_path):
  with Checkpoints(tmp_path) as checkpoints:
    _save(checkpoints, {1: 1.0, 2: 2.0})
  _break(tmp_path, 1, "params")
  _break(tmp_path, 2, "params")
  with Checkpoints(tmp_path) as checkpoints:
    with pytest.raises(InputError, match="No checkpoint .* can be read"):
      checkpoints.restore(_state(0, 0.0))
    assert checkpoints.steps() == [1, 2]
  _break(tmp_path, 1)
  _break(tmp_path, 2)
  with pytest.raises(InputError, match="cannot be read"):
    Checkpoints(tmp_path)
  assert sorted(os.listdir(tmp_path / "checkpoints")) == ["1", "2"]


def test_progress_counts_evaluations_without_a_strictly_better_one():
  progress = Progress().after(10, 0.0)
  assert progress == Progress(0.0, 10, 0)
  progress = progress.after(20, 0.0).after(30, 0.0)
  assert progress == Progress(0.0, 30, 2)
  assert progress.after(40, -1.0) == Progress(0.0, 30, 3)
  assert progress.after(40, 0.1) == Progress(0.1, 40, 0)


def test_of_equal_evaluations_the_last_is_the_best_everywhere(tmp_path):
  run = _run(tmp_path / "run")
  with Checkpoints(run) as checkpoints:
    _save(checkpoints, {1: 5.0, 2: 7.0, 3: 7.0, 4: 1.0, 5: 1.0, 6: 1.0})
  with Checkpoints(run) as checkpoints:
    assert checkpoints.steps() == [3, 5, 6] and checkpoints.best() == 3
    _, progress = checkpoints.restore(_state(0, 0.0))
  assert progress == Progress(7.0, 3, 4)
  assert checkpoint.find_step(run) == 3
  assert checkpoint.steps(run) == [3, 5, 6]


def test_a_checkpoint_that_is_being_removed_is_not_seen(tmp_path):
  run = _run(tmp_path / "run")
  with Checkpoints(run) as checkpoints:
    _save(checkpoints, {1: 9.0, 2: 2.0})
  (run.checkpoints_path / "1" / "metrics" / "metrics").unlink()
  assert checkpoint.find_step(run) == 2 and checkpoint.steps(run) == [2]
  with pytest.raises(InputError, match="no checkpoint of step 1; it has 2"):
    checkpoint.find_step(run, 1)
  assert (run.checkpoints_path / "1").is_dir()  # reading tidies nothing up


def test_what_is_missing_is_said(tmp_path):
  with pytest.raises(InputError, match="not a run directory"):
    checkpoint.load(tmp_path / "none")
  (tmp_path / "file").write_text("")
  with pytest.raises(InputError, match="not a run directory"):
    checkpoint.load(tmp_path / "file")
  run = _run(tmp_path / "run")
  with pytest.raises(InputError, match="no checkpoint yet; train it first"):
    checkpoint.load(run)
  assert checkpoint.steps(run) == []
  with pytest.raises(InputError, match="not a run directory"):
    checkpoint.steps(tmp_path)
  with Checkpoints(run) as checkpoints:
    _save(checkpoints, {1: 2.0, 2: 1.0})
  with pytest.raises(InputError, match="no checkpoint of step 7; it has 1, 2"):
    checkpoint.load(run, 7)
  assert checkpoint.find_step(run) == 1 and checkpoint.find_step(run, 2) == 2
  _break(run, 1, "params")
  with pytest.raises(InputError, match="1 cannot be read.* by latentnmt 0"):
    checkpoint.load(str(run))
