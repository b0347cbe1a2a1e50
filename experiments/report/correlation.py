"""Agreement of log-likelihood and BLEU across the checkpoints of a run."""

import math

import numpy as np

from latentnmt.experiments.report.rows import (
  NOT_APPLICABLE,
  CorrelationRow,
  Interval,
  ModelRow,
  by_run,
)

FEWEST = 4  # checkpoints; an interval divides by their number less 3

_UNDEFINED = Interval(NOT_APPLICABLE, NOT_APPLICABLE, NOT_APPLICABLE)
_ALMOST_ONE = 1 - 1e-15  # where atanh is still finite


def correlations(points: list[ModelRow]) -> list[CorrelationRow]:
  """Returns a row for each run and figure that stands for its likelihood.

  A run of too few checkpoints has one row only.

  Args:
    points: as `collect.checkpoints` returns them.
  """
  rows = []
  for run in by_run(points):
    samples = f" (K = {run[0].K})" if run[0].K else ""
    figures = {f"{run[0].estimator}{samples}": "log_likelihood"}
    if len(run) >= FEWEST:
      figures |= {"elbo": "elbo", "lee2020": "lee2020"}
    for name, field in figures.items():
      pairs = [(getattr(point, field), point.bleu.value) for point in run]
      if all(isinstance(x, int | float) for x, _ in pairs):
        rows.append(_row(run[0], name, pairs))
  return rows


def _row(point: ModelRow, figure: str, pairs: list) -> CorrelationRow:
  pearson, spearman = correlation(pairs)
  few = len(pairs) < FEWEST
  remark = "too few checkpoints" if few else "one of the two does not vary"
  return CorrelationRow(
    run=point.run, model=point.model, family=point.family, data=point.data,
    split=point.split, method=point.method,
    figure=figure, n=len(pairs), pearson=pearson, spearman=spearman,
    remark=remark if pearson is _UNDEFINED else "",
  )  # fmt: skip


def correlation(pairs: list[tuple[float, float]]) -> tuple[Interval, Interval]:
  """Returns Pearson's and Spearman's coefficients with 95 % intervals.

  The intervals are Fisher's, tanh(atanh r -+ 1.96 s) with s^2 = 1 / (n - 3)
  for Pearson and (1 + r^2 / 2) / (n - 3) for Spearman (Bonett, Wright 2000).
  With fewer than four pairs, or where one side does not vary, none applies.
  """
  from scipy import stats  # takes a second

  x, y = np.array(pairs, np.float64).reshape(-1, 2).T
  if len(x) < FEWEST or np.ptp(x) == 0 or np.ptp(y) == 0:
    return _UNDEFINED, _UNDEFINED
  pearson = float(stats.pearsonr(x, y).statistic)
  spearman = float(stats.spearmanr(x, y).statistic)

  def interval(r: float, factor: float) -> Interval:
    radius = stats.norm.ppf(0.975) * math.sqrt(factor / (len(x) - 3))
    center = math.atanh(max(-_ALMOST_ONE, min(r, _ALMOST_ONE)))
    return Interval(r, math.tanh(center - radius), math.tanh(center + radius))

  return interval(pearson, 1.0), interval(spearman, 1.0 + spearman**2 / 2)
