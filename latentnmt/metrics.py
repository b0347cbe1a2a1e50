"""Figures of a corpus: BLEU and chrF of text, nats per token, bits per byte.

The library keeps nats summed over a sentence; dividing by tokens, by sentences
or by bytes happens here and nowhere else.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import json
import math

import numpy as np
import sacrebleu

from latentnmt.errors import InputError

_RESAMPLES = 1000
_SEED = 12345  # sacreBLEU's, unless its environment says another


@dataclasses.dataclass(frozen=True)
class Score:
  """A sacreBLEU score of a corpus.

  Attributes:
    value: the score, 0 to 100.
    low: lower end of the 95 % bootstrap interval; None without resampling.
    high: upper end of it.
    signature: what sacreBLEU says that makes the score reproducible.
  """

  value: float
  low: float | None
  high: float | None
  signature: str


def bleu(
  hypotheses: Sequence[str], references: Sequence[str], *, resamples: int = 0
) -> Score:
  """Computes corpus BLEU of detokenised text (13a), one reference each.

  Args:
    hypotheses: n lines.
    references: n lines.
    resamples: bootstrap resamples for the interval; 0 for none.

  Raises:
    InputError: when the counts differ or there is nothing to score.
  """
  # force: what is detokenised may look tokenised, and would be warned of.
  return _score(sacrebleu.BLEU(force=True), hypotheses, references, resamples)


def chrf(
  hypotheses: Sequence[str], references: Sequence[str], *, resamples: int = 0
) -> Score:
  """Computes corpus chrF2; arguments and errors as for `bleu`."""
  return _score(_CHRF(), hypotheses, references, resamples)


class _CHRF(sacrebleu.CHRF):
  """chrF whose scores are all of type float."""

  # sacreBLEU's are float 0.0 or numpy.float32, and it fails to average over
  # resamples when there are both.
  def _compute_score_from_stats(self, stats):
    score = super()._compute_score_from_stats(stats)
    score.score = float(score.score)
    return score


def _score(metric, hypotheses, references, resamples: int) -> Score:
  """Scores a corpus, with an interval where it is resampled."""
  _check_counts(hypotheses, references)
  score = metric.corpus_score(
    list(hypotheses), [list(references)], n_bootstrap=max(resamples, 1)
  )
  signature = metric.get_signature().format()
  if resamples < 2:  # no interval is asked for
    return Score(score.score, None, None, signature)
  # sacreBLEU states its interval in the printed forms only, and leaves it out
  # where every resample scores zero.
  printed = json.loads(score.format(6, signature=signature, is_json=True))
  center = printed.get("confidence_mean", score.score)
  radius = printed.get("confidence_var", 0.0)
  # It is symmetric about the mean of resamples, and may leave what is possible.
  low, high = max(center - radius, 0.0), min(center + radius, 100.0)
  return Score(score.score, low, high, signature)


def _check_counts(hypotheses, references) -> None:
  if len(hypotheses) != len(references):
    raise InputError(
      f"{len(hypotheses)} hypotheses for {len(references)} references;"
      " translate the same split again."
    )
  if not hypotheses:
    raise InputError("There are no hypotheses to score.")


def per_token(nats, num_tokens) -> float:
  """Returns nats per token: the sum over sentences / the sum of tokens.

  Args:
    nats: float[n], nats per sentence.
    num_tokens: float[n], tokens with EOS, without any EOS appended to it.
  """
  return _total(nats) / _total(num_tokens)


def terms_per_token(sums: Mapping[str, float]) -> dict[str, float]:
  """Returns an objective's terms in nats per token, and their bounds.

  Args:
    sums: `objectives.totals`, or such sums added up over batches.

  Returns:
    "elbo" with the length paid for, "elbo_given_length", and each term.
  """
  names = "log_py", "kl", "kl_standard", "log_pl"
  tokens = max(sums["num_tokens"], 1)  # of a batch of nothing but padding
  nats = {name: per_token(sums[name], tokens) for name in names}
  given = nats["log_py"] - nats["kl"]
  return {"elbo": given + nats["log_pl"], "elbo_given_length": given, **nats}


def per_sentence(nats) -> float:
  """Returns the mean of nats per sentence."""
  return _total(nats) / len(nats)


def bits_per_byte(nats, lines: Sequence[str]) -> float:
  """Returns bits spent on a UTF-8 byte of the references; less is better.

  Args:
    nats: float[n], a log-likelihood in nats per sentence, so negative.
    lines: n reference lines as they stand in the corpus, without line ends.
  """
  num_bytes = sum(len(line.encode()) for line in lines)
  return -_total(nats) / math.log(2.0) / num_bytes  # a bit is log 2 nats


def mean_difference(nats, truth) -> tuple[float, float]:
  """Returns the mean over sentences of nats - truth and its standard error.

  The standard error is over the draw of sentences; noise that an estimator
  adds to each sentence is part of it. It is nan for fewer than two sentences.
  """
  difference = np.asarray(nats, np.float64) - np.asarray(truth, np.float64)
  n = len(difference)
  if n < 2:  # one sentence does not say how sentences vary
    return float(difference.mean()), math.nan
  return float(difference.mean()), float(difference.std(ddof=1) / n**0.5)


def _total(values) -> float:
  # In float64: in float32 a corpus loses digits to the size of its own sum.
  return float(np.sum(np.asarray(values), dtype=np.float64))


# Bootstrap over sentences.


@dataclasses.dataclass(frozen=True)
class Resampled:
  """A figure of a corpus, and of bootstrap resamples of its sentences.

  n sentences are always resampled in the same way, that of sacreBLEU's own
  bootstrap. The difference of two figures of the same sentences is then paired.

  Attributes:
    value: of the corpus itself.
    draws: float64[resamples], of each resample.
  """

  value: float
  draws: np.ndarray

  def __sub__(self, other: "Resampled") -> "Resampled":
    """Returns the difference, paired by sentence."""
    # Draw k of both is of the same sentences, so what makes a sentence hard
    # for both cancels: the interval is much narrower than of two alone.
    return Resampled(self.value - other.value, self.draws - other.draws)

  @property
  def interval(self) -> tuple[float, float]:
    """Returns the ends of the 95 % interval, percentiles 2.5 and 97.5."""
    low, high = np.percentile(self.draws, (2.5, 97.5))
    return float(low), float(high)


def resampled_bleu(
  hypotheses: Sequence[str],
  references: Sequence[str],
  *,
  resamples: int = _RESAMPLES,
) -> Resampled:
  """Computes `bleu` with its resamples.

  sacreBLEU's paired bootstrap gives a p-value, but no interval of the
  difference; these are its resamples, draw by draw.

  Raises:
    InputError: as `bleu`.
  """
  _check_counts(hypotheses, references)
  metric = sacrebleu.BLEU(force=True)
  # BLEU is a function of sums over sentences: count once, add up at each draw.
  scores = [
    metric.corpus_score([hypothesis], [[reference]])
    for hypothesis, reference in zip(hypotheses, references, strict=True)
  ]
  return _resampled(
    [[s.sys_len, s.ref_len, *s.counts, *s.totals] for s in scores],  # [n, 10]
    _bleu_of_sums,
    resamples,
  )


def _bleu_of_sums(sums: np.ndarray) -> float:
  """Computes BLEU of sums of lengths, of matches and of n-grams by order."""
  correct, total = np.split(sums[2:], 2)  # four orders each
  # The defaults of `sacrebleu.BLEU`, of which this is its last step.
  return sacrebleu.BLEU.compute_bleu(
    list(correct), list(total), *map(int, sums[:2]), smooth_method="exp"
  ).score


def resampled_ratio(
  numerators, denominators, *, resamples: int = _RESAMPLES
) -> Resampled:
  """Computes a ratio of sums, such as `per_token`, with its resamples.

  Args:
    numerators: float[n], such as nats per sentence.
    denominators: float[n], such as tokens.
    resamples: how many.
  """
  columns = np.stack([numerators, denominators], axis=1)  # [n, 2]
  return _resampled(columns, lambda sums: float(sums[0] / sums[1]), resamples)


def _resampled(columns, figure, resamples: int) -> Resampled:
  """Computes figure(sums of columns [n, m]) of the corpus and of resamples."""
  columns = np.asarray(columns, np.float64)
  n = len(columns)
  rng = np.random.default_rng(_SEED)  # anew: n sentences, the same draws
  draws = []
  for _ in range(resamples):
    # How often each sentence was drawn; the sums are then one product.
    counts = np.bincount(rng.integers(n, size=n), minlength=n)
    draws.append(figure(counts @ columns))
  return Resampled(figure(columns.sum(0)), np.array(draws))
