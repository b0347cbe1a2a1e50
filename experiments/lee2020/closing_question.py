"""The paper's closing question, as claims that a study can decide.

Likelihood and BLEU disagree across the paper's families. Is it the decoding
distribution, the objective, or inference? Models of exact likelihood, and
models that differ in one of these alone, tell them apart.
"""

from collections.abc import Iterator
from itertools import combinations, product

from latentnmt.experiments.lee2020.claims import Claim, evidence_table, judge
from latentnmt.experiments.report.comparison import (
  Comparison,
  Models,
  both,
  size,
)
from latentnmt.experiments.report.rows import EXACT, ModelRow
from latentnmt.experiments.report.tables import Table


def _exact_decoders(models: Models) -> Iterator[Comparison]:
  rows = [row for row in models.best() if row.decoder and not row.glancing]
  rows = [row for row in rows if row.estimator == EXACT and not row.latents]
  for a, b in combinations(rows, 2):
    if a.decoder != b.decoder and _setting(a) == _setting(b):
      yield models.same_order(a, b)


def _with_latents(models: Models) -> Iterator[Comparison]:
  for a, b in product(models.best(), repeat=2):
    alike = (a.decoder, a.glancing) == (b.decoder, b.glancing)
    if a.latents and not b.latents and alike and _setting(a) == _setting(b):
      yield both(models.likelier(a, b), models.better(b, a))


def _with_glancing(models: Models) -> Iterator[Comparison]:
  for a, b in product(models.best(), repeat=2):
    alike = (a.decoder, a.latents) == (b.decoder, b.latents)
    if a.glancing and not b.glancing and alike and _setting(a) == _setting(b):
      yield both(models.better(a, b), models.likelier(b, a))


def _setting(row: ModelRow) -> tuple:
  """Returns what models that are compared have in common."""
  return row.data, size(row)


CLAIMS = (
  Claim(
    "Among exact maximum-likelihood models, likelihood and BLEU rank the"
    " decoders alike",
    _exact_decoders,
    "two decoders without latents or glancing, of the same data and size",
  ),
  Claim(
    "Latents raise likelihood but not BLEU at a fixed decoder",
    _with_latents,
    "a model with and one without latents, of the same decoder, data and size",
  ),
  Claim(
    "Glancing raises BLEU and lowers likelihood at a fixed decoder",
    _with_glancing,
    "a model with and one without glancing, else of the same kind",
  ),
)


def check(models: Models) -> list[Table]:
  """Returns the verdicts, and what they rest on; see `claims.check`."""
  verdicts, evidence = judge(CLAIMS, models)
  table = Table(
    "The closing question: decoder, objective or inference",
    "no. {number} | claim {claim} | verdict {log_p}"
    " | for which is needed {needs}",
    verdicts,
    [
      "By log p(y given x) per token, the length paid for, and by the best"
      " BLEU of the decodings that were tried.",
      "A comparison is for or against a claim where its 95 % intervals leave"
      " out zero, else open. One of two figures is for a claim where both are,"
      " and against it where one is. That something does not raise BLEU needs"
      " a BLEU below.",
      "With latents log p is a lower bound: where they seem to lower"
      " likelihood, it may be the bound.",
    ],
  )
  return [table, evidence_table("What these verdicts rest on", evidence)]
