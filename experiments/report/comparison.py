"""Comparisons of models: by likelihood, by BLEU, by both, by speed.

Each says whether the figures speak for what is asked, against it, or leave it
open, by whether a 95 % interval leaves out zero.
"""

from collections.abc import Callable, Iterator
import dataclasses
import itertools

from latentnmt.experiments.report.correlation import FEWEST
from latentnmt.experiments.report.per_sentence import SentenceFigures
from latentnmt.experiments.report.rows import (
  CorrelationRow,
  ModelRow,
  by_run,
)
from latentnmt.metrics import Resampled

FOR, AGAINST, OPEN = "for", "against", "open"
LOG_P, LEE2020 = "log p", "lee2020"  # readings of "log-likelihood"

_SIZES = ("tiny", "small", "base", "large")


@dataclasses.dataclass(frozen=True)
class Comparison:
  """A question about some runs and its answer."""

  subject: str  # the runs, in words
  figures: str  # theirs, or what is missing
  outcome: str  # FOR, AGAINST or OPEN

  def opposite(self) -> "Comparison":
    """Returns the answer to the opposite question."""
    outcome = {FOR: AGAINST, AGAINST: FOR, OPEN: OPEN}[self.outcome]
    return dataclasses.replace(self, outcome=outcome)


@dataclasses.dataclass(frozen=True)
class Models:
  """A study's models, under one reading of "log-likelihood"."""

  rows: list[ModelRow]
  sentences: SentenceFigures  # of the same rows
  correlations: list[CorrelationRow]  # over checkpoints of the same runs
  reading: str = LOG_P  # or LEE2020

  def primary(self, data: str | None = None) -> list[ModelRow]:
    """Returns a row for each run, or for each trained on such data."""
    rows = [row for row in self.rows if row.primary]
    return [row for row in rows if data in (None, row.data)]

  def best(self) -> list[ModelRow]:
    """Returns a row for each run: the decoding with the highest BLEU."""
    runs = by_run(self.rows)
    return [max(rows, key=lambda row: row.bleu.value or 0) for rows in runs]

  def pairs(self, first: str, second: str) -> list[tuple[ModelRow, ModelRow]]:
    """Returns models of two families, alike in training data and size."""
    return [
      (a, b)
      for a, b in itertools.product(self.primary(), repeat=2)
      if (a.family, b.family) == (first, second)
      and (a.data, size(a)) == (b.data, size(b))
    ]

  def twins(self) -> list[tuple[ModelRow, ModelRow]]:
    """Returns models of one preset, trained on raw and on distilled data."""
    pairs = itertools.product(self.primary("raw"), self.primary("distilled"))
    return [(a, b) for a, b in pairs if a.model == b.model]

  def agreements(self, data: str) -> Iterator[CorrelationRow]:
    """Yields correlations over checkpoints of runs trained on such data."""
    other = "lee2020" if self.reading == LOG_P else "iwae"
    for row in self.correlations:
      figure = row.figure.split(" ")[0]
      counts = figure not in ("elbo", other) or row.n < FEWEST
      if row.data == data and counts:
        yield row

  def likelihood(self, row: ModelRow) -> Resampled | None:
    """Returns nats per token, as this reading has them."""
    figures = self.sentences
    figure = figures.lee2020 if self.reading == LEE2020 else figures.log_p
    return figure(row)

  def likelier(self, first: ModelRow, second: ModelRow) -> Comparison:
    """Asks whether the first model has the higher likelihood."""
    return _higher(first, second, self.likelihood, self.reading, 3)

  def better(self, first: ModelRow, second: ModelRow) -> Comparison:
    """Asks whether the first model translates better."""
    return _higher(first, second, self.sentences.bleu, "BLEU", 2)

  def same_order(self, first: ModelRow, second: ModelRow) -> Comparison:
    """Asks whether the likelier of two models translates better."""
    a, b = self.likelier(first, second), self.better(first, second)
    same = FOR if a.outcome == b.outcome else AGAINST
    outcome = OPEN if OPEN in (a.outcome, b.outcome) else same
    return Comparison(a.subject, f"{a.figures}; {b.figures}", outcome)

  def gains_more(self, first: ModelRow, second: ModelRow) -> Comparison:
    """Asks whether refinement adds more to the first model's BLEU.

    From k = 0 to the most refinements that both were translated with.
    """
    steps = self._refinements(first) & self._refinements(second)
    if not {0} < steps:
      lacking = "not both have BLEU at k = 0 and another k"
      return Comparison(f"{first.run} - {second.run}", lacking, OPEN)
    k = max(steps)

    def gain(row: ModelRow) -> Resampled | None:
      ends = [self.sentences.bleu(row, f"delta{n}") for n in (k, 0)]
      return None if None in ends else ends[0] - ends[1]

    found, gains = (
      _higher(first, second, gain, "BLEU", 2),
      (gain(first), gain(second)),
    )
    subject, figures = f"{found.subject}, k = 0 to {k}", found.figures
    if None not in gains:
      figures += ": {:+.2f} and {:+.2f}".format(*(g.value for g in gains))
    return Comparison(subject, figures, found.outcome)

  def _refinements(self, model: ModelRow) -> set[int]:
    rows = [row for row in self.rows if row.run == model.run]
    return {row.k for row in rows if row.method == f"delta{row.k}"}


