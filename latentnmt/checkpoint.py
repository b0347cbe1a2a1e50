"""The run directory: what a training run leaves behind, and reading it back.

  config.json      the ExperimentConfig
  vocab.model      the tokenizer
  checkpoints/     latest two, best by dev BLEU, every `keep_every` steps
  metrics.jsonl    one line per log point and dev evaluation
  finished.json    written last: why and where training ended
  hypotheses/      <split>.<method>.txt, translations
  results.jsonl    one line per evaluation

Files are the interface between the binaries; every file appears whole
(written beside its place, then renamed) or grows by whole lines.
"""

import dataclasses
import json
import logging
import os
import pathlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from latentnmt import config as config_lib
from latentnmt.config import ExperimentConfig
from latentnmt.models import build
from latentnmt.text import Tokenizer
from latentnmt.types import Batch, InputError, Params

_policies = ocp.checkpoint_managers
_RESULT_KEY = ("metric", "split", "method", "estimator", "step", "batch_size")


def create(
  run: str | os.PathLike, config: ExperimentConfig, tokenizer: Tokenizer
) -> pathlib.Path:
  """Makes a run directory, or checks that an existing one is this run's.

  Raises:
    InputError: if `run` is the directory of a run with another configuration
      (the fields that differ are named), or is some other directory or file
      that is not empty. Nothing is changed then.
  """
  run = pathlib.Path(run)
  if (run / "config.json").is_file():
    differing = config_lib.differences(read_config(run), config)
    if differing:
      raise InputError(
        f"{run} was made with another configuration ("
        + "; ".join(differing)
        + "); use another run directory or the old settings."
      )
    return run
  if run.exists() and not (run.is_dir() and _is_empty(run)):
    raise InputError(
      f"{run} exists but is no run directory (it has no config.json); use"
      " another one."
    )
  run.mkdir(parents=True, exist_ok=True)
  tokenizer.save(run / "vocab.model")
  # The configuration last: a directory that has one is complete.
  tree = config_lib.to_dict(config)
  _write(run / "config.json", json.dumps(tree, indent=2) + "\n")
  return run


def _is_empty(run: pathlib.Path) -> bool:
  """Nothing there but what a `create` cut short leaves behind."""
  return all(path.name.startswith("vocab.model") for path in run.iterdir())


def read_config(run: str | os.PathLike) -> ExperimentConfig:
  """The configuration a run was made with.

  Raises:
    InputError: if `run` is no run directory or its config.json is damaged.
  """
  path = pathlib.Path(run) / "config.json"
  try:
    tree = json.loads(path.read_text(encoding="utf-8"))
  except FileNotFoundError:
    raise InputError(
      f"{run} is not a run directory (no config.json in it); the train binary"
      " makes one."
    ) from None
  except ValueError as error:
    raise InputError(f"{path} is damaged: {error}.") from None
  return config_lib.from_dict(tree)


@dataclasses.dataclass(frozen=True)
class Progress:
  """What early stopping has to remember.

  Attributes:
    best: best dev BLEU so far; -1 before the first evaluation.
    best_step: where it was reached.
    evaluations_since: dev evaluations after that.
  """

  best: float = -1.0
  best_step: int = 0
  evaluations_since: int = 0

  def after(self, step: int, bleu: float) -> "Progress":
    """With one more evaluation; only a strictly better one counts."""
    if bleu > self.best:
      return Progress(bleu, step, 0)
    return dataclasses.replace(
      self, evaluations_since=self.evaluations_since + 1
    )


