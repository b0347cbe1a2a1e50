"""Reading a study: the files of its runs as rows of figures.

`collect` gives a row for each run and decoding method, `checkpoints` one for
each checkpoint with a likelihood and a BLEU, `compare` one for each estimator
paired with a known truth. A field that is None is missing; one that is ""
does not apply.
"""

import json
from pathlib import Path
import re

from latentnmt import checkpoint
from latentnmt.config import AutoregressiveConfig, ModelConfig
from latentnmt.errors import InputError

SPEED, SPEED_UP = "sentences_per_second_batch", "speed_up_batch"
SLOWEST, FASTEST = "slowest_batch", "fastest_batch"

_ESTIMATORS = (
  "exact",
  "annealed",
  "extrapolated",
  "iwae",
  "elbo",
  "reconstruction",
  "lee2020",
)
_USUAL = ("beam4", "delta1")  # the paper's decoding


def run_directories(study: Path) -> list[Path]:
  """Runs of a study: autoregressive first, by preset, raw before distilled.

  Raises:
    InputError: if there are none.
  """
  runs = [path.parent for path in study.glob("*/config.json")]
  if not runs:
    raise InputError(f"{study} has no run directories in it; train a model.")
  kinds = data_kinds(study)

  def order(run):
    config = checkpoint.read_config(run)
    distilled = kinds.get(config.data) == "distilled"
    return not is_exact(run), config.preset, distilled, run.name

  return sorted(runs, key=order)


def is_exact(run: Path) -> bool:
  """Whether the log-likelihood of the run's model is known exactly."""
  config = checkpoint.read_config(run)
  return isinstance(config.model, AutoregressiveConfig)


def family(run: Path) -> str:
  """What models are grouped by: "autoregressive" or the name of the prior."""
  if is_exact(run):
    return "autoregressive"
  prior = type(checkpoint.read_config(run).model.prior).__name__
  words = re.findall("[A-Z][a-z]*", prior.removesuffix("Config"))
  return " ".join(words).lower().replace("gaussian", "Gaussian")


def data_kinds(study: Path) -> dict[str, str]:
  """By fingerprint, whether the study's prepared data are raw or distilled.

  Those that the distilled ones were made from may be elsewhere.
  """
  kinds = {}
  for path in study.glob("*/meta.json"):
    meta = json.loads(path.read_text(encoding="utf-8"))
    if targets := meta["made_from"].get("targets"):
      kinds[meta["fingerprint"]] = "distilled"
      kinds.setdefault(targets["data"], "raw")
    else:
      kinds[meta["fingerprint"]] = "raw"
  return kinds


class Results:
  """A run's results of a split, found by their fields.

  Where there are results of several checkpoints, those of the best one by
  dev BLEU are taken, else the last that were found.
  """

  def __init__(self, run: Path, split: str):
    self._best = (checkpoint.finished(run) or {}).get("best_step")
    self._rows = [
      row
      for row in checkpoint.read_results(run)
      if row.get("split", split) == split
    ]

  def find(self, metric: str, **fields) -> dict:
    """The result with these fields; {} if there is none."""
    found = self.all(metric, **fields)
    best = [row for row in found if row.get("step") == self._best]
    return (best or found or [{}])[-1]

  def all(self, metric: str, **fields) -> list[dict]:
    """Every result with these fields."""
    fields["metric"] = metric
    return [
      row
      for row in self._rows
      if all(row.get(name) == value for name, value in fields.items())
    ]

  def distinct(self, field: str) -> list:
    """The values of a field, in order of first appearance."""
    values = (row.get(field) for row in self._rows)
    return list(dict.fromkeys(v for v in values if v is not None))


def usual_method(methods: list[str]) -> str | None:
  """The method a model is judged by: the paper's, else the first by name."""
  return next((m for m in _USUAL if m in methods), min(methods, default=None))


# A row for each run and decoding method.


