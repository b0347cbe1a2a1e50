"""The paper's findings, each checked on a study's own results.

`CLAIMS` is what the paper says, a line each, with a small function that goes
through the models which bear on it. What is about likelihood is judged twice,
by log p(y|x) and by `lee2020`, the figure that the paper most likely reports:
so one sees which findings survive.
"""

from collections.abc import Callable, Iterable, Iterator
import dataclasses
import itertools

from latentnmt.errors import InputError
from latentnmt.experiments.report.comparison import (
  AGAINST,
  AUTOREGRESSIVE,
  FLOW,
  FOR,
  GAUSS,
  LEE2020,
  LOG_P,
  OPEN,
  Comparison,
  Models,
  faster,
  opposite,
  positive,
)
from latentnmt.experiments.report.per_sentence import Sentences
from latentnmt.experiments.report.tables import Table

# The claims, one function each.


def agrees_over_checkpoints(models: Models) -> Iterator[Comparison]:
  """Checkpoints of raw data: more likelihood, more BLEU."""
  return map(positive, models.agreements("raw"))


def opposed_over_checkpoints(models: Models) -> Iterator[Comparison]:
  """Checkpoints of distilled data: more likelihood, less BLEU."""
  for row in models.agreements("distilled"):
    yield opposite(positive(row))


def agrees_over_sizes(models: Models) -> Iterator[Comparison]:
  """Sizes of a family: the likelier model translates better."""
  for a, b in itertools.combinations(models.usual("raw"), 2):
    if a["family"] == b["family"] and a["model"] != b["model"]:
      yield models.same_order(a, b)


def differs_over_families(models: Models) -> Iterator[Comparison]:
  """Models of two families and the same data: the likelier translates worse."""
  for a, b in itertools.combinations(models.usual(), 2):
    if a["data"] == b["data"] and a["family"] != b["family"]:
      yield opposite(models.same_order(a, b))


def flow_is_likeliest(models: Models) -> Iterator[Comparison]:
  """The likeliest flow prior against every other model, of raw data."""
  rows = models.usual("raw")
  flows = [row for row in rows if row["family"] == FLOW]
  figures = [(models.likelihood(row), row) for row in flows]
  scored = [(figure.value, row) for figure, row in figures if figure]
  best = max(scored, key=lambda s: s[0])[1] if scored else next(iter(flows), {})
  for row in rows:
    if best and row["family"] != FLOW:
      yield models.likelier(best, row)


def gauss_translates_better(models: Models) -> Iterator[Comparison]:
  """Gaussian against flow prior."""
  return itertools.starmap(models.better, models.pairs(GAUSS, FLOW))


def distillation_costs_likelihood(models: Models) -> Iterator[Comparison]:
  """Every raw model against its distilled twin."""
  return itertools.starmap(models.likelier, models.twins())


def distillation_gains_bleu(models: Models) -> Iterator[Comparison]:
  """Every distilled non-autoregressive model against its raw twin."""
  for raw, distilled in models.twins():
    if raw["family"] != AUTOREGRESSIVE:
      yield models.better(distilled, raw)


def refinement_helps_gauss_more(models: Models) -> Iterator[Comparison]:
  """What refinement adds to BLEU, of a Gaussian and of a flow prior."""
  return itertools.starmap(models.gains_more, models.pairs(GAUSS, FLOW))


def latent_is_faster(models: Models) -> Iterator[Comparison]:
  """Every non-autoregressive model against the first autoregressive one."""
  rows = models.usual("raw")  # what a model is trained on changes no speed
  exact = [row for row in rows if row["family"] == AUTOREGRESSIVE]
  for row in rows:
    if exact and row["family"] != AUTOREGRESSIVE:
      yield faster(row, exact[0])


def gauss_is_faster(models: Models) -> Iterator[Comparison]:
  """Gaussian against flow prior, of raw data."""
  for gauss, flow in models.pairs(GAUSS, FLOW):
    if gauss["data"] == "raw":
      yield faster(gauss, flow)


@dataclasses.dataclass(frozen=True)
class Claim:
  """A finding of the paper.

  Attributes:
    text: what it says.
    check: compares the models that bear on it.
    needs: what a study is to have for it.
    likelihood: whether it is about likelihood, and so has two readings.
    exists: whether it says that there are such models, not that all are such.
  """

  text: str
  check: Callable[[Models], Iterable[Comparison]]
  needs: str
  likelihood: bool = False
  exists: bool = False


