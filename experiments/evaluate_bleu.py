"""Scores all translations of one or more runs against the references.

  latentnmt evaluate_bleu --data=runs/quickstart/data \
    --run=runs/quickstart/teacher --run=runs/quickstart/gauss-distilled

Every hypotheses/<split>.<method>.txt of a run, and .step<N>.txt of another
checkpoint than the best, gives two rows of its results.jsonl, metrics "bleu"
and "chrf", with sacreBLEU's signature, the ends of the 95 % bootstrap
interval, "low" and "high", and the checkpoint's "step". References that were
normalised, as the paper's Romanian ones are, are no longer the raw ones:
"reference_normalizers" names what they went through. Where `translate` says how
likely a latent model finds its own translations, "bound" and "eq3" repeat that,
in nats per token.
"""

import dataclasses
from pathlib import Path
import re

from absl import flags

from latentnmt import files, metrics
from latentnmt.data import PreparedData, read_lines
from latentnmt.errors import InputError
from latentnmt.experiments import app, shared_flags
from latentnmt.experiments.progress import progress
from latentnmt.runs import Result, RunDirectory

_RUNS = flags.DEFINE_multi_string(
  "run", None, "Run directory; may be given repeatedly.", required=True
)
_DATA = shared_flags.data_flag()
_RESAMPLES = flags.DEFINE_integer(
  "resamples", 1000, "Bootstrap resamples for the interval; 0 for none.", 0
)

_MEASURES = {"bleu": metrics.bleu, "chrf": metrics.chrf}
_TOLD = {"bound_per_token": "bound", "eq3_per_token": "eq3"}


def main(argv):
  """Scores what the flags name."""
  del argv
  data = PreparedData.open(_DATA.value)
  runs = [RunDirectory(path) for path in _RUNS.value]
  found = [
    (run, file, about(file, data)) for run in runs for file in translations(run)
  ]
  # All are scored before any score is written: one may be found wanting.
  results = [
    (run, file, result)
    for run, file, told in progress(found, desc="bleu")
    for result in score(file, told, data, _RESAMPLES.value)
  ]
  for run, file, result in results:
    run.append_result(result)
    print(f"{file}: {result.metric} {result.value:.2f}")


def translations(run: RunDirectory) -> list[Path]:
  """Finds the files of translations of a run; raises InputError for none."""
  found = run.hypotheses_paths()
  if not found:
    raise InputError(f"{run} has no translations; translate with it first.")
  return found


def about(file: Path, data: PreparedData) -> dict:
  """Returns what is known of translations: step, split, method and so on.

  Raises:
    InputError: if `translate` wrote nothing, or translated other data.
  """
  found = files.read_json(file.with_suffix(".json"))
  if found is None:
    raise InputError(
      f"{file} has no .json beside it that tells its checkpoint; translate"
      " again, or remove it."
    )
  if found["data"] != data.fingerprint:
    raise InputError(
      f"{file} translates other data ({found['data']}) than"
      f" --data={data.path} ({data.fingerprint}); translate that, or give the"
      " other as --data."
    )
  name = re.sub(r"(\.step\d+)?\.txt$", "", file.name)
  found["split"], found["method"] = name.split(".", 1)
  if data.reference_normalizers:
    found["reference_normalizers"] = data.reference_normalizers
  return found


def score(
  file: Path, told: dict, data: PreparedData, resamples: int
) -> list[Result]:
  """Scores translations by both measures, and repeats what was told of them."""
  rows = [
    {"metric": metric, "value": told[field]}
    for field, metric in _TOLD.items()
    if field in told
  ]
  told = {name: value for name, value in told.items() if name not in _TOLD}
  lines, references = read_lines(file), data.targets(told["split"])
  try:
    scores = [
      {"metric": name}
      | dataclasses.asdict(measure(lines, references, resamples=resamples))
      for name, measure in _MEASURES.items()
    ]
  except InputError as error:
    raise InputError(f"{file}: {error}") from None
  return [Result.from_row(row | told) for row in scores + rows]


if __name__ == "__main__":
  app.run(main)