def collect(study: Path, split: str) -> list[dict]:
  """A row for each run and decoding method that has results or none at all.

  "usual" says of one row of each run that it is the one to judge it by.
  """
  kinds = data_kinds(study)
  found = {run: Results(run, split) for run in run_directories(study)}
  timed = _timed(found)
  rows = []
  for run, results in found.items():
    row = _described(run, results, kinds) | _likelihood(results, is_exact(run))
    # A twin that was not measured is as fast as the one that was.
    benchmark = timed.get(run) or timed.get(_model(run), results)
    row["parameters"] = benchmark.find("parameters").get("value")
    row["megabytes"] = _megabytes(run)
    methods = results.distinct("method")
    for method in methods or [None]:
      row["usual"] = method == usual_method(methods)
      speeds = _speeds(benchmark, method)
      rows.append(row | _decoding(results, method) | speeds)
  _compare_speeds(rows)
  return rows


def _timed(found: dict[Path, Results]) -> dict[Path | ModelConfig, Results]:
  """Results with speeds, by run, and by model the first that has them."""
  timed: dict[Path | ModelConfig, Results] = {}
  for run, results in found.items():
    if results.all("sentences_per_second"):
      timed[run] = results
      timed.setdefault(_model(run), results)
  return timed


def _model(run: Path) -> ModelConfig:
  return checkpoint.read_config(run).model


def _described(run: Path, results: Results, kinds: dict[str, str]) -> dict:
  config = checkpoint.read_config(run)
  # What a model is scored on are the references: trained on these, too.
  kinds = dict.fromkeys(results.distinct("data"), "raw") | kinds
  return {
    "run": run.name,
    "model": config.preset or type(config.model).__name__,
    "family": family(run),
    "data": kinds.get(config.data),
  }


def _likelihood(results: Results, exact: bool) -> dict:
  """Fields on density estimation, the length paid for but in lee2020."""
  estimator = "exact" if exact else "iwae"
  found = results.find("nats_per_token", estimator=estimator)
  lee2020 = results.find("lee2020_per_position").get("value")
  return {
    "log_likelihood": found.get("value"),
    "estimator": estimator,
    "K": "" if exact else found.get("K"),
    "ess": "" if exact else found.get("ess_median"),
    "ess_min": "" if exact else found.get("ess_min"),
    "standard_error": "" if exact else found.get("standard_error"),
    "lee2020": "" if exact else lee2020,
    "bits_per_byte": found.get("bits_per_byte"),
    "step": found.get("step"),
    "sentences": found.get("sentences"),
    "tokens": found.get("tokens"),
    "unknown": found.get("unknown"),
    "truncated": found.get("truncated"),
    "scored_on": found.get("data"),
  }


def _decoding(results: Results, method: str | None) -> dict:
  """Fields on translation with one method."""
  row = {"method": method, "k": _steps(method or "")}
  for name in ("bleu", "chrf"):
    found = results.find(name, method=method)
    row[name] = found.get("value")
    for field in ("low", "high", "signature", "step", "truncated", "data"):
      row[f"{name}_{field}"] = found.get(field)
  for name in ("bound", "eq3"):
    row[name] = results.find(name, method=method).get("value")
  names = results.find("bleu", method=method).get("reference_normalizers", [])
  row["reference_normalizers"] = ", ".join(names)
  return row


def _speeds(results: Results, method: str | None) -> dict:
  """Sentences per second with one method, by batch size, and their range."""
  row = {}
  speeds = results.all("sentences_per_second")
  sizes = dict.fromkeys(speed.get("batch_size") for speed in speeds)
  for size in filter(None, sizes):
    found = results.find("sentences_per_second", method=method, batch_size=size)
    row[f"{SPEED}{size}"] = found.get("value")
    row[f"{SLOWEST}{size}"] = found.get("lowest")
    row[f"{FASTEST}{size}"] = found.get("highest")
    row["device"] = found.get("device", row.get("device"))
  return row


def _steps(method: str) -> int | str:
  """k, the refinement steps; "" for a method without any."""
  match = re.match(r"delta(\d+)", method)
  return int(match[1]) if match else ""


def _megabytes(run: Path) -> float | None:
  """Size on disk of the parameters that `load` reads."""
  try:
    step = checkpoint.find_step(run)
  except InputError:
    return None
  files = (run / "checkpoints" / str(step) / "params").rglob("*")
  return sum(f.stat().st_size for f in files if f.is_file()) / 1e6


