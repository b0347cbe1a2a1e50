"""Comparisons of models: by likelihood, by BLEU, by both, by speed.

Each says whether the figures speak for what is asked, against it, or leave it
open, by whether a 95 % interval leaves out zero.
"""

from collections.abc import Callable, Iterator
import dataclasses
import itertools
import re

from latentnmt.experiments.report.collect import FASTEST, SLOWEST, SPEED
from latentnmt.experiments.report.correlation import FEWEST
from latentnmt.experiments.report.per_sentence import Sentences
from latentnmt.metrics import Resampled

FOR, AGAINST, OPEN = "for", "against", "open"
LOG_P, LEE2020 = "log p", "lee2020"
AUTOREGRESSIVE, GAUSS, FLOW = "autoregressive", "Gaussian prior", "flow prior"

_SIZES = ("tiny", "small", "base", "large")


@dataclasses.dataclass(frozen=True)
class Comparison:
  """What some runs say.

  Attributes:
    of: which runs, in words.
    numbers: their figures, or what is missing.
    says: FOR, AGAINST or OPEN.
  """

  of: str
  numbers: str
  says: str


@dataclasses.dataclass(frozen=True)
class Models:
  """A study's models, under one reading of "log-likelihood".

  Attributes:
    rows: as `results.collect` returns them.
    sentences: of the same rows.
    correlations: as `correlation.correlations` returns them.
    reading: LOG_P or LEE2020.
  """

  rows: list[dict]
  sentences: Sentences
  correlations: list[dict]
  reading: str = LOG_P

  def usual(self, data: str | None = None) -> list[dict]:
    """The usual row of each run, or of each that trained on such data."""
    rows = [row for row in self.rows if row["usual"]]
    return [row for row in rows if data in (None, row["data"])]

  def pairs(self, first: str, second: str) -> list[tuple[dict, dict]]:
    """Rows of two families, of the same training data and size."""
    return [
      (a, b)
      for a, b in itertools.product(self.usual(), repeat=2)
      if (a["family"], b["family"]) == (first, second)
      and (a["data"], _size(a)) == (b["data"], _size(b))
    ]

  def twins(self) -> list[tuple[dict, dict]]:
    """Rows of the same preset, trained on raw and on distilled data."""
    raw, distilled = self.usual("raw"), self.usual("distilled")
    return [(a, b) for a in raw for b in distilled if a["model"] == b["model"]]

  def agreements(self, data: str) -> Iterator[dict]:
    """Correlations over checkpoints of runs that trained on such data."""
    other = "lee2020" if self.reading == LOG_P else "iwae"
    for row in self.correlations:
      figure = row["figure"].split(" ")[0]
      meant = figure not in ("elbo", other) or row["n"] < FEWEST
      if row["data"] == data and meant:
        yield row

  def likelihood(self, row: dict) -> Resampled | None:
    """Nats per token, as this reading has them."""
    if self.reading == LEE2020:
      return self.sentences.lee2020(row)
    return self.sentences.log_p(row)

  def likelier(self, first: dict, second: dict) -> Comparison:
    """Whether the first model has the higher likelihood."""
    return _more(first, second, self.likelihood, self.reading, 3)

  def better(self, first: dict, second: dict) -> Comparison:
    """Whether the first model translates better."""
    return _more(first, second, self.sentences.bleu, "BLEU", 2)

  def same_order(self, first: dict, second: dict) -> Comparison:
    """Whether the likelier of two models is the one that translates better."""
    likelihood, bleu = self.likelier(first, second), self.better(first, second)
    numbers = f"{likelihood.numbers}; {bleu.numbers}"
    says = FOR if likelihood.says == bleu.says else AGAINST
    says = OPEN if OPEN in (likelihood.says, bleu.says) else says
    return Comparison(likelihood.of, numbers, says)

  def gains_more(self, first: dict, second: dict) -> Comparison:
    """Whether refinement adds more to the first model's BLEU.

    From k = 0 to the most refinements that both were translated with.
    """
    of = f"{first['run']} - {second['run']}"
    steps = self._refinements(first) & self._refinements(second)
    k = max(steps, default=0)
    if 0 not in steps or k == 0:
      return Comparison(of, "not both have BLEU at k = 0 and another k", OPEN)
    a, b = self._gain(first, k), self._gain(second, k)
    if a is None or b is None:
      return _lacking(of, "translations", (first, a), (second, b))
    numbers = f"BLEU {_told(a - b, 2)}: {a.value:+.2f} and {b.value:+.2f}"
    return Comparison(f"{of}, k = 0 to {k}", numbers, _side(a - b))

  def _refinements(self, model: dict) -> set[int]:
    rows = [row for row in self.rows if row["run"] == model["run"]]
    found = [re.fullmatch(r"delta(\d+)", row["method"] or "") for row in rows]
    return {int(match[1]) for match in found if match}

  def _gain(self, row: dict, k: int) -> Resampled | None:
    first, last = (self.sentences.bleu(row, f"delta{n}") for n in (0, k))
    return None if first is None or last is None else last - first