def size(row: ModelRow) -> str:
  """The size in a preset's name, for example "base"; "" for none."""
  words = row.model.split("_")
  return next((word for word in _SIZES if word in words), "")


def both(first: Comparison, second: Comparison) -> Comparison:
  """Asks whether the answer to both questions is yes."""
  outcomes = {first.outcome, second.outcome}
  outcome = AGAINST if AGAINST in outcomes else OPEN
  outcome = FOR if outcomes == {FOR} else outcome
  figures = f"{first.figures}; {second.subject}: {second.figures}"
  return Comparison(first.subject, figures, outcome)


def rise_together(row: CorrelationRow) -> Comparison:
  """Asks whether likelihood and BLEU rise together over checkpoints."""
  subject = f"{row.run}, checkpoints on {row.split}: {row.n}"
  if row.remark:
    return Comparison(subject, row.remark, OPEN)
  r = row.pearson
  figures = f"Pearson {r.value:+.3f} ({r.low:+.3f} to {r.high:+.3f})"
  return Comparison(subject, figures, _outcome(r.low, r.high, 0.0))


def faster(first: ModelRow, second: ModelRow) -> Comparison:
  """Asks whether one row's slowest repetition beats the other's fastest.

  At the smallest batch that both were measured with.
  """
  subject = " / ".join(f"{row.run} {row.method}" for row in (first, second))
  timed = [
    {n for n, speed in row.speeds.items() if speed.sentences_per_second}
    for row in (first, second)
  ]
  if not (shared := timed[0] & timed[1]):
    return Comparison(subject, "not both are measured at one batch size", OPEN)
  n = min(shared)
  a, b = first.speeds[n], second.speeds[n]
  ratio = f"{a.sentences_per_second / b.sentences_per_second:.2f}"
  unit = f"times as fast, {n} at once"
  if None in (a.slowest, a.fastest, b.slowest, b.fastest):
    return Comparison(subject, f"{ratio} {unit}, range unknown", OPEN)
  low, high = a.slowest / b.fastest, a.fastest / b.slowest
  figures = f"{ratio} ({low:.2f} to {high:.2f}) {unit}"
  return Comparison(subject, figures, _outcome(low, high, 1.0))


def _higher(
  first: ModelRow, second: ModelRow, figure: Callable, name: str, digits: int
) -> Comparison:
  subject, a, b = f"{first.run} - {second.run}", figure(first), figure(second)
  if a is None or b is None:
    pairs = ((first, a), (second, b))
    runs = ", ".join(row.run for row, found in pairs if found is None)
    return Comparison(subject, f"no {name} of {runs}", OPEN)
  value, (low, high) = (a - b).value, (a - b).interval
  numbers = [f"{number:+.{digits}f}" for number in (value, low, high)]
  figures = "{} {} ({} to {})".format(name, *numbers)
  return Comparison(subject, figures, _outcome(low, high, 0.0))


def _outcome(low: float, high: float, null: float) -> str:
  """FOR above the null, AGAINST below it, OPEN for an interval around it."""
  return FOR if low > null else AGAINST if high < null else OPEN
