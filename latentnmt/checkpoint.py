"""Checkpoints of a run: saving, restoring, and loading to decode."""

import dataclasses
import json
import logging
import math
import os
import pathlib
import shutil
import time
from typing import Any

import flax.linen as nn
import jax
import orbax.checkpoint as ocp

from latentnmt.errors import InputError
from latentnmt.models import abstract_params, build
from latentnmt.runs import RunDirectory
from latentnmt.text import Tokenizer
from latentnmt.types import Params

_policies = ocp.checkpoint_managers


@dataclasses.dataclass(frozen=True)
class Progress:
  """State of early stopping.

  Attributes:
    best: best score on dev so far, BLEU or nats; minus infinity before the
      first evaluation.
    best_step: where it was reached.
    evaluations_since: dev evaluations after that.
  """

  best: float = -math.inf
  best_step: int = 0
  evaluations_since: int = 0

  def after(self, step: int, score: float) -> "Progress":
    """Returns the state after one more evaluation.

    Of equal ones the last is the best, but only a better one ends the wait.
    """
    if score > self.best:
      return Progress(score, step, 0)
    best_step = step if score == self.best else self.best_step
    return Progress(self.best, best_step, self.evaluations_since + 1)


class Checkpoints:
  """A run's checkpoints: the latest two, the best, every `keep_every` steps.

  Those have a score on dev, BLEU or nats. One without, to continue from and for
  nothing else, is there for as long as it is the latest of all.

  Parameters and optimiser state are separate items, so that decoding reads
  the parameters only. Saving is asynchronous; use as a context manager, or
  `close` to wait for the last one.

  Args:
    run: the run directory.
    keep_every: keep a checkpoint for ever at multiples of this; 0 for none.

  Raises:
    InputError: for checkpoints whose metrics cannot be read, if there are no
      others; else those are removed with a warning.
  """

  def __init__(self, run: str | os.PathLike, keep_every: int = 0):
    self._run, self._saved = RunDirectory(run), time.monotonic()
    folder = self._run.checkpoints_path
    _remove_damaged(folder)
    self._manager = ocp.CheckpointManager(
      folder,
      item_names=("params", "optimizer", "progress"),
      options=ocp.CheckpointManagerOptions(
        preservation_policy=_Preserved(keep_every),
        # Without it Orbax does not write the metrics to disk.
        best_fn=_score,
        save_decision_policy=_policies.FixedIntervalPolicy(1),
        cleanup_tmp_directories=True,
      ),
    )

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, *exception) -> None:
    self.close()

  def steps(self) -> list[int]:
    """Returns the steps that have a checkpoint, in order."""
    return sorted(self._manager.all_steps())

  def latest(self) -> int | None:
    """Returns the last step that was saved, None before the first."""
    return self._manager.latest_step()

  def best(self) -> int | None:
    """Returns the last step of the highest score, None before the first."""
    step = self._manager.best_step()
    return step if step is not None and self._manager.metrics(step) else None

  def age(self) -> float:
    """Returns seconds since a state was saved last, or since this was made."""
    return time.monotonic() - self._saved

  def save(
    self, state: Any, progress: Progress, score: float | None = None
  ) -> None:
    """Saves a state (with `step`, `params` and `opt_state`) at its step.

    Without a score on dev it is never the best nor what `load` finds, and the
    next one takes its place.
    """
    self._manager.save(
      int(state.step),
      args=ocp.args.Composite(
        params=ocp.args.StandardSave(state.params),
        optimizer=ocp.args.StandardSave(
          {"step": state.step, "opt_state": state.opt_state}
        ),
        progress=ocp.args.JsonSave(dataclasses.asdict(progress)),
      ),
      metrics={} if score is None else {"score": float(score)},
    )
    self._saved = time.monotonic()

  def restore(self, state: Any) -> tuple[Any, Progress]:
    """Returns the latest state that can be read, else the one given.

    A newer checkpoint that cannot be read (a disk fault, a full disk) is
    skipped with a warning and removed, since training comes by that step
    again.

    Args:
      state: as from initialisation; its shapes and shardings are restored.

    Raises:
      InputError: if there are checkpoints and none can be read.
    """
    unreadable = {}
    for step in reversed(self.steps()):
      try:
        restored = self._restore(step, state)
      except Exception as error:  # Orbax has no class for a damaged file.
        unreadable[step] = error
        continue
      for broken in unreadable:
        logging.warning(
          "Checkpoint %d of %s cannot be read; continuing from %d.",
          broken,
          self._run,
          step,
        )
        self._manager.delete(broken)
      return restored
    if unreadable:
      step, error = max(unreadable.items())
      raise InputError(
        f"No checkpoint of {self._run} can be read (step {step}:"
        f" {_reason(error)}); delete its folder 'checkpoints' to start again."
      ) from error
    return state, Progress()

  def _restore(self, step: int, state: Any) -> tuple[Any, Progress]:
    optimizer = {"step": state.step, "opt_state": state.opt_state}
    items = self._manager.restore(
      step,
      args=ocp.args.Composite(
        params=ocp.args.StandardRestore(_abstract(state.params)),
        optimizer=ocp.args.StandardRestore(_abstract(optimizer)),
        progress=ocp.args.JsonRestore(),
      ),
    )
    state = state.replace(params=items["params"], **items["optimizer"])
    return state, Progress(**items["progress"])

  def close(self) -> None:
    """Waits for what is being saved."""
    self._manager.wait_until_finished()
    self._manager.close()