def _size(row: dict) -> str:
  """The size in a preset's name, for example "base"; "" for none."""
  words = row["model"].split("_")
  return next((word for word in _SIZES if word in words), "")


def opposite(comparison: Comparison) -> Comparison:
  """The same comparison, asked the other way round."""
  says = {FOR: AGAINST, AGAINST: FOR, OPEN: OPEN}[comparison.says]
  return dataclasses.replace(comparison, says=says)


def positive(row: dict) -> Comparison:
  """Whether likelihood and BLEU rise together over a run's checkpoints.

  Args:
    row: as `correlation.correlations` returns them.
  """
  of = f"{row['run']}, checkpoints on {row['split']}: {row['n']}"
  if row["pearson"] == "":
    return Comparison(of, row["remark"], OPEN)
  low, high = row["pearson_low"], row["pearson_high"]
  numbers = f"Pearson {row['pearson']:+.3f} ({low:+.3f} to {high:+.3f})"
  return Comparison(of, numbers, _outside(low, high, 0.0))


def faster(first: dict, second: dict) -> Comparison:
  """Whether one row's slowest repetition beats the other's fastest.

  At the smallest batch that both were measured with.
  """
  rows = first, second
  of = " / ".join(f"{row['run']} {row['method']}" for row in rows)
  sizes = [{f for f in row if SPEED in f and row[f]} for row in rows]
  shared = [int(f.removeprefix(SPEED)) for f in set.intersection(*sizes)]
  if not shared:
    return Comparison(of, "not both are measured at one batch size", OPEN)
  n = min(shared)
  ratio = first[f"{SPEED}{n}"] / second[f"{SPEED}{n}"]
  at = f"times as fast, {n} at once"
  (a_low, a_high), (b_low, b_high) = (
    (row.get(f"{SLOWEST}{n}"), row.get(f"{FASTEST}{n}")) for row in rows
  )
  if None in (a_low, a_high, b_low, b_high):
    return Comparison(of, f"{ratio:.2f} {at}, range unknown", OPEN)
  low, high = a_low / b_high, a_high / b_low
  numbers = f"{ratio:.2f} ({low:.2f} to {high:.2f}) {at}"
  return Comparison(of, numbers, _outside(low, high, 1.0))


def _more(
  first: dict, second: dict, figure: Callable, name: str, digits: int
) -> Comparison:
  of = f"{first['run']} - {second['run']}"
  a, b = figure(first), figure(second)
  if a is None or b is None:
    return _lacking(of, name, (first, a), (second, b))
  return Comparison(of, f"{name} {_told(a - b, digits)}", _side(a - b))


def _lacking(of: str, name: str, *figures) -> Comparison:
  runs = ", ".join(row["run"] for row, figure in figures if figure is None)
  return Comparison(of, f"no {name} of {runs}", OPEN)


def _told(difference: Resampled, digits: int) -> str:
  values = difference.value, *difference.interval
  return "{} ({} to {})".format(*(f"{v:+.{digits}f}" for v in values))


def _side(difference: Resampled) -> str:
  return _outside(*difference.interval, 0.0)


def _outside(low: float, high: float, null: float) -> str:
  """FOR above the null, AGAINST below it, OPEN for an interval around it."""
  return FOR if low > null else AGAINST if high < null else OPEN