_PAIR = "a Gaussian and a flow prior of the same data and size"
CLAIMS = (
  Claim(
    "Within a family likelihood and BLEU agree: checkpoints, raw data",
    agrees_over_checkpoints,
    "scored checkpoints of a model of raw data",
    likelihood=True,
  ),
  Claim(
    "With distilled data they are opposed: checkpoints",
    opposed_over_checkpoints,
    "scored checkpoints of a model of distilled data",
    likelihood=True,
  ),
  Claim(
    "Within a family likelihood and BLEU agree: sizes, raw data",
    agrees_over_sizes,
    "two sizes of a family, of raw data",
    likelihood=True,
  ),
  Claim(
    "Across families they do not: a likelier model may translate worse",
    differs_over_families,
    "models of two families, of the same data",
    likelihood=True,
    exists=True,
  ),
  Claim(
    "A flow prior has the best likelihood of all, raw data",
    flow_is_likeliest,
    "a flow prior and another model, of raw data",
    likelihood=True,
  ),
  Claim(
    "The Gaussian prior translates better than the flow prior",
    gauss_translates_better,
    _PAIR,
  ),
  Claim(
    "Distillation costs likelihood",
    distillation_costs_likelihood,
    "a model of raw and of distilled data",
    likelihood=True,
  ),
  Claim(
    "Distillation improves non-autoregressive translation",
    distillation_gains_bleu,
    "a latent model of raw and of distilled data",
  ),
  Claim(
    "Refinement helps the Gaussian prior more than the flow prior",
    refinement_helps_gauss_more,
    _PAIR,
  ),
  Claim(
    "Non-autoregressive models decode faster than autoregressive ones",
    latent_is_faster,
    "a latent and an autoregressive model of raw data",
  ),
  Claim(
    "The Gaussian prior decodes faster than the flow prior",
    gauss_is_faster,
    f"{_PAIR}, raw",
  ),
)


# From comparisons to verdicts.


def verdict(claim: Claim, comparisons: list[Comparison]) -> str:
  """What the comparisons make of a claim, in words.

  A claim of all models is supported by all comparisons and contradicted by
  one; a claim that there are such models, the other way round.
  """
  said = [comparison.says for comparison in comparisons]
  if not said:
    return "undecided"
  counts = [f"{said.count(s)} {s}" for s in (FOR, AGAINST, OPEN) if s in said]
  one, every = (FOR, AGAINST) if claim.exists else (AGAINST, FOR)
  words = {FOR: "supported", AGAINST: "contradicted", OPEN: "undecided"}
  decided = one if one in said else every if {every} == {*said} else OPEN
  return f"{words[decided]}: {', '.join(counts)}"


def check(
  rows: list[dict], sentences: Sentences, correlations: list[dict]
) -> list[Table]:
  """Two tables: the verdicts, and what they rest on.

  Args:
    rows: as `results.collect` returns them.
    sentences: of the same rows.
    correlations: as `correlation.correlations` returns them.

  Raises:
    InputError: where models were scored on different data.
  """
  _check_data(rows)
  models = Models(rows, sentences, correlations)
  verdicts, evidence = [], []
  for number, claim in enumerate(CLAIMS, 1):
    line = {"number": str(number), "claim": claim.text, LEE2020: ""}
    readings: dict[Comparison, list[str]] = {}
    for reading in (LOG_P, LEE2020) if claim.likelihood else (LOG_P,):
      found = list(claim.check(dataclasses.replace(models, reading=reading)))
      line[reading] = verdict(claim, found)
      for comparison in found:
        readings.setdefault(comparison, []).append(reading)
    needs = "" if readings else claim.needs
    verdicts.append(line | {"verdict": line[LOG_P], "needs": needs})
    for comparison, names in readings.items():
      by = ", ".join(names) if claim.likelihood else ""
      evidence.append(line | {"by": by} | vars(comparison))
  return [_verdicts(verdicts, models), _evidence(evidence)]


def _check_data(rows: list[dict]) -> None:
  fields = "scored_on", "bleu_data"
  runs = {row.get(field): row["run"] for row in rows for field in fields}
  runs.pop(None, None)
  if len(runs) > 1:
    told = ", ".join(f"{run} on {name}" for name, run in runs.items())
    raise InputError(
      f"Models that were scored on different data cannot be compared: {told};"
      " score all on the same."
    )


def _verdicts(rows: list[dict], models: Models) -> Table:
  pairs = [f"{a['run']} with {b['run']}" for a, b in models.pairs(GAUSS, FLOW)]
  exists = [str(n) for n, claim in enumerate(CLAIMS, 1) if claim.exists]
  return Table(
    "Findings of the paper on these results",
    {
      "no.": "{number}",
      "claim": "{claim}",
      "verdict": "{verdict}",
      "by lee2020": "{lee2020}",
      "for which is needed": "{needs}",
    },
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
      *_looseness(models),
    ],
  )


def _looseness(models: Models) -> list[str]:
  found = [row for row in models.usual() if row["ess"]]
  told = ", ".join(f"{row['run']} {row['ess']:.1f}" for row in found)
  return found and [
    "Of latent models log p is a lower bound, loose where the effective sample"
    f" size is near 1: one may lose by its bound. Its median: {told}."
  ]


def _evidence(rows: list[dict]) -> Table:
  return Table(
    "What the findings rest on",
    {
      "no.": "{number}",
      "by": "{by}",
      "comparison": "{of}",
      "figures (95 %)": "{numbers}",
      "says": "{says}",
    },
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
