"""The record of a study, `study.json`, and the lock of its folder."""

from collections.abc import Iterator
import contextlib
import fcntl
import shlex
import sys
from typing import IO

from latentnmt import files
from latentnmt.errors import InputError
from latentnmt.experiments.study.layout import StudyDirectory
from latentnmt.experiments.study.stages import Stage


class Record:
  """The finished stages of a study, their commands and seconds.

  Commands are recorded with the study's folder as ".": it can be moved.

  Args:
    study: whose `study.json` this is.
  """

  def __init__(self, study: StudyDirectory):
    self._study = study
    self._stages = files.read_json(study.record) or {}

  def _command(self, stage: Stage) -> list[str]:
    return [arg.replace(f"={self._study}", "=.") for arg in stage.command]

  def seconds(self, stage: Stage) -> float:
    """Returns how long a finished stage took."""
    return self._stages[stage.name]["seconds"]

  def check(self, stages: list[Stage]) -> None:
    """Refuses stages of which one was finished by another command.

    Raises:
      InputError: naming the stage and the flags that differ.
    """
    for stage in stages:
      old = self._stages.get(stage.name, {}).get("command", [])
      new = self._command(stage)
      if old and old != new:
        before = shlex.join(arg for arg in old if arg not in new)
        now = shlex.join(arg for arg in new if arg not in old)
        raise InputError(
          f"stage '{stage.name}' of {self._study} was made with other flags"
          f" ({before or 'none of these'} -> {now or 'none of these'}); delete"
          f" that folder to start again, or name another with --study."
        )

  def finished(self, stage: Stage) -> bool:
    """Tells whether a stage is recorded and its outputs are there."""
    return stage.name in self._stages and all(
      path.exists() for path in stage.outputs
    )

  def begin(self, stage: Stage, stages: list[Stage]) -> None:
    """Forgets a stage and all that depend on what it is going to write."""
    self._stages.pop(stage.name, None)
    written = set(stage.outputs)
    for other in stages:
      if written & set(other.inputs):
        self._stages.pop(other.name, None)
        written |= set(other.outputs)
    files.write_json(self._study.record, self._stages)

  def finish(self, stage: Stage, seconds: float) -> None:
    """Records a stage as finished."""
    self._stages[stage.name] = {
      "command": self._command(stage),
      "seconds": round(seconds, 1),
    }
    files.write_json(self._study.record, self._stages)


def say(line: str) -> None:
  """Prints a line on stderr at once."""
  print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def alone(study: StudyDirectory) -> Iterator[IO]:
  """Holds the folder's lock, after waiting for a process that has it.

  The stages inherit the lock: where the study was killed and its stage lives
  on, the next study waits for that stage rather than work beside it.
  """
  study.lock.parent.mkdir(parents=True, exist_ok=True)
  with open(study.lock, "a") as lock:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      say(f"waiting for another process that works in {study} ...")
      fcntl.flock(lock, fcntl.LOCK_EX)
    yield lock
