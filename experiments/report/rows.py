"""Rows of a report: typed records, and the names of their columns.

A field that is None is missing. One that is `NOT_APPLICABLE` has no value that
could be missing: K of an exact likelihood, refinements of beam search.
"""

from collections.abc import Mapping, Sequence
import csv
import dataclasses
import io
from typing import Any

from latentnmt import config

EXACT = "exact"  # the estimator of a likelihood that is no bound

# Families that have a colour, or that a claim is about; there may be others.
AUTOREGRESSIVE = config.AutoregressiveConfig.family
FACTORISED = config.FactorisedConfig.family
CTC = config.CtcConfig.family
DAG = config.DagConfig.family
GAUSSIAN = config.GaussianPriorConfig.family
FLOW = config.FlowPriorConfig.family


class _NotApplicable(str):
  """Prints as an empty cell, and is false as a condition."""


NOT_APPLICABLE = _NotApplicable()
Number = float | int | None | _NotApplicable


# Parts of rows.


@dataclasses.dataclass(frozen=True)
class Interval:
  """A figure with its 95 % interval."""

  value: Number = None
  low: Number = None
  high: Number = None


@dataclasses.dataclass(frozen=True)
class Score(Interval):
  """A score of translations, and what it was computed from."""

  signature: str | None = None  # of sacreBLEU
  step: int | None = None
  truncated: int | None = None  # sources that were cut
  data: str | None = None  # fingerprint of the references


@dataclasses.dataclass(frozen=True)
class Ranked(Interval):
  """A figure and its rank among those of all models, the highest being 1."""

  rank: int | None = None


@dataclasses.dataclass(frozen=True)
class Speed:
  """Sentences per second: median, range, and how many times another's."""

  sentences_per_second: float | None = None
  slowest: float | None = None
  fastest: float | None = None
  speed_up: Number = NOT_APPLICABLE


# Rows. Nats are per token of the corpus, with the length paid for.


@dataclasses.dataclass(frozen=True)
class RunRow:
  """Fields on the run, which every row begins with."""

  run: str  # name of the directory
  model: str = ""  # preset, or class of a model of the user's own
  family: str = ""  # of the configuration; models are grouped by it
  data: str | None = None  # trained on "raw" or on "distilled" text
  decoder: str = ""  # how words depend on each other
  latents: str = ""  # family of the prior; "" for none
  glancing: str = ""  # "glancing" if its decoder was shown words in training


@dataclasses.dataclass(frozen=True)
class ModelRow(RunRow):
  """A checkpoint of a run, as a rule the best, with a decoding method."""

  log_likelihood: float | None = None
  estimator: str | None = None  # "exact" or "iwae"
  K: Number = None  # posterior samples
  ess: Number = None  # effective sample size, median over sentences
  ess_min: Number = None
  standard_error: Number = None  # of the estimator, by sampling z
  elbo: Number = None  # the evidence lower bound
  lee2020: Number = None  # nats per position, the length given
  bits_per_byte: float | None = None
  step: int | None = None  # of the checkpoint
  sentences: int | None = None
  tokens: int | None = None  # with EOS
  unknown: int | None = None  # tokens that the vocabulary lacks
  truncated: int | None = None  # pairs that were cut
  escaped: int | None = None  # sentences that only the escape reaches
  split: str | None = None
  scored_on: str | None = None  # fingerprint of the data
  parameters: int | None = None
  megabytes: float | None = None  # of parameters on disk
  primary: bool = True  # the method that the run is judged by
  method: str | None = None  # None where nothing was translated
  k: Number = NOT_APPLICABLE  # refinements
  bleu: Score = Score()
  chrf: Score = Score()
  bound: float | None = None  # on log p of the model's own translations
  eq3: float | None = None  # the paper's Equation 3 of the same
  reference_normalizers: str = ""
  speeds: Mapping[int, Speed] = dataclasses.field(default_factory=dict)
  device: str | None = None
  speed_up_over: str | None = None  # name of a run


@dataclasses.dataclass(frozen=True)
class CorrelationRow(RunRow):
  """Agreement of likelihood and BLEU over the checkpoints of a run."""

  split: str | None = None
  method: str | None = None
  figure: str = ""  # that stands for the likelihood
  n: int = 0  # checkpoints
  remark: str = ""  # why there are no coefficients
  pearson: Interval = Interval()
  spearman: Interval = Interval()


@dataclasses.dataclass(frozen=True)
class RankingRow(ModelRow):
  """A model among all models, by what can be compared across them."""

  log_p: Ranked = Ranked()  # by `estimator`, here the best that all have
  kl: Number = None
  lee2020: Ranked = Ranked()  # the paper's convention, of exact models, too
  bleu_rank: int | None = None


@dataclasses.dataclass(frozen=True)
class TruthRow:
  """An estimator beside the known log p(y|x)."""

  run: str
  estimator: str
  per_token: float
  truth_per_token: float
  difference_per_token: float
  difference: float  # mean over sentences
  standard_error: float | None  # of that mean
  errors: float | None  # the mean in standard errors


@dataclasses.dataclass(frozen=True)
class TrainingLog(RunRow):
  """Curves of a training: (step, value) pairs by name of the metric."""

  curves: Mapping[str, list] = dataclasses.field(default_factory=dict)


def by_run(rows: Sequence[Any]) -> list[list[Any]]:
  """Returns the rows of each run, in order of first appearance."""
  runs = dict.fromkeys(row.run for row in rows)
  return [[row for row in rows if row.run == run] for run in runs]


# Columns.


def columns(row: Any) -> dict[str, Any]:
  """Returns the values of a row by the names of their columns.

  `bleu.value` and `bleu.low` are named "bleu" and "bleu_low", and
  `speeds[8].slowest` is "slowest_batch8".
  """
  if isinstance(row, Mapping):
    return dict(row)
  found = {}
  for name, value in vars(row).items():
    if dataclasses.is_dataclass(value):
      parts = vars(value).items()
      found |= {f"{name}_{k}".removesuffix("_value"): v for k, v in parts}
    elif isinstance(value, Mapping):
      for size, part in value.items():
        found |= {f"{k}_batch{size}": v for k, v in vars(part).items()}
    else:
      found[name] = value
  return found


def as_csv(rows: Sequence[Any]) -> str:
  """Returns a CSV file of the rows, with every column and digit."""
  lines = [columns(row) for row in rows]
  names = dict.fromkeys(name for line in lines for name in line)
  text = io.StringIO()
  writer = csv.writer(text, lineterminator="\n")
  writer.writerow(names)
  writer.writerows([line.get(name) for name in names] for line in lines)
  return text.getvalue()
