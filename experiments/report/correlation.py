"""How well log-likelihood and BLEU agree across the checkpoints of a run."""

import math

import numpy as np

FEWEST = 4  # checkpoints; an interval divides by their number less 3

_NAMES = [
  f"{r}{end}" for r in ("pearson", "spearman") for end in ("", "_low", "_high")
]
_ALMOST_ONE = 1 - 1e-15  # where atanh is still finite


def correlations(points: list[dict]) -> list[dict]:
  """A row for each run and figure that stands for its log-likelihood.

  Args:
    points: rows as `results.checkpoints` returns them.

  Returns:
    Rows with "figure", "n", the fields of `correlation` and a "remark"; one
    row only for a run of too few checkpoints.
  """
  rows = []
  for run in dict.fromkeys(point["run"] for point in points):
    mine = [point for point in points if point["run"] == run]
    first = mine[0]
    about = {
      field: first[field]
      for field in ("run", "model", "family", "data", "split", "method")
    }
    names = _figures(first)
    if len(mine) < FEWEST:
      names = dict(list(names.items())[:1])
    for name, field in names.items():
      if all(isinstance(point[field], int | float) for point in mine):
        pairs = [(point[field], point["bleu"]) for point in mine]
        found = correlation(pairs)
        remark = _remark(pairs) if found["pearson"] == "" else ""
        row = {"figure": name, "n": len(mine), "remark": remark}
        rows.append(about | row | found)
  return rows


def _figures(point: dict) -> dict[str, str]:
  """By name, the fields that are set against BLEU, the likelihood first."""
  samples = f" (K = {point['K']})" if point["K"] else ""
  return {
    point["estimator"] + samples: "log_likelihood",
    "elbo": "elbo",
    "lee2020": "lee2020",
  }


def _remark(pairs: list) -> str:
  few = len(pairs) < FEWEST
  return "too few checkpoints" if few else "one of the two does not vary"


def correlation(pairs: list[tuple[float, float]]) -> dict:
  """Pearson's and Spearman's coefficients with 95 % intervals.

  The intervals are Fisher's, tanh(atanh r -+ 1.96 s) with s^2 = 1 / (n - 3)
  for Pearson and (1 + r^2 / 2) / (n - 3) for Spearman (Bonett, Wright 2000).

  Returns:
    "pearson", "pearson_low", "pearson_high", likewise "spearman"; "" for all
    where there are fewer than four pairs or one side does not vary.
  """
  from scipy import stats  # takes a second

  x, y = np.array(pairs, np.float64).reshape(-1, 2).T
  if len(x) < FEWEST or np.ptp(x) == 0 or np.ptp(y) == 0:
    return dict.fromkeys(_NAMES, "")
  pearson = float(stats.pearsonr(x, y).statistic)
  spearman = float(stats.spearmanr(x, y).statistic)
  values = []
  for r, factor in (pearson, 1.0), (spearman, 1.0 + spearman**2 / 2):
    radius = stats.norm.ppf(0.975) * math.sqrt(factor / (len(x) - 3))
    center = math.atanh(max(-_ALMOST_ONE, min(r, _ALMOST_ONE)))
    values += [r, math.tanh(center - radius), math.tanh(center + radius)]
  return dict(zip(_NAMES, values, strict=True))
