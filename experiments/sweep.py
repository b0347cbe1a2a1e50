r"""Chooses settings on dev: a short training at every point of a grid.

  latentnmt sweep --preset=gauss_base --data=data/wmt14_en_de \
    --out=runs/wmt14_en_de/sweep/gauss_base.json --set=train.steps=30000 \
    --grid=train.warmup=4000,8000 --grid=model.transformer.dropout=0.1,0.3

prints a table and writes it to --out, with the settings "chosen": those of the
best training, which `train --settings_from=<out>` takes. Each training has a
run directory below --out without its .json, such as `warmup4000-dropout0.1`,
and a sweep that was cut off continues there. Checkpoints of finished ones are
removed: what remains is how dev BLEU, nats and the loss went.
"""

from collections.abc import Sequence
import itertools
from pathlib import Path
import shutil
import sys

from absl import flags
import jax

from latentnmt import files
from latentnmt.config import ExperimentConfig
from latentnmt.data import PreparedData
from latentnmt.errors import InputError
from latentnmt.experiments import app, hardware, shared_flags
from latentnmt.experiments.progress import progress
from latentnmt.experiments.settings import experiment_config
from latentnmt.runs import RunDirectory
from latentnmt.train import fit

_DATA = shared_flags.data_flag()
_PRESET = shared_flags.preset_flag()
_MODEL = shared_flags.model_flag()
_SET = shared_flags.set_flag()
_GRID = flags.DEFINE_multi_string(
  "grid",
  None,
  "A field and the values to try, --grid=train.warmup=4000,8000. May be given"
  " repeatedly: every combination is trained.",
  required=True,
)
_WARM_START = shared_flags.warm_start_flag()
_OUT = flags.DEFINE_string(
  "out", None, "Where the results go, a .json.", required=True
)


# What `train.select` chooses by.
_SCORES = {"bleu": "dev BLEU", "nats": "dev nats a token"}


def main(argv):
  """Trains at every point, then writes and prints what came out."""
  del argv
  out, points = Path(_OUT.value), grid_points(_GRID.value)
  if out.suffix != ".json":
    raise InputError(f"--out={out}: give a name that ends in .json.")
  data = PreparedData.open(_DATA.value)
  # All configurations before the first training: a typo is told at once.
  configs = [
    experiment_config(
      data.tokenizer.vocab_size,
      [*_SET.value, *point],
      preset=_PRESET.value,
      model=_MODEL.value,
    )
    for point in points
  ]
  results = []
  for point, config in zip(points, configs, strict=True):
    number = f"[{len(results) + 1}/{len(points)}]"
    print(number, *point, file=sys.stderr)
    run = RunDirectory(out.with_suffix("") / run_name(point))
    row = _train(config, data, run, _WARM_START.value)
    results.append({"settings": list(point), **row})
  best, title = chosen(results), configs[0].preset
  found = {
    "preset": title,
    "data": data.fingerprint,
    "settings": _SET.value,
    "device": hardware.device_description(),
    "results": results,
    "chosen": best,
  }
  files.write_json(out, found)
  print(table(title, results, best, _SCORES[configs[0].train.select]))


def grid_points(grid: Sequence[str]) -> list[tuple[str, ...]]:
  """Returns every combination of "field=value,value", as "field=value".

  Raises:
    InputError: for what is not of that form.
  """
  fields = []
  for text in grid:
    field, _, values = text.partition("=")
    values = [value.strip() for value in values.split(",")]
    if not (field.strip() and all(values)):
      raise InputError(
        f"--grid={text} is not of the form field=value,value,..."
      )
    fields.append([f"{field.strip()}={value}" for value in values])
  return list(itertools.product(*fields))


def run_name(point: Sequence[str]) -> str:
  """Names a point's run: ("train.warmup=4000", ...) is "warmup4000"."""
  parts = [setting.partition("=") for setting in point]
  return "-".join(field.rpartition(".")[2] + value for field, _, value in parts)


def _train(
  config: ExperimentConfig,
  data: PreparedData,
  run: RunDirectory,
  warm_start: str | None,
) -> dict:
  """Returns a training's best dev score and its step, None if it diverged."""
  try:
    fit(config, data, run, warm_start=warm_start, progress=progress)
  except FloatingPointError as error:
    print(f"{run}: {error}", file=sys.stderr)
    return {"score": None, "step": None}
  shutil.rmtree(run.checkpoints_path, ignore_errors=True)
  jax.clear_caches()  # nothing compiled here serves the next point
  end = run.finished()
  return {"score": end["best_score"], "step": end["best_step"]}


def chosen(results: Sequence[dict]) -> list[str]:
  """Returns the settings of the best result, of equal ones the first.

  Raises:
    InputError: where every training diverged.
  """
  judged = [row for row in results if row["score"] is not None]
  if not judged:
    raise InputError(
      "Every training of the sweep diverged; lower train.learning_rate or try"
      " longer warm-ups."
    )
  return max(judged, key=lambda row: row["score"])["settings"]


def table(
  title: str, results: Sequence[dict], best: list[str], score: str
) -> str:
  """Writes the results in Markdown, the chosen row in bold."""
  fields = [setting.partition("=")[0] for setting in results[0]["settings"]]
  lines = [
    f"{title}, chosen on {score}:\n",
    f"| {' | '.join([*fields, score, 'step'])} |",
    "|" + " ---: |" * (len(fields) + 2),
  ]
  for row in results:
    cells = [setting.partition("=")[2] for setting in row["settings"]]
    if row["score"] is None:
      cells += ["diverged", ""]
    else:
      cells += [f"{row['score']:.2f}", str(row["step"])]
    if row["settings"] == best:
      cells = [f"**{cell}**" for cell in cells]
    lines.append(f"| {' | '.join(cells)} |")
  return "\n".join(lines)


if __name__ == "__main__":
  app.run(main)