@dataclasses.dataclass(frozen=True)
class _Preserved:
  """Policy of what Orbax preserves: see `Checkpoints`."""

  keep_every: int

  def should_preserve(self, checkpoints, *, context) -> list[bool]:
    """Says of each checkpoint, in order of steps, whether it stays."""
    del context
    judged = [info for info in checkpoints if info.metrics]
    # Two judged ones: `restore` falls back on the one before.
    kept = {info.step for info in [*judged[-2:], *checkpoints[-1:]]}
    if judged:
      kept.add(max(judged, key=lambda i: (_score(i.metrics), i.step)).step)
    if self.keep_every:
      kept |= {i.step for i in judged if i.step % self.keep_every == 0}
    return [info.step in kept for info in checkpoints]


def _metrics(folder: pathlib.Path) -> dict[int, dict[str, float] | None]:
  """Returns metrics by step; None if unreadable or just being removed."""
  # Orbax writes into folders of other names and renames them in the end.
  paths = [path for path in folder.glob("*") if path.name.isdecimal()]
  return {int(path.name): _metrics_of(path) for path in paths}


def _metrics_of(step: pathlib.Path) -> dict[str, float] | None:
  try:
    metrics = json.loads((step / "metrics" / "metrics").read_text())
  except (OSError, ValueError):
    return None
  return metrics if isinstance(metrics, dict) else None


def _remove_damaged(folder: pathlib.Path) -> None:
  """Removes what would keep Orbax from opening the folder at all."""
  metrics = _metrics(folder)
  damaged = [folder / str(s) for s, found in metrics.items() if found is None]
  if damaged and len(damaged) == len(metrics):
    raise InputError(
      f"The checkpoint {damaged[0]} cannot be read; delete it, or all of"
      " its folder to start again."
    )
  for path in damaged:
    logging.warning("Checkpoint %s cannot be read; removing it.", path)
    shutil.rmtree(path, ignore_errors=True)  # or another process does it


def _score(metrics: dict[str, float]) -> float:
  # By another name in earlier versions.
  return metrics.get("score", metrics.get("bleu", -math.inf))


def _abstract(tree: Any) -> Any:
  return jax.tree.map(ocp.utils.to_shape_dtype_struct, tree)


def load(
  run: str | os.PathLike, step: int | None = None
) -> tuple[nn.Module, Params, Tokenizer]:
  """Loads model, parameters and tokenizer of a run, on one local device.

  The run may still be training: nothing there is touched.

  Args:
    run: the run directory.
    step: of the checkpoint; None for the best on dev, the last of equals.

  Raises:
    InputError: if `run` is no run directory or has no such checkpoint (those
      it has are named), or one that cannot be read.
  """
  run = RunDirectory(run)
  model = build(run.config().model)
  path = run.checkpoints_path / str(find_step(run, step))
  try:
    with ocp.StandardCheckpointer() as checkpointer:
      params = checkpointer.restore(path / "params", _abstract_params(model))
  except Exception as error:  # Orbax has no class for a damaged file.
    raise InputError(
      f"The checkpoint {path} cannot be read, or was removed meanwhile"
      f" ({_reason(error)}); load again or another step. {run.made_by()}"
    ) from error
  return model, params, run.tokenizer()


def _reason(error: Exception) -> str:
  return str(error).strip().partition("\n")[0]


def find_step(run: str | os.PathLike, step: int | None = None) -> int:
  """Returns the step that `load` reads: the one given, else the best.

  Raises:
    InputError: as `load`.
  """
  scores = _judged(run)
  if not scores:
    raise InputError(f"{run} has no checkpoint yet; train it first.")
  if step is not None and step not in scores:
    raise InputError(
      f"{run} has no checkpoint of step {step}; it has"
      f" {', '.join(map(str, sorted(scores)))}."
    )
  if step is None:
    return max(scores, key=lambda s: (scores[s], s))
  return step


def steps(run: str | os.PathLike) -> list[int]:
  """Returns the steps that `load` can read: those with a score on dev.

  The run may still be training: nothing there is touched, and what is listed
  now may be removed before it is loaded.

  Raises:
    InputError: if `run` is no run directory.
  """
  return sorted(_judged(run))


def _judged(run: str | os.PathLike) -> dict[int, float]:
  """Returns the score on dev of each checkpoint that has one."""
  run = RunDirectory(run)
  run.config()
  found = _metrics(run.checkpoints_path)
  return {step: _score(metrics) for step, metrics in found.items() if metrics}


def _abstract_params(model: nn.Module) -> Params:
  """Returns shapes of parameters, to be put on one local device."""
  one = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  return jax.tree.map(
    lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=one),
    abstract_params(model),
  )