def _compare_speeds(rows: list[dict]) -> None:
  """Adds each row's speed over that of the first model with beam 4."""
  first = next((row for row in rows if row["method"] == "beam4"), {})
  fields = {field for row in rows for field in row if field.startswith(SPEED)}
  for row in rows:
    row["speed_up_over"] = first.get("run")
    for field in fields:
      both = row.get(field) and first.get(field)
      size = field.removeprefix(SPEED)
      row[f"{SPEED_UP}{size}"] = row[field] / first[field] if both else ""


# Checkpoints.


def checkpoints(study: Path, split: str) -> list[dict]:
  """A row for each run and checkpoint with a likelihood and a BLEU.

  Not of latent models from before the KL term: nothing has trained their prior
  by then, and their bound is of no model that anyone would use.

  BLEU is that of the method which most checkpoints were translated with.
  """
  kinds = data_kinds(study)
  rows = []
  for run in run_directories(study):
    results = Results(run, split)
    steps = {
      method: {row.get("step") for row in results.all("bleu", method=method)}
      for method in results.distinct("method")
    }
    most = max(map(len, steps.values()), default=0)
    method = usual_method([m for m, s in steps.items() if len(s) == most])
    about = _described(run, results, kinds) | {"split": split, "method": method}
    exact = is_exact(run)
    start = 0 if exact else checkpoint.read_config(run).train.kl_start
    for step in sorted(s for s in results.distinct("step") if s > start):
      figures = _figures(results, exact, method, step)
      if None not in (figures["bleu"], figures["log_likelihood"]):
        rows.append(about | {"step": step} | figures)
  return rows


def _figures(results: Results, exact: bool, method: str, step: int) -> dict:
  """What is set against each other at one checkpoint."""

  def value(metric, **fields):
    return results.find(metric, step=step, **fields).get("value")

  estimator = "exact" if exact else "iwae"
  found = results.find("nats_per_token", step=step, estimator=estimator)
  return {
    "bleu": value("bleu", method=method),
    "log_likelihood": found.get("value"),
    "estimator": estimator,
    "K": "" if exact else found.get("K"),
    "elbo": "" if exact else value("nats_per_token", estimator="elbo"),
    "lee2020": "" if exact else value("lee2020_per_position"),
  }


def most_checkpoints(study: Path, split: str) -> list[dict]:
  """`checkpoints` of the split that has the most of one run; `split` if equal.

  Those of a training are commonly scored on dev, and test is left unspent.
  """

  def most(rows: list[dict]) -> int:
    runs = [row["run"] for row in rows]
    return max(map(runs.count, runs), default=0)

  splits = dict.fromkeys((split, "dev", "test"))
  return max((checkpoints(study, name) for name in splits), key=most)


# The known truth.


def compare(study: Path, split: str) -> list[dict]:
  """A row for each run and estimator that is paired with the known truth."""
  rows = []
  for run in run_directories(study):
    results = Results(run, split)
    for estimator in _ESTIMATORS:
      found = results.find("difference_to_truth", estimator=estimator)
      if not found:
        continue
      error = found["standard_error"]
      rows.append(
        {
          "run": run.name,
          "estimator": estimator,
          "per_token": found["truth_per_token"] + found["per_token"],
          "truth_per_token": found["truth_per_token"],
          "difference_per_token": found["per_token"],
          "difference": found["value"],
          "standard_error": error,
          "errors": found["value"] / error if error else None,
        }
      )
  return rows


# Training.


def training(study: Path) -> list[dict]:
  """What each run logged: its description and "metrics", lists by name.

  A metric is a list of (step, value).
  """
  kinds = data_kinds(study)
  logs = []
  for run in run_directories(study):
    metrics: dict[str, list] = {}
    for row in checkpoint.read_lines(run / "metrics.jsonl"):
      for name, value in row.items():
        metrics.setdefault(name, []).append((row["step"], value))
    about = _described(run, Results(run, "test"), kinds)
    logs.append(about | {"metrics": metrics})
  return logs
