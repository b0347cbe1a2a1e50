"""Runs a recipe's stages in order: text, teacher, students, scores, table.

  python -m experiments.study --recipe=quickstart

Each stage is a process of its own, one of the other binaries. A stage that is
finished is skipped: `study.json` in the study's folder records its command,
and its outputs are there. One that was cut off is run again, and continues
where its binary can. Compiled programs are shared by the studies in `<out>`,
everything else is in `<out>/<study>/`:

  study.json  data/  data-distilled/  <run>/...  report.md  report.csv
"""

from collections.abc import Iterator
import contextlib
import fcntl
import os
from pathlib import Path
import shlex
import signal
import subprocess
import sys
import time
from typing import IO

from absl import flags

from latentnmt import files
from latentnmt.experiments import app, shared_flags
from latentnmt.experiments.study.recipe import Recipe
from latentnmt.experiments.study.recipes import RECIPES
from latentnmt.experiments.study.stages import Stage, Study, check_lengths

_RECIPE = flags.DEFINE_enum(
  "recipe",
  None,
  list(RECIPES),
  "What to run:\n"
  + "\n".join(f"{name}: {recipe.summary}" for name, recipe in RECIPES.items()),
  required=True,
)
_OUT = flags.DEFINE_string("out", "runs", "Folder of all studies.")
_STUDY = flags.DEFINE_string(
  "study", None, "Name of this study's folder in --out; default the recipe's."
)
_DATA = shared_flags.data_flag(
  "Data of your own instead of the recipe's corpus: a folder of parallel text"
  " or a manythings file, which `preprocess` is given, or prepared data.",
  required=False,
)
_TRUNCATE = flags.DEFINE_bool(
  "truncate", False, "Cut test sentences that are longer than a model takes."
)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Only show the stages.")


# glibc would return the large arrays of each step to the system and have them
# back as fresh pages: on two cores a sixth of the time of a training step.
_KEEP_MEMORY = {
  "MALLOC_ARENA_MAX": "1",
  "MALLOC_MMAP_MAX_": "0",
  "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
}


class Record:
  """What `study.json` says: the finished stages, their commands and seconds.

  Commands are recorded with the study's folder as ".": it can be moved.
  """

  def __init__(self, folder: Path):
    self._folder = folder
    self._path = folder / "study.json"
    self._stages = files.read_json(self._path) or {}

  def command(self, stage: Stage) -> list[str]:
    """What is recorded of a stage's command."""
    here = f"={self._folder}"
    return [arg.replace(here, "=.") for arg in stage.command]

  def seconds(self, stage: Stage) -> float:
    """How long a finished stage took."""
    return self._stages[stage.name]["seconds"]

  def check(self, stages: list[Stage]) -> None:
    """Ends the process if a stage was finished by another command."""
    for stage in stages:
      old = self._stages.get(stage.name, {}).get("command", [])
      new = self.command(stage)
      if old and old != new:
        before = shlex.join(arg for arg in old if arg not in new)
        now = shlex.join(arg for arg in new if arg not in old)
        app.fail(
          f"stage '{stage.name}' of {self._folder} was made with other flags"
          f" ({before or 'none of these'} -> {now or 'none of these'}); delete"
          f" that folder to start again, or name another with --study."
        )

  def finished(self, stage: Stage) -> bool:
    """Whether a stage is recorded and its outputs are there."""
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
    files.write_json(self._path, self._stages)

  def finish(self, stage: Stage, seconds: float) -> None:
    """Records a stage as finished."""
    self._stages[stage.name] = {
      "command": self.command(stage),
      "seconds": round(seconds, 1),
    }
    files.write_json(self._path, self._stages)


