"""Reading a study: the files of its runs as typed rows.

`collect` gives a row for each run and decoding method, `checkpoints` one for
each checkpoint that has a likelihood and a BLEU, `compare` one for each
estimator that is paired with a known truth.
"""

import dataclasses
import re

from latentnmt import files
from latentnmt.config import ExperimentConfig, ModelConfig
from latentnmt.errors import InputError
from latentnmt.experiments.report.rows import (
  EXACT,
  FACTORISED,
  NOT_APPLICABLE,
  ModelRow,
  RunRow,
  Score,
  Speed,
  TrainingLog,
  TruthRow,
  by_run,
)
from latentnmt.experiments.study.layout import StudyDirectory
from latentnmt.runs import Result, RunDirectory

_ESTIMATORS = (
  "exact annealed extrapolated iwae elbo reconstruction lee2020".split()
)
_PRIMARY = ("beam4", "delta1")  # the paper's decoding
_SPEED = "sentences_per_second"


def primary_method(methods: list[str]) -> str | None:
  """Returns what a model is judged by: the paper's, else the first by name."""
  return next((m for m in _PRIMARY if m in methods), min(methods, default=None))


@dataclasses.dataclass(frozen=True)
class Run:
  """A run with its results of a split, which are found by their fields."""

  about: RunRow
  directory: RunDirectory
  config: ExperimentConfig
  results: list[Result]
  best_step: int | None  # on dev, once training is over
  exact: bool  # its likelihood, on any split, is no bound

  def all(self, metric: str, **fields) -> list[Result]:
    """Returns every result with these fields."""
    fields["metric"] = metric
    return [
      result
      for result in self.results
      if all(result.get(name) == value for name, value in fields.items())
    ]

  def find(self, metric: str, **fields) -> Result:
    """Returns the result with these fields, one without a value for none.

    Of several checkpoints' it is that of the best one, else the last.
    """
    found = self.all(metric, **fields)
    best = [result for result in found if result.step == self.best_step]
    return (best or found or [Result(metric, None)])[-1]

  @property
  def methods(self) -> list[str]:
    """Decoding methods that have results, in order of appearance."""
    names = dict.fromkeys(result.method for result in self.results)
    return [name for name in names if name is not None]


def runs(study: StudyDirectory, split: str) -> list[Run]:
  """Returns a study's runs: exact families first, raw before distilled.

  Raises:
    InputError: if there are none.
  """
  kinds = data_kinds(study)
  found = [_run(directory, split, kinds) for directory in study.runs()]
  if not found:
    raise InputError(f"{study} has no run directories in it; train a model.")
  exact = {run.about.family for run in found if run.exact}

  def order(run: Run) -> tuple:
    about, distilled = run.about, run.about.data == "distilled"
    return about.family not in exact, about.model, distilled, about.run

  return sorted(found, key=order)


def _run(directory: RunDirectory, split: str, kinds: dict[str, str]) -> Run:
  config, results = directory.config(), directory.results()
  best_step = (directory.finished() or {}).get("best_step")
  exact = any(result.estimator == EXACT for result in results)
  results = [result for result in results if result.split in (None, split)]
  # What a model is scored on are the references, which are raw.
  kinds = dict.fromkeys((result.data for result in results), "raw") | kinds
  model = config.model
  name = config.preset or getattr(model, "target", type(model).__name__)
  about = RunRow(
    directory.name,
    name,
    model.family,
    kinds.get(config.data),
    decoder(model),
    model.prior.family if hasattr(model, "prior") else "",
    "glancing" if config.train.glancing else "",
  )
  return Run(about, directory, config, results, best_step, exact)


def decoder(model: ModelConfig) -> str:
  """Returns how a model's words depend on each other, given its latents."""
  if hasattr(model, "output"):
    return model.output.family
  # Latents at the target's positions, each with a word of its own.
  return FACTORISED if hasattr(model, "prior") else model.family


def data_kinds(study: StudyDirectory) -> dict[str, str]:
  """Returns "raw" or "distilled" by fingerprint of the study's data.

  Those that the distilled ones were made from may be elsewhere.
  """
  kinds = {}
  for folder in study.prepared():
    meta = files.read_json(folder / "meta.json")
    targets = meta["made_from"].get("targets")
    kinds[meta["fingerprint"]] = "distilled" if targets else "raw"
    if targets:
      kinds.setdefault(targets["data"], "raw")
  return kinds


# Rows of models.


def collect(study: StudyDirectory, split: str) -> list[ModelRow]:
  """Returns a row for each run and method; one for a run without methods.

  Speed-ups are over the first run with beam search of four hypotheses.
  """
  found = runs(study, split)
  timed = [run for run in found if run.all(_SPEED)]
  first = next((run for run in found if "beam4" in run.methods), None)
  slow = first and _timed(first, timed)
  sizes = {r.batch_size for run in timed for r in run.all(_SPEED)} - {None}
  rows = []
  for run in found:
    fast = _timed(run, timed)
    for method in run.methods or [None]:
      row = dataclasses.replace(
        _row(run, method),
        split=split,
        megabytes=_megabytes(run),
        parameters=fast.find("parameters").value,
        speeds={n: _speed(fast, method, n, slow) for n in sorted(sizes)},
        device=fast.find(_SPEED, method=method).get("device"),
        speed_up_over=first and first.about.run,
      )
      rows.append(row)
  return rows


