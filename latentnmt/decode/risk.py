"""Minimum Bayes risk: the candidate that all others agree with the most."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

_ORDER = 6  # longest n-gram of characters, and the weight of recall, of chrF
_BETA = 2


def minimum_risk(samples: Sequence[str]) -> int:
  """Returns the sample with the highest mean chrF against all samples.

  With exact samples of p(y|x) the mean is an unbiased estimate of the expected
  chrF (Eikema & Aziz 2020). A string drawn twice counts twice.

  Args:
    samples: strings of one sentence.
  """
  counts = Counter(samples)
  strings = list(counts)
  weights = np.array(list(counts.values()), np.float64)
  best = strings[int(np.argmax(chrf_matrix(strings) @ weights))]
  return list(samples).index(best)


def chrf_matrix(strings: Sequence[str]) -> np.ndarray:
  """Returns chrF of each string (row) against each (column), float64[N, N].

  As sacreBLEU has it of one sentence: characters without whitespace, n-grams of
  up to 6, recall counted twice; from 0 to 1.
  """
  texts = ["".join(string.split()) for string in strings]
  precision = np.zeros((len(texts), len(texts)))
  recall, orders = precision.copy(), precision.copy()
  for order in range(1, _ORDER + 1):
    matches, total = _matches(texts, order)
    # An order counts where both strings are long enough to have it.
    both = (total[:, None] > 0) & (total[None] > 0)
    orders += both
    precision += np.where(both, matches / np.maximum(total, 1)[:, None], 0)
    recall += np.where(both, matches / np.maximum(total, 1)[None], 0)
  precision, recall = (
    value / np.maximum(orders, 1) for value in (precision, recall)
  )
  below = _BETA**2 * precision + recall
  above = (1 + _BETA**2) * precision * recall
  return np.where(below > 0, above / np.where(below > 0, below, 1), 0)


def _matches(texts: list[str], order: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns n-grams in common, float64[N, N], and of each string, [N]."""
  grams = [
    Counter(text[i : i + order] for i in range(len(text) - order + 1))
    for text in texts
  ]
  index = {gram: i for i, gram in enumerate(set().union(*grams))}
  counts = np.zeros((len(texts), len(index)))
  for row, own in zip(counts, grams, strict=True):
    row[[index[gram] for gram in own]] = list(own.values())
  common = [np.minimum(row, counts).sum(axis=1) for row in counts]
  return np.stack(common), counts.sum(axis=1)