def run_all(stages: list[Stage], record: Record, start) -> None:
  """Runs what is not finished.

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
    _say(
      f"[{number}/{len(stages)}] {stage.name}: {_clock(elapsed)} elapsed,"
      f" about {_clock(elapsed + rest)} in all"
    )
    record.begin(stage, stages)
    began = time.monotonic()
    status = start(stage.command)
    if status:
      _say(f"error: stage '{stage.name}' failed: {shlex.join(stage.command)}")
      sys.exit(status if status > 0 else 1)
    record.finish(stage, time.monotonic() - began)
    elapsed += record.seconds(stage)


def _say(line: str) -> None:
  print(line, file=sys.stderr, flush=True)


def _clock(seconds: float) -> str:
  """12:34, and from an hour on 1:23:45."""
  minutes, seconds = divmod(int(seconds), 60)
  hours, rest = divmod(minutes, 60)
  clock = f"{rest:02d}:{seconds:02d}"
  return f"{hours}:{clock}" if hours else f"{minutes}:{seconds:02d}"


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[IO]:
  """Holds the folder's lock, after waiting for a process that has it.

  The stages inherit the lock: where the study was killed and its stage lives
  on, the next study waits for that stage rather than work beside it.
  """
  folder.mkdir(parents=True, exist_ok=True)
  with open(folder / ".lock", "a") as lock:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      _say(f"waiting for another process that works in {folder} ...")
      fcntl.flock(lock, fcntl.LOCK_EX)
    yield lock


def start_process(command: tuple[str, ...], cache: Path, lock: IO) -> int:
  """Runs a binary and returns its exit status; an interruption ends it too."""
  binary, *arguments = command
  process = subprocess.Popen(
    [
      *(sys.executable, "-m", f"experiments.{binary}", *arguments),
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
  """What a recipe does, how long it takes and what is to be expected."""
  seconds = sum(stage.seconds for stage in stages)
  return (
    f"{name}: {recipe.summary} About {_clock(seconds)} in all on"
    f" {recipe.hardware}; expected: {recipe.expected}."
  )


def show(stages: list[Stage], record: Record) -> None:
  """Prints every stage: state, expected time, command, inputs, outputs."""
  for number, stage in enumerate(stages, 1):
    state = "finished" if record.finished(stage) else "to do"
    print(f"[{number}/{len(stages)}] {stage.name}: {state},", end=" ")
    print(f"about {_clock(stage.seconds)}")
    binary, *arguments = stage.command
    print(f"  python -m experiments.{binary} {shlex.join(arguments)}")
    print("  reads ", *(stage.inputs or ["nothing"]))
    print("  writes", *stage.outputs)


def _own_data(recipe: Recipe) -> tuple[Path | None, Path | None]:
  """What --data names: prepared data, or else text."""
  if _DATA.value is None:
    if recipe.corpus is None:
      app.fail(
        f"--recipe={_RECIPE.value} has no corpus of its own; give --data, a"
        " folder of train.de, train.en, dev.de and so on, a manythings file or"
        " prepared data."
      )
    return None, None
  path = Path(_DATA.value).resolve()
  if not path.exists():
    app.fail(f"--data={_DATA.value}: no such file or folder.")
  prepared = (path / "meta.json").exists()
  return (path, None) if prepared else (None, path)


def main(argv):
  """Runs or shows the study that the flags ask for."""
  del argv
  recipe = RECIPES[_RECIPE.value]
  folder = Path(_OUT.value) / (_STUDY.value or _RECIPE.value)
  data, text = _own_data(recipe)
  if data:
    check_lengths(recipe, data, _TRUNCATE.value)
  plan = Study(recipe, folder, data, _TRUNCATE.value, text)
  stages = plan.stages()
  if _DRY_RUN.value:
    print(summary(_RECIPE.value, recipe, stages))
    show(stages, Record(folder))
    return
  signal.signal(signal.SIGTERM, signal.default_int_handler)
  with alone(folder) as lock:
    record = Record(folder)
    record.check(stages)
    had_table = record.finished(stages[-1])
    if not all(map(record.finished, stages)):
      _say(summary(_RECIPE.value, recipe, stages))
    cache = app.compilation_cache() or folder.parent / "compilation_cache"
    # What comes with the package is known to fit.
    fits = text is None and recipe.corpus in ("embedded", "grammar")

    def start(command):
      if not fits and command[0] != "preprocess":
        check_lengths(recipe, plan.prepared, _TRUNCATE.value)
      return start_process(command, cache, lock)

    run_all(stages, record, start)
  if had_table:
    print((folder / "report.md").read_text(encoding="utf-8"))
  total = sum(record.seconds(stage) for stage in stages)
  _say(f"All {len(stages)} stages are finished ({_clock(total)}): {folder}")


if __name__ == "__main__":
  app.run(main, jax=False)