def _timed(run: Run, timed: list[Run]) -> Run:
  """The run if it was timed, else a twin that was, which is as fast."""
  twins = [other for other in timed if other.config.model == run.config.model]
  return run if run in twins else [*twins, run][0]


def _speed(run: Run, method: str | None, size: int, slow: Run | None) -> Speed:
  """Speed with a batch size, and over that of another run's beam search."""
  found = run.find(_SPEED, method=method, batch_size=size)
  over = slow and slow.find(_SPEED, method="beam4", batch_size=size).value
  ratio = found.value / over if found.value and over else NOT_APPLICABLE
  return Speed(found.value, found.get("lowest"), found.get("highest"), ratio)


def _row(run: Run, method: str | None) -> ModelRow:
  """A row of all but speed and size."""
  estimator = EXACT if run.exact else "iwae"
  found = run.find("nats_per_token", estimator=estimator)
  bleu = run.find("bleu", method=method)
  sampled = {
    "K": found.samples,
    "ess": found.get("ess_median"),
    "ess_min": found.get("ess_min"),
    "standard_error": found.get("standard_error"),
    "elbo": run.find("nats_per_token", estimator="elbo").value,
    "lee2020": run.find("lee2020_per_position").value,
  }
  if run.exact:
    sampled = dict.fromkeys(sampled, NOT_APPLICABLE)
  refinements = re.match(r"delta(\d+)", method or "")
  return ModelRow(
    **vars(run.about), **sampled,
    log_likelihood=found.value, estimator=estimator, step=found.step,
    bits_per_byte=found.get("bits_per_byte"), scored_on=found.data,
    sentences=found.get("sentences"), tokens=found.get("tokens"),
    unknown=found.get("unknown"), truncated=found.get("truncated"),
    escaped=found.get("escaped"),
    primary=method == primary_method(run.methods), method=method,
    k=int(refinements[1]) if refinements else NOT_APPLICABLE,
    bleu=_score(bleu), chrf=_score(run.find("chrf", method=method)),
    bound=run.find("bound", method=method).value,
    eq3=run.find("eq3", method=method).value,
    reference_normalizers=", ".join(bleu.get("reference_normalizers") or []),
  )  # fmt: skip


def _score(result: Result) -> Score:
  names = [field.name for field in dataclasses.fields(Score)]
  return Score(**{name: result.get(name) for name in names})


def _megabytes(run: Run) -> float | None:
  """Size on disk of the best checkpoint's parameters."""
  folder = run.directory.checkpoints_path / f"{run.best_step}" / "params"
  sizes = (file.stat().st_size for file in folder.rglob("*") if file.is_file())
  return sum(sizes) / 1e6 or None


def checkpoints(study: StudyDirectory, split: str) -> list[ModelRow]:
  """Returns a row for each checkpoint with a likelihood and a BLEU.

  Not of latent models from before the KL term: nothing has trained their prior
  by then, and their bound is of no model that anyone would use.

  BLEU is that of the method which most checkpoints were translated with.
  """
  rows = []
  for run in runs(study, split):
    counts = {m: len(run.all("bleu", method=m)) for m in run.methods}
    most = [m for m in counts if counts[m] == max(counts.values())]
    start = 0 if run.exact else run.config.train.kl_start
    for step in sorted({result.step or 0 for result in run.results}):
      results = [result for result in run.results if result.step == step]
      at_step = dataclasses.replace(run, results=results, best_step=step)
      row = _row(at_step, primary_method(most))
      if step > start and None not in (row.bleu.value, row.log_likelihood):
        rows.append(dataclasses.replace(row, split=split))
  return rows


def most_checkpoints(study: StudyDirectory, split: str) -> list[ModelRow]:
  """Returns `checkpoints` of the split on which a run has most of them scored.

  Checkpoints are usually scored on dev, so that test stays untouched.
  """
  splits = dict.fromkeys((split, "dev", "test"))
  found = [checkpoints(study, name) for name in splits]
  return max(found, key=lambda rows: max(map(len, by_run(rows)), default=0))


# The known truth, and training.


def compare(study: StudyDirectory, split: str) -> list[TruthRow]:
  """Returns a row for each estimator that is paired with the known truth."""
  pairs = [
    (run.about.run, run.find("difference_to_truth", estimator=estimator))
    for run in runs(study, split)
    for estimator in _ESTIMATORS
  ]
  return [_truth(*pair) for pair in pairs if pair[1].value is not None]


def _truth(run: str, found: Result) -> TruthRow:
  truth, difference = found.get("truth_per_token"), found.get("per_token")
  error = found.get("standard_error")
  return TruthRow(
    run=run, estimator=found.estimator, per_token=truth + difference,
    truth_per_token=truth, difference_per_token=difference,
    difference=found.value, standard_error=error,
    errors=found.value / error if error else None,
  )  # fmt: skip


def training(study: StudyDirectory) -> list[TrainingLog]:
  """Returns what each run logged."""
  logs = []
  for run in runs(study, "test"):
    curves: dict[str, list] = {}
    for row in run.directory.metrics():
      for name, value in row.items():
        curves.setdefault(name, []).append((row["step"], value))
    logs.append(TrainingLog(**vars(run.about), curves=curves))
  return logs
