"""Showing and running the stages of a study, each in a process of its own."""

from collections.abc import Callable
import contextlib
import os
from pathlib import Path
import shlex
import signal
import subprocess
import sys
import time
from typing import IO

from latentnmt.experiments.study.record import Record, say
from latentnmt.experiments.study.schema import Recipe
from latentnmt.experiments.study.stages import Stage

# glibc would return the large arrays of each step to the system and have them
# back as fresh pages: on two cores a sixth of the time of a training step.
_KEEP_MEMORY = {
  "MALLOC_ARENA_MAX": "1",
  "MALLOC_MMAP_MAX_": "0",
  "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
}


def run_all(
  stages: list[Stage], record: Record, start: Callable[[tuple[str, ...]], int]
) -> None:
  """Runs what is not finished; ends the process where a stage fails.

  Args:
    stages: in order.
    record: of their folder.
    start: called with a stage's command, returns its exit status.
  """
  elapsed = sum(record.seconds(s) for s in stages if record.finished(s))
  for number, stage in enumerate(stages, 1):
    if record.finished(stage):
      continue
    rest = sum(s.seconds for s in stages if not record.finished(s))
    say(
      f"[{number}/{len(stages)}] {stage.name}: {clock(elapsed)} elapsed,"
      f" about {clock(elapsed + rest)} in all"
    )
    record.begin(stage, stages)
    began = time.monotonic()
    status = start(stage.command)
    if status:
      say(f"error: stage '{stage.name}' failed: {shell(stage)}")
      sys.exit(status if status > 0 else 1)
    record.finish(stage, time.monotonic() - began)
    elapsed += record.seconds(stage)


def clock(seconds: float) -> str:
  """Formats seconds as 12:34, and from an hour on as 1:23:45."""
  minutes, seconds = divmod(int(seconds), 60)
  hours, rest = divmod(minutes, 60)
  text = f"{rest:02d}:{seconds:02d}"
  return f"{hours}:{text}" if hours else f"{minutes}:{seconds:02d}"


def shell(stage: Stage) -> str:
  """Formats a stage's command as a person would type it."""
  return f"latentnmt {shlex.join(stage.command)}"


def start_process(command: tuple[str, ...], cache: Path, lock: IO) -> int:
  """Runs a binary and returns its exit status; an interruption ends it too.

  Args:
    command: name of the binary, then its flags.
    cache: folder of compiled programs.
    lock: of the study, which the process inherits.
  """
  binary, *arguments = command
  process = subprocess.Popen(
    [
      *(sys.executable, "-m", f"latentnmt.experiments.{binary}", *arguments),
      f"--compilation_cache={cache}",
    ],
    pass_fds=[lock.fileno()],
    env=_KEEP_MEMORY | os.environ,
  )
  try:
    return process.wait()
  finally:
    _end(process)


def _end(process: subprocess.Popen) -> None:
  """Interrupts a process that still runs; kills it if it does not end."""
  for signal_number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
    # At a terminal the first signal has come from there; one more does harm
    # only if it cuts the process's own tidying short.
    with contextlib.suppress(subprocess.TimeoutExpired):
      process.wait(timeout=2)
      return
    process.send_signal(signal_number)
  process.wait()


def summary(name: str, recipe: Recipe, stages: list[Stage]) -> str:
  """Says what a recipe does, for how long, and what is to be expected."""
  seconds = sum(stage.seconds for stage in stages)
  return (
    f"{name}: {recipe.summary} About {clock(seconds)} in all on"
    f" {recipe.hardware}; expected: {recipe.expected}."
  )


def show(stages: list[Stage], record: Record) -> None:
  """Prints every stage: state, expected time, command, inputs, outputs."""
  for number, stage in enumerate(stages, 1):
    state = "finished" if record.finished(stage) else "to do"
    print(f"[{number}/{len(stages)}] {stage.name}: {state},", end=" ")
    print(f"about {clock(stage.seconds)}")
    print(f"  {shell(stage)}")
    print("  reads ", *(stage.inputs or ["nothing"]))
    print("  writes", *stage.outputs)
