"""The paper's claims, each checked on a study's own results.

`CLAIMS` is what the paper says, each with the comparisons of models that bear
on it. What is about likelihood is judged twice, by log p(y|x) and by `lee2020`,
the figure that the paper most likely reports: so one sees which claims survive.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
import dataclasses
from itertools import combinations, starmap
from math import inf

from latentnmt.errors import InputError
from latentnmt.experiments.report.comparison import (
  AGAINST,
  FOR,
  LEE2020,
  LOG_P,
  OPEN,
  Comparison,
  Models,
  faster,
  rise_together,
)
from latentnmt.experiments.report.rows import (
  AUTOREGRESSIVE,
  FLOW,
  GAUSSIAN,
  ModelRow,
)
from latentnmt.experiments.report.tables import Table


@dataclasses.dataclass(frozen=True)
class Claim:
  """A claim of the paper, and how to check it."""

  text: str
  check: Callable[[Models], Iterable[Comparison]]  # of models that bear on it
  needs: str  # what a study must have for it
  likelihood: bool = False  # is about likelihood, and so has two readings
  exists: bool = False  # says that there are such models, not that all are


def _likeliest_flow(models: Models) -> Iterator[Comparison]:
  """The likeliest flow prior against every other model, of raw data."""

  def value(row: ModelRow) -> float:
    figure = models.likelihood(row)
    return figure.value if figure else -inf

  rows = models.primary("raw")
  flows = [row for row in rows if row.family == FLOW]
  for row in rows:
    if flows and row.family != FLOW:
      yield models.likelier(max(flows, key=value), row)


def _against_autoregressive(models: Models) -> Iterator[Comparison]:
  """Speed of every other family against the first autoregressive model."""
  rows = models.primary("raw")  # what a model is trained on changes no speed
  slow = [row for row in rows if row.family == AUTOREGRESSIVE]
  for row in rows:
    if slow and row.family != AUTOREGRESSIVE:
      yield faster(row, slow[0])


_PAIR = "a Gaussian and a flow prior of the same data and size"
CLAIMS = (
  Claim(
    "Within a family likelihood and BLEU agree: checkpoints, raw data",
    lambda models: map(rise_together, models.agreements("raw")),
    "scored checkpoints of a model of raw data",
    likelihood=True,
  ),
  Claim(
    "With distilled data they are opposed: checkpoints",
    lambda models: (
      rise_together(row).opposite() for row in models.agreements("distilled")
    ),
    "scored checkpoints of a model of distilled data",
    likelihood=True,
  ),
  Claim(
    "Within a family likelihood and BLEU agree: sizes, raw data",
    lambda models: (
      models.same_order(a, b)
      for a, b in combinations(models.primary("raw"), 2)
      if a.family == b.family and a.model != b.model
    ),
    "two sizes of a family, of raw data",
    likelihood=True,
  ),
  Claim(
    "Across families they do not: a likelier model may translate worse",
    lambda models: (
      models.same_order(a, b).opposite()
      for a, b in combinations(models.primary(), 2)
      if a.data == b.data and a.family != b.family
    ),
    "models of two families, of the same data",
    likelihood=True,
    exists=True,
  ),
  Claim(
    "A flow prior has the best likelihood of all, raw data",
    _likeliest_flow,
    "a flow prior and another model, of raw data",
    likelihood=True,
  ),
  Claim(
    "The Gaussian prior translates better than the flow prior",
    lambda models: starmap(models.better, models.pairs(GAUSSIAN, FLOW)),
    _PAIR,
  ),
  Claim(
    "Distillation costs likelihood",
    lambda models: starmap(models.likelier, models.twins()),
    "a model of raw and of distilled data",
    likelihood=True,
  ),
  Claim(
    "Distillation improves non-autoregressive translation",
    lambda models: (
      models.better(distilled, raw)
      for raw, distilled in models.twins()
      if raw.family != AUTOREGRESSIVE
    ),
    "a latent model of raw and of distilled data",
  ),
  Claim(
    "Refinement helps the Gaussian prior more than the flow prior",
    lambda models: starmap(models.gains_more, models.pairs(GAUSSIAN, FLOW)),
    _PAIR,
  ),
  Claim(
    "Non-autoregressive models decode faster than autoregressive ones",
    _against_autoregressive,
    "a latent and an autoregressive model of raw data",
  ),
  Claim(
    "The Gaussian prior decodes faster than the flow prior",
    lambda models: (
      faster(gauss, flow)
      for gauss, flow in models.pairs(GAUSSIAN, FLOW)
      if gauss.data == "raw"
    ),
    f"{_PAIR}, raw",
  ),
)


# From comparisons to verdicts.


@dataclasses.dataclass(frozen=True)
class Verdict:
  """A verdict on a claim, by either reading of likelihood."""

  number: int
  claim: str
  log_p: str
  lee2020: str
  needs: str


@dataclasses.dataclass(frozen=True)
class Evidence(Comparison):
  """A comparison that the verdict on a claim rests on, by some readings."""

  number: int
  by: str


def verdict(claim: Claim, comparisons: list[Comparison]) -> str:
  """Returns in words what the comparisons make of a claim.

  A claim of all models is supported by all comparisons and contradicted by
  one; a claim that there are such models, the other way round.
  """
  found = [comparison.outcome for comparison in comparisons]
  if not found:
    return "undecided"
  counts = [f"{found.count(o)} {o}" for o in (FOR, AGAINST, OPEN) if o in found]
  one, every = (FOR, AGAINST) if claim.exists else (AGAINST, FOR)
  words = {FOR: "supported", AGAINST: "contradicted", OPEN: "undecided"}
  decided = one if one in found else every if {every} == {*found} else OPEN
  return f"{words[decided]}: {', '.join(counts)}"


def check(models: Models) -> list[Table]:
  """Returns two tables: the verdicts, and what they rest on.

  Raises:
    InputError: where models were scored on different data.
  """
  verdicts, evidence = judge(CLAIMS, models)
  return [
    _verdicts(verdicts, models),
    evidence_table("What the findings rest on", evidence),
  ]


def judge(
  claims: Sequence[Claim], models: Models
) -> tuple[list[Verdict], list[Evidence]]:
  """Returns verdicts on claims, and what they rest on; see `check`."""
  _check_data(models.rows)
  verdicts, evidence = [], []
  for number, claim in enumerate(claims, 1):
    words, readings = {LEE2020: ""}, {}
    for reading in (LOG_P, LEE2020) if claim.likelihood else (LOG_P,):
      found = list(claim.check(dataclasses.replace(models, reading=reading)))
      words[reading] = verdict(claim, found)
      for comparison in found:
        readings.setdefault(comparison, []).append(reading)
    needs = "" if readings else claim.needs
    both = words[LOG_P], words[LEE2020]
    verdicts.append(Verdict(number, claim.text, *both, needs))
    for comparison, names in readings.items():
      by = ", ".join(names) if claim.likelihood else ""
      evidence.append(Evidence(**vars(comparison), number=number, by=by))
  return verdicts, evidence


def _check_data(rows: list[ModelRow]) -> None:
  runs = {data: r.run for r in rows for data in (r.scored_on, r.bleu.data)}
  runs.pop(None, None)
  if len(runs) > 1:
    listed = ", ".join(f"{run} on {data}" for data, run in runs.items())
    raise InputError(
      "Models that were scored on different data cannot be compared:"
      f" {listed}; score all on the same."
    )


def _verdicts(rows: list[Verdict], models: Models) -> Table:
  pairs = [f"{a.run} with {b.run}" for a, b in models.pairs(GAUSSIAN, FLOW)]
  sizes = [f"{row.run} {row.ess:.1f}" for row in models.primary() if row.ess]
  exists = [str(n) for n, claim in enumerate(CLAIMS, 1) if claim.exists]
  return Table(
    "Findings of the paper on these results",
    "no. {number} | claim {claim} | verdict {log_p} | by lee2020 {lee2020}"
    " | for which is needed {needs}",
    rows,
    [
      "By log p(y given x) per token, the length paid for, and, where a claim"
      " is about likelihood, again by lee2020, the figure that the paper most"
      " likely reports, which is not a likelihood.",
      "A comparison is for or against a claim where its 95 % interval leaves"
      " out zero, else open. A claim of all models is supported by all of its"
      f" comparisons and contradicted by one; claim {', '.join(exists)}, that"
      " there are such models, is supported by one and contradicted by all.",
      "Gaussian and flow priors are paired by training data and by the size in"
      f" their presets' names: {', '.join(pairs) or 'none here'}.",
      "Of latent models log p is a lower bound, loose where the effective"
      " sample size is near 1: one may lose by its bound. Its median:"
      f" {', '.join(sizes) or 'none here'}.",
    ],
  )


def evidence_table(title: str, rows: list[Evidence]) -> Table:
  """Shows comparisons with their figures."""
  return Table(
    title,
    "no. {number} | by {by} | comparison {subject} | figures (95 %) {figures}"
    " | says {outcome}",
    rows,
    [
      "Likelihood, nats per token, and BLEU: paired bootstrap over sentences,"
      " 1,000 resamples, those of sacreBLEU. No allowance is made for the"
      " number of comparisons, nor for training again with another seed.",
      "Correlation: Fisher's interval, which takes checkpoints for independent."
      " Speed: the ratio of medians, in brackets the slowest repetition over"
      " the other's fastest to the fastest over the other's slowest.",
    ],
  )
