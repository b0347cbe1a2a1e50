import math

import numpy as np
import pytest
import sacrebleu
from sacrebleu import significance

from latentnmt import metrics
from latentnmt.errors import InputError

REFERENCES = ["The cat sat on the mat.", "It is raining today, isn't it?"]
HYPOTHESES = ["The cat sat on a mat.", "It is raining now, is it not?"]


@pytest.mark.parametrize(
  ("ours", "theirs"),
  [
    (metrics.bleu, sacrebleu.corpus_bleu),
    (metrics.chrf, sacrebleu.corpus_chrf),
  ],
)
def test_score_is_sacrebleus(ours, theirs):
  score = ours(HYPOTHESES, REFERENCES)
  assert score.value == theirs(HYPOTHESES, [REFERENCES]).score
  assert "nrefs:1" in score.signature
  assert f"version:{sacrebleu.__version__}" in score.signature
  assert score.low is None and score.high is None


@pytest.mark.parametrize("measure", [metrics.bleu, metrics.chrf])
def test_interval_surrounds_the_score_and_repeats(measure):
  lines = [f"a sentence with the number {i} in it" for i in range(60)]
  hyps = [x if i % 3 else "some other words" for i, x in enumerate(lines)]
  score = measure(hyps, lines, resamples=100)
  assert score.low < score.value < score.high
  assert score == measure(hyps, lines, resamples=100)
  assert "bs:100" in score.signature


def test_bleu_of_copies_is_100_and_of_strangers_0():
  assert metrics.bleu(REFERENCES, REFERENCES).value == pytest.approx(100)
  zero = metrics.bleu(["x"] * 4, ["y z"] * 4, resamples=20)
  assert (zero.value, zero.low, zero.high) == (0, 0, 0)


def test_chrf_has_an_interval_where_some_resamples_score_zero():
  score = metrics.chrf(["abcdef", "x"], ["abcdef", "y"], resamples=50)
  assert score.low < score.value < score.high


def test_bad_input_names_both_counts():
  with pytest.raises(InputError, match="1 hypotheses for 2 references"):
    metrics.bleu(HYPOTHESES[:1], REFERENCES)
  with pytest.raises(InputError, match="no hypotheses"):
    metrics.bleu([], [])


def test_per_token_is_a_ratio_of_sums():
  nats, tokens = np.float32([-10, -2]), np.float32([5, 2])
  assert metrics.per_token(nats, tokens) == pytest.approx(-12 / 7)
  assert metrics.per_sentence(nats) == pytest.approx(-6)


def test_bits_per_byte_counts_utf8():
  # Three bytes ("ü" takes two), one nat each.
  value = metrics.bits_per_byte(np.float32([-3.0]), ["üb"])
  assert value == pytest.approx(1 / math.log(2))


def test_mean_difference_pairs_sentences():
  rng = np.random.default_rng(0)
  truth = rng.normal(-30, 10, size=400)
  mean, error = metrics.mean_difference(
    truth + rng.normal(0.5, 1, size=400), truth
  )
  assert abs(mean - 0.5) < 4 * error
  assert error == pytest.approx(1 / 20, rel=0.2)
  assert math.isnan(metrics.mean_difference([1.0], [0.0])[1])


# Bootstrap.


def _systems():
  rng = np.random.default_rng(0)
  words = "a b c d e f g h".split()
  references = [" ".join(rng.choice(words, 8)) for _ in range(60)]

  def spoil(share):
    return [
      " ".join(rng.choice(words) if rng.random() < share else w for w in r)
      for r in map(str.split, references)
    ]

  return references, spoil(0.1), spoil(0.2)


def test_resamples_are_those_of_sacrebleus_paired_bootstrap(monkeypatch):
  monkeypatch.delenv("SACREBLEU_SEED", raising=False)
  references, *systems = _systems()
  ours = [metrics.resampled_bleu(s, references, resamples=50) for s in systems]
  test = significance.PairedTest(
    list(zip("ab", systems, strict=True)),
    {"BLEU": sacrebleu.BLEU(force=True)},
    [references],
    test_type="bs",
    n_samples=50,
  )
  theirs = test()[1]["BLEU"]
  for mine, result in zip(ours, theirs, strict=True):
    assert mine.value == pytest.approx(result.score)
    mean, radius = significance.estimate_ci(mine.draws)
    np.testing.assert_allclose([mean, radius], [result.mean, result.ci], 1e-5)
  difference = ours[1] - ours[0]
  size = np.abs(difference.draws)
  beyond = np.sum(size - size.mean() > abs(difference.value))
  assert theirs[1].p_value == pytest.approx((beyond + 1) / 51)
  low, high = difference.interval
  assert low < difference.value < high < 0, "twice as many words are spoilt"


def test_resampled_bleu_of_nothing_right():
  found = metrics.resampled_bleu(["", "x"], ["y z", "y"], resamples=5)
  assert found.value == 0 and not found.draws.any()
  with pytest.raises(InputError, match="1 hypotheses for 2 references"):
    metrics.resampled_bleu(["x"], ["y", "z"])


def test_interval_of_a_ratio_is_as_wide_as_theory_has_it():
  rng = np.random.default_rng(0)
  tokens = rng.integers(5, 30, size=2000)
  nats = -2 * tokens + rng.normal(0, 3, size=2000)
  found = metrics.resampled_ratio(nats, tokens)
  assert found.value == pytest.approx(metrics.per_token(nats, tokens))
  low, high = found.interval
  error = np.std(nats - found.value * tokens) / (2000**0.5 * tokens.mean())
  assert high - low == pytest.approx(2 * 1.96 * error, rel=0.1)
  assert low < found.value < high


def test_what_all_sentences_share_is_no_uncertainty():
  rng = np.random.default_rng(0)
  tokens = rng.integers(5, 30, size=100)
  nats = rng.normal(-50, 20, size=100)
  better = metrics.resampled_ratio(nats + 0.1 * tokens, tokens)
  difference = better - metrics.resampled_ratio(nats, tokens)
  np.testing.assert_allclose(difference.interval, [0.1, 0.1])