class Checkpoints:
  """A run's checkpoints: the latest two, the best, every `keep_every` steps.

  Parameters and optimiser state are separate items, so that decoding reads
  the parameters only. Saving is asynchronous; use as a context manager, or
  `close` to wait for the last one.

  Args:
    run: the run directory.
    keep_every: keep a checkpoint for ever at multiples of this; 0 for none.
    read_only: neither make the directory nor tidy it up.
  """

  def __init__(
    self, run: str | os.PathLike, keep_every: int = 0, read_only: bool = False
  ):
    self._run = pathlib.Path(run)
    policies = [
      _policies.LatestN(2),
      _policies.BestN(get_metric_fn=_bleu, n=1),
    ]
    if keep_every:
      policies.append(_policies.EveryNSteps(keep_every))
    self._manager = ocp.CheckpointManager(
      (self._run / "checkpoints").resolve(),
      item_names=("params", "optimizer", "progress"),
      options=ocp.CheckpointManagerOptions(
        preservation_policy=_policies.AnyPreservationPolicy(policies),
        # best_fn too: without it Orbax does not write the metrics to disk.
        best_fn=_bleu,
        save_decision_policy=_policies.FixedIntervalPolicy(1),
        cleanup_tmp_directories=not read_only,
        create=not read_only,
        read_only=read_only,
      ),
    )

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, *exception) -> None:
    self.close()

  def steps(self) -> list[int]:
    """Steps that have a checkpoint, in order."""
    return sorted(self._manager.all_steps())

  def latest(self) -> int | None:
    """The last step that was saved, None before the first."""
    return self._manager.latest_step()

  def best(self) -> int | None:
    """The step with the highest dev BLEU, None before the first."""
    return self._manager.best_step()

  def save(self, state: Any, progress: Progress, bleu: float) -> None:
    """Saves a state (with `step`, `params` and `opt_state`) at its step."""
    self._manager.save(
      int(state.step),
      args=ocp.args.Composite(
        params=ocp.args.StandardSave(state.params),
        optimizer=ocp.args.StandardSave(
          {"step": state.step, "opt_state": state.opt_state}
        ),
        progress=ocp.args.JsonSave(dataclasses.asdict(progress)),
      ),
      metrics={"bleu": float(bleu)},
    )

  def restore(self, state: Any) -> tuple[Any, Progress]:
    """The latest state that can be read, else the one given.

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
      reason = str(error).strip().partition("\n")[0]
      raise InputError(
        f"No checkpoint of {self._run} can be read (step {step}: {reason});"
        " delete its folder 'checkpoints' to start again."
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

  def restore_params(self, step: int, params: Params) -> Params:
    """Parameters at a step, with the shapes and shardings of `params`."""
    restore = ocp.args.StandardRestore(params)
    args = ocp.args.Composite(params=restore)
    return self._manager.restore(step, args=args)["params"]

  def close(self) -> None:
    """Waits for what is being saved."""
    self._manager.wait_until_finished()
    self._manager.close()


def _bleu(metrics: dict[str, float]) -> float:
  return metrics["bleu"]


def _abstract(tree: Any) -> Any:
  return jax.tree.map(ocp.utils.to_shape_dtype_struct, tree)


def load(
  run: str | os.PathLike, step: int | None = None
) -> tuple[nn.Module, Params, Tokenizer]:
  """Model, parameters and tokenizer of a run, on the first local device.

  Args:
    run: the run directory.
    step: of the checkpoint; None for the best by dev BLEU.

  Raises:
    InputError: if `run` is no run directory or has no such checkpoint (those
      it has are named).
  """
  config = read_config(run)
  step = find_step(run, step)
  model = build(config.model)
  with Checkpoints(run, read_only=True) as checkpoints:
    params = checkpoints.restore_params(step, _abstract_params(model))
  return model, params, Tokenizer.load(pathlib.Path(run) / "vocab.model")


def find_step(run: str | os.PathLike, step: int | None = None) -> int:
  """The step that `load` reads: the one given, else the best by dev BLEU.

  Raises:
    InputError: as `load`.
  """
  read_config(run)
  steps, best = [], None
  if (pathlib.Path(run) / "checkpoints").is_dir():
    with Checkpoints(run, read_only=True) as checkpoints:
      steps, best = checkpoints.steps(), checkpoints.best()
  if not steps:
    raise InputError(f"{run} has no checkpoint yet; train it first.")
  if step is not None and step not in steps:
    raise InputError(
      f"{run} has no checkpoint of step {step}; it has"
      f" {', '.join(map(str, steps))}."
    )
  return best if step is None else step


def _abstract_params(model: nn.Module) -> Params:
  """Shapes of a model's parameters, to be put on one local device."""
  one = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  key = jax.random.key(0)
  shapes = jax.eval_shape(model.init, key, example_batch(), key)["params"]
  return jax.tree.map(
    lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=one), shapes
  )


