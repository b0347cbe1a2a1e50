"""Runs a recipe's stages in order: text, teacher, students, scores, table.

  latentnmt study --recipe=quickstart

Each stage is a process of its own, one of the other binaries. A stage that is
finished is skipped: `study.json` in the study's folder records its command,
and its outputs are there. One that was cut off is run again, and continues
where its binary can. Compiled programs are shared by the studies in `<out>`,
everything else is in `<out>/<study>/`:

  study.json  data/  data-distilled/  <run>/...  report.md  report.csv

A recipe of your own is a `latentnmt.experiments.study.schema.Recipe` in a
module of yours, given as package.module:NAME. A `Run` of it may be of a model
of your own.
"""

from pathlib import Path
import signal

from absl import flags

from latentnmt.errors import InputError
from latentnmt.experiments import app, shared_flags
from latentnmt.experiments.study.layout import StudyDirectory
from latentnmt.experiments.study.lengths import check_lengths
from latentnmt.experiments.study.recipes import RECIPES, find_recipe
from latentnmt.experiments.study.record import Record, alone, say
from latentnmt.experiments.study.run import (
  clock,
  run_all,
  show,
  start_process,
  summary,
)
from latentnmt.experiments.study.schema import Recipe
from latentnmt.experiments.study.stages import Plan

_RECIPE = flags.DEFINE_string(
  "recipe",
  None,
  "What to run, package.module:NAME of your own or\n"
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


def main(argv):
  """Runs or shows the study that the flags ask for."""
  del argv
  name, recipe = _RECIPE.value, find_recipe(_RECIPE.value)
  folder = _STUDY.value or name.replace(":", ".")
  study = StudyDirectory(Path(_OUT.value) / folder)
  data, text = own_data(name, recipe, _DATA.value)
  if data:
    check_lengths(recipe, data, _TRUNCATE.value)
  plan = Plan(recipe, study, data, _TRUNCATE.value, text)
  if _DRY_RUN.value:
    stages = plan.stages()
    print(summary(name, recipe, stages))
    show(stages, Record(study))
    return
  cache = app.compilation_cache() or study.path.parent / "compilation_cache"
  run(name, plan, cache)


def run(name: str, plan: Plan, cache: str | Path) -> None:
  """Runs what is not finished; shows the table of a study that is."""
  signal.signal(signal.SIGTERM, signal.default_int_handler)
  stages = plan.stages()
  with alone(plan.study) as lock:
    record = Record(plan.study)
    record.check(stages)
    had_table = record.finished(stages[-1])
    if not all(map(record.finished, stages)):
      say(summary(name, plan.recipe, stages))

    def start(command):
      if command[0] != "preprocess" and plan.may_not_fit:
        check_lengths(plan.recipe, plan.prepared, plan.truncate)
      return start_process(command, cache, lock)

    run_all(stages, record, start)
  if had_table:
    print(plan.study.report("md").read_text(encoding="utf-8"))
  total = sum(record.seconds(stage) for stage in stages)
  say(f"All {len(stages)} stages are finished ({clock(total)}): {plan.study}")


def own_data(
  name: str, recipe: Recipe, given: str | None
) -> tuple[Path | None, Path | None]:
  """Returns the prepared data, or else the text, that --data names.

  Raises:
    InputError: where nothing is there, or nothing is named for a recipe
      without a corpus.
  """
  if given is None:
    if recipe.corpus is None:
      raise InputError(
        f"--recipe={name} has no corpus of its own; give --data, a folder of"
        " train.de, train.en, dev.de and so on, a manythings file or prepared"
        " data."
      )
    return None, None
  path = Path(given).resolve()
  if not path.exists():
    raise InputError(f"--data={given}: no such file or folder.")
  return (path, None) if (path / "meta.json").exists() else (None, path)


if __name__ == "__main__":
  app.run(main, jax=False)
