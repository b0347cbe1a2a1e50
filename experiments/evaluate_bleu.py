"""Scores all translations of one or more runs against the references.

  python -m experiments.evaluate_bleu --data=runs/quickstart/data \
    --run=runs/quickstart/teacher --run=runs/quickstart/gauss-raw

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

from latentnmt import checkpoint, files, metrics
from latentnmt.data import PreparedData, read_lines
from latentnmt.errors import InputError
from latentnmt.experiments import app, shared_flags
from latentnmt.experiments.progress import progress

_RUNS = flags.DEFINE_multi_string(
  "run", None, "Run directory; may be given repeatedly.", required=True
)
_DATA = shared_flags.data_flag()
_RESAMPLES = flags.DEFINE_integer(
  "resamples", 1000, "Bootstrap resamples for the interval; 0 for none.", 0
)

_MEASURES = {"bleu": metrics.bleu, "chrf": metrics.chrf}
_TOLD = {"bound_per_token": "bound", "eq3_per_token": "eq3"}


def hypotheses(run: str) -> list[tuple[str, str, Path]]:
  """(split, method, file) of each file of translations of a run.

  Raises:
    InputError: if there are none.
  """
  files = sorted((Path(run) / "hypotheses").glob("*.*.txt"))
  if not files:
    raise InputError(f"{run} has no translations; translate with it first.")
  names = [re.sub(r"(\.step\d+)?\.txt$", "", file.name) for file in files]
  return [
    (*name.split(".", 1), file) for name, file in zip(names, files, strict=True)
  ]


def about(file: Path, fingerprint: str) -> dict:
  """What `translate` wrote about a file: step, data, truncated and so on.

  Raises:
    InputError: if it wrote nothing, or translated data of another fingerprint.
  """
  found = files.read_json(file.with_suffix(".json"))
  if found is None:
    raise InputError(
      f"{file} has no .json beside it that tells its checkpoint; translate"
      " again, or remove it."
    )
  if found["data"] != fingerprint:
    raise InputError(
      f"{file} translates other data ({found['data']}) than"
      f" --data={_DATA.value} ({fingerprint}); translate that, or give the"
      " other as --data."
    )
  return found


def scores(
  lines: list[str], references: list[str], resamples: int
) -> list[dict]:
  """Rows of both measures."""
  return [
    {"metric": name}
    | dataclasses.asdict(measure(lines, references, resamples=resamples))
    for name, measure in _MEASURES.items()
  ]


def main(argv):
  """Scores what the flags name."""
  del argv
  data = PreparedData.open(_DATA.value)
  files = [(run, *found) for run in _RUNS.value for found in hypotheses(run)]
  abouts = [about(file, data.fingerprint) for *_, file in files]
  # All are scored before any score is written: one may be found wanting.
  found = []
  bar = progress(files, desc="bleu")
  for (run, split, method, file), told in zip(bar, abouts, strict=True):
    try:
      rows = scores(read_lines(file), data.targets(split), _RESAMPLES.value)
    except InputError as error:
      raise InputError(f"{file}: {error}") from None
    told |= {"split": split, "method": method}
    if data.reference_normalizers:
      told["reference_normalizers"] = data.reference_normalizers
    rows += [
      {"metric": metric, "value": told.pop(field)}
      for field, metric in _TOLD.items()
      if field in told
    ]
    found += [(run, file, row | told) for row in rows]
  for run, file, row in found:
    checkpoint.append_result(run, row)
    print(f"{file}: {row['metric']} {row['value']:.2f}")


if __name__ == "__main__":
  app.run(main)
