"""The numbers of a run: metrics.jsonl, TensorBoard events, progress bar."""

import sys
import time
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from latentnmt import files, metrics, objectives, sharding
from latentnmt.config import TrainConfig
from latentnmt.errors import InputError
from latentnmt.runs import RunDirectory
from latentnmt.train.step import Programs
from latentnmt.types import Array


class Recorder:
  """Records numbers of a run as they come.

  Steps are kept on the device until `flush`, where the host waits for them.

  Args:
    run: the run directory; lines there of steps after `start` are removed.
    train: configuration of the training.
    start: steps taken before.
    per_epoch: steps in an epoch.
    programs: the training step, for the time it spends compiling.
    bar: progress bar of steps.
    events: a TensorBoard writer, or None.
  """

  def __init__(
    self,
    run: RunDirectory,
    train: TrainConfig,
    start: int,
    per_epoch: int,
    programs: Programs,
    bar: tqdm,
    events: Any = None,
  ):
    self._path, self._train = run.metrics_path, train
    self._per_epoch, self._programs = per_epoch, programs
    self._bar, self._events = bar, events
    self._pending, self._step = [], start
    self._rewind(start)
    self.restart()

  def _rewind(self, start: int) -> None:
    """Forgets what was logged after the checkpoint training starts from."""
    if sharding.is_main():
      rows = files.read_json_lines(self._path)
      kept = [row for row in rows if row["step"] <= start]
      files.write_json_lines(self._path, kept)

  def restart(self) -> None:
    """Starts the clock of the next interval."""
    self._start = time.perf_counter()
    self._compiled = self._programs.seconds

  def add(self, values: dict[str, Array]) -> None:
    """Takes the metrics of one step, without waiting for them."""
    self._pending.append(values)
    self._bar.update()
    if sharding.must_wait():
      jax.block_until_ready(values)

  def flush(self) -> None:
    """Waits for the steps taken, writes their means and checks them.

    Raises:
      FloatingPointError: where a gradient was not finite and the
        configuration says to stop.
    """
    rows, self._pending = jax.device_get(self._pending), []
    first, self._step = self._step + 1, self._step + len(rows)
    compiling = self._programs.seconds - self._compiled
    seconds = time.perf_counter() - self._start - compiling
    row = self._means(rows) | {
      "tokens_per_second": objectives.add(rows)["num_tokens"] / seconds,
      "seconds": seconds,
      "compile_seconds": compiling,
    }
    self._write("", row)
    self._show(row)
    self.restart()
    # After the line is written: the log shows the step that ended the run.
    bad = [first + k for k, row in enumerate(rows) if not row["finite"]]
    if bad and self._train.nonfinite == "stop":
      raise FloatingPointError(
        f"The gradient of step {bad[0]} is not finite (it was not applied);"
        " train again with a lower train.learning_rate or a longer"
        " train.warmup, or pass over such steps with train.nonfinite=skip."
      )

  def _means(self, rows) -> dict[str, float]:
    """Averages the steps that were applied; takes counters of the last."""
    good = [row for row in rows if row["finite"]]
    total = objectives.add(good) if good else dict.fromkeys(rows[0], np.nan)
    return {
      "epoch": self._step / self._per_epoch,
      "loss": total["loss"] / max(len(good), 1),
      **metrics.terms_per_token(total),
      "learning_rate": float(rows[-1]["learning_rate"]),
      "beta": float(rows[-1]["beta"]),
      "gradient_norm": total["gradient_norm"] / max(len(good), 1),
      "nonfinite": int(rows[-1]["nonfinite"]),
    }

  def dev(self, row: dict[str, float]) -> None:
    """Writes a dev evaluation and how long it took."""
    seconds = time.perf_counter() - self._start
    self._write("dev_", row | {"seconds": seconds})
    self.say(
      f"step {self._step}: dev BLEU {row['bleu']:.2f}, elbo"
      f" {row['elbo']:.3f} nats a token"
    )
    self.restart()

  def say(self, what: str) -> None:
    """Puts a line above the progress bar."""
    if not self._bar.disable:
      self._bar.write(what, file=sys.stderr)

  def _write(self, prefix: str, row: dict[str, float]) -> None:
    if not sharding.is_main():
      return
    # JSON has no NaN.
    line = {prefix + k: v if np.isfinite(v) else None for k, v in row.items()}
    files.append_json_line(self._path, {"step": self._step, **line})
    if self._events:
      for name, value in row.items():
        tag = f"{prefix.rstrip('_') or 'train'}/{name}"
        self._events.add_scalar(tag, value, self._step)
      self._events.flush()

  def _show(self, row: dict[str, float]) -> None:
    names = ["loss", "log_py", "kl"] if row["kl"] else ["loss"]
    shown = [f"{name} {row[name]:.3f}" for name in names]
    shown.append(f"{row['tokens_per_second']:,.0f} tokens/s")
    if row["compile_seconds"]:
      shown.append(f"+ {row['compile_seconds']:.0f} s compiling")
    self._bar.set_postfix_str(", ".join(shown))


def summary_writer():
  """Imports the class that writes TensorBoard events.

  Raises:
    InputError: where tensorboardX is not installed.
  """
  try:
    from tensorboardX import SummaryWriter
  except ImportError:
    raise InputError(
      "TensorBoard events need tensorboardX: pip install"
      " 'latentnmt[tensorboard]'."
    ) from None
  return SummaryWriter