def example_batch() -> Batch:
  """The smallest batch a model can be initialised with: EOS to EOS."""
  return Batch(x=jnp.ones((1, 1), jnp.int32), y=jnp.ones((1, 1), jnp.int32))


def finished(run: str | os.PathLike) -> dict[str, Any] | None:
  """How training ended: reason, step, best_step, best_bleu; None if it has not.

  Reasons are "steps" (all were taken) and "patience" (early stopping).
  """
  path = pathlib.Path(run) / "finished.json"
  return json.loads(path.read_text("utf-8")) if path.is_file() else None


def mark_finished(
  run: str | os.PathLike, reason: str, step: int, progress: Progress
) -> None:
  """Writes what `finished` reads."""
  end = {
    "reason": reason,
    "step": step,
    "best_step": progress.best_step,
    "best_bleu": progress.best,
  }
  _write(pathlib.Path(run) / "finished.json", json.dumps(end) + "\n")


def hypotheses_path(
  run: str | os.PathLike, split: str, method: Any
) -> pathlib.Path:
  """Where the translations of a split by a decoding method are."""
  return pathlib.Path(run) / "hypotheses" / f"{split}.{method}.txt"


def write_hypotheses(
  run: str | os.PathLike, split: str, method: Any, lines: list[str]
) -> pathlib.Path:
  """Writes one translation a line and returns the file's path."""
  path = hypotheses_path(run, split, method)
  path.parent.mkdir(parents=True, exist_ok=True)
  # A line break inside a translation would shift every later line.
  text = "".join(line.replace("\n", " ") + "\n" for line in lines)
  return _write(path, text)


def append_result(run: str | os.PathLike, row: dict[str, Any]) -> None:
  """Adds one line to results.jsonl, such as metric, value, split, method."""
  append_line(pathlib.Path(run) / "results.jsonl", row)


def read_results(run: str | os.PathLike) -> list[dict[str, Any]]:
  """Rows of results.jsonl in order of first appearance.

  The last row wins among those of the same metric, split, method, estimator,
  step and batch size: evaluating again replaces a result.
  """
  rows = read_lines(pathlib.Path(run) / "results.jsonl")
  return list(
    {tuple(row.get(k) for k in _RESULT_KEY): row for row in rows}.values()
  )


def append_line(path: pathlib.Path, row: dict[str, Any]) -> None:
  """Adds one JSON line to a file."""
  with open(path, "a", encoding="utf-8") as file:
    file.write(json.dumps(row) + "\n")


def read_lines(path: pathlib.Path) -> list[dict[str, Any]]:
  """Rows of a file of JSON lines, none if there is no file.

  A last line that a killed process left unfinished is left out.

  Raises:
    InputError: for any other line that is no JSON.
  """
  if not path.is_file():
    return []
  lines = path.read_text("utf-8").split("\n")
  rows = []
  for number, line in enumerate(lines[:-1], start=1):
    try:
      rows.append(json.loads(line))
    except ValueError as error:
      raise InputError(f"{path}, line {number}: {error}.") from None
  return rows


def write_lines(path: pathlib.Path, rows: list[dict[str, Any]]) -> None:
  """Replaces a file of JSON lines."""
  _write(path, "".join(json.dumps(row) + "\n" for row in rows))


def _write(path: pathlib.Path, text: str) -> pathlib.Path:
  """Writes a text so that the file is there whole or not at all."""
  temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
  temporary.write_text(text, encoding="utf-8", newline="\n")
  return temporary.replace(path)
