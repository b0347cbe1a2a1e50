"""Samples are of the model's own distribution, whatever the family."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sacrebleu

from latentnmt import config as cfg
from latentnmt import decode, models, testing
from latentnmt.decode import Sample
from latentnmt.decode.risk import chrf_matrix
from latentnmt.errors import InputError
from latentnmt.types import EOS, PAD, Batch

KEY = jax.random.key(0)
TRANSFORMER = cfg.TransformerConfig(4, width=16, hidden=24, heads=2)
CTC = cfg.CtcConfig(scale=1.0, extra=1, escape=1e-6)
ONE_PASS = cfg.OnePassConfig(TRANSFORMER, 1, 1, CTC, max_length_difference=1)
LATENT = cfg.SourceLatentConfig(
  TRANSFORMER, 1, 1, 1, CTC, channels=3, prior=cfg.GaussianPriorConfig(1)
)
CONFIGS = {
  "ctc": ONE_PASS,
  "dag": dataclasses.replace(
    ONE_PASS, output=cfg.DagConfig(1.0, 2, heads=2, escape=1e-6)
  ),
  "factorised": dataclasses.replace(ONE_PASS, output=cfg.FactorisedConfig()),
  "autoregressive": cfg.AutoregressiveConfig(TRANSFORMER, 1, 1),
  "ctc_gauss": LATENT,
  "gauss": cfg.LatentConfig(
    TRANSFORMER, 1, 1, 1, channels=3, prior=cfg.GaussianPriorConfig(1)
  ),
}
X = jnp.array([[3, 1, 0], [2, 3, 1], [0, 0, 0]])
COUNT = 8


@functools.cache
def built(name):
  """A model with perturbed parameters."""
  model = models.build(CONFIGS[name])
  params = jax.jit(models.init_params, static_argnums=0)(model, KEY)
  return model, testing.perturb(params, KEY, 0.2)


@functools.cache
def drawn(name):
  model, params = built(name)
  return decode.translate(model, params, X, Sample(COUNT), key=KEY)


@functools.cache
def score(name):
  model, params = built(name)
  apply = jax.jit(model.apply)
  return lambda batch: apply({"params": params}, batch, KEY).elbo


@pytest.mark.parametrize("name", CONFIGS)
def test_samples_are_sentences(name):
  tokens = np.array(drawn(name).tokens)
  assert tokens.shape[:2] == (3, COUNT) and not tokens[2].any()
  ends = np.sum(np.cumsum(tokens[:2] == EOS, axis=-1) > 0, axis=-1)
  assert np.all(ends >= 1)  # each has an EOS
  assert np.all((tokens[:2] == EOS).sum(axis=-1) == 1)
  assert np.all((tokens[:2] != PAD).sum(-1) + ends == tokens.shape[2] + 1)


@pytest.mark.parametrize("name", ["ctc", "dag", "factorised", "autoregressive"])
def test_scores_are_the_models_own_likelihood(name):
  found = drawn(name)
  tokens, scores = np.array(found.tokens), np.array(found.scores)
  assert np.all(scores[:, :-1] >= scores[:, 1:])
  for k in range(COUNT):
    real = np.isfinite(scores[:2, k])
    own = score(name)(Batch(X[:2], jnp.array(tokens[:2, k])))
    np.testing.assert_allclose(scores[:2, k][real], own[real], atol=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_sentence_draws_the_same_alone(name):
  model, params = built(name)
  key = jax.random.fold_in(KEY, 1)[None]
  alone = decode.translate(model, params, X[1:2], Sample(COUNT), key=key)
  size = min(alone.tokens.shape[2], drawn(name).tokens.shape[2])
  both = (
    {tuple(row[:size]) for row in np.array(found)}
    for found in (alone.tokens[0], drawn(name).tokens[1])
  )
  assert next(both) == next(both)


def strings(longest):
  """All strings of words 2 and 3 of up to so many, int32[n, T]."""
  rows = [
    [*row, EOS] + [PAD] * (longest - size)
    for size in range(longest + 1)
    for row in itertools.product((2, 3), repeat=size)
  ]
  return np.array(rows, np.int32)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ctc", "dag", "factorised"])
def test_strings_come_as_often_as_they_should(name):
  model, params = built(name)
  all_strings = strings(4)
  x = jnp.repeat(X[:1, :2], len(all_strings), axis=0)
  probs = np.exp(score(name)(Batch(x, jnp.array(all_strings))))
  x = jnp.repeat(X[:1, :2], 500, axis=0)
  keys = jax.vmap(jax.random.fold_in, (None, 0))(KEY, jnp.arange(500))
  found, _ = decode.sample.samples(model, Sample(COUNT), params, x, keys)
  found = np.array(found).reshape(-1, found.shape[-1])
  rows = [tuple(row[row > EOS]) for row in found]
  counts = np.array([rows.count(tuple(s[s > EOS])) for s in all_strings])
  share, total = counts / len(rows), len(rows)
  error = np.sqrt(probs * (1 - probs) / total)
  assert counts.sum() > 0.9 * total
  assert np.all(np.abs(share - probs) < 4.5 * error + 2 / total)


def test_an_autoregressive_model_draws_what_its_softmax_says():
  model, params = built("autoregressive")
  x = jnp.repeat(X[:1], 1000, axis=0)
  keys = jax.vmap(jax.random.fold_in, (None, 0))(KEY, jnp.arange(1000))
  found, _ = decode.sample.samples(model, Sample(1), params, x, keys)
  context, caches = model.apply({"params": params}, X[:1], 2, 1, method="start")
  history = jnp.arange(2)[None, None, :, None] == 0
  logits, _ = model.apply(
    {"params": params}, jnp.zeros((1, 1), jnp.int32), 0, caches, history,
    context, method="step",
  )  # fmt: skip
  probs = np.array(jax.nn.softmax(logits[0, 0, 1:]))  # PAD is never drawn
  share = np.bincount(np.array(found)[:, 0, 0], minlength=4)[1:] / 1000
  assert np.all(np.abs(share - probs) < 4.5 * np.sqrt(probs / 1000))


def test_names_are_read_back_and_ranges_checked():
  for method in (Sample(4), Sample(2, 0.5), Sample(3, rank="teacher")):
    assert Sample.parse(str(method)) == method
  assert str(Sample(2, 0.5, "teacher")) == "sample2-t0.5-teacher"
  with pytest.raises(InputError, match="count >= 1, temperature above 0"):
    Sample(0)
  with pytest.raises(InputError, match="temperature above 0"):
    Sample(1, 0.0)
  with pytest.raises(InputError, match="rank='best'; valid are 'own'"):
    Sample(rank="best")
  model, params = built("ctc")
  with pytest.raises(InputError, match="needs a teacher"):
    decode.translate(model, params, X, Sample(2, rank="teacher"))


def test_a_teacher_ranks():
  model, params = built("ctc")

  def shorter(x, tokens):
    return -jnp.sum(tokens != PAD, axis=2).astype(jnp.float32)

  found = decode.translate(
    model, params, X, Sample(COUNT, rank="teacher"), score=shorter
  )
  best = np.array(found.tokens)[:2, 0]
  assert np.all((best != PAD).sum(1) == -np.array(found.scores)[:2, 0])
  assert np.all(found.scores[:, 0] >= found.scores[:, 1])


STRINGS = [
  "The house is small.",
  "A house is small .",
  "The home was small.",
  "",
  "é",
  "The house",
]


def test_chrf_is_that_of_sacrebleu():
  chrf = sacrebleu.CHRF()
  expected = [
    [chrf.sentence_score(a, [b]).score / 100 for b in STRINGS] for a in STRINGS
  ]
  np.testing.assert_allclose(chrf_matrix(STRINGS), expected, atol=1e-9)


def test_minimum_risk_counts_what_is_drawn_twice():
  matrix = chrf_matrix(STRINGS)
  assert decode.minimum_risk(STRINGS) == np.argmax(matrix.mean(axis=1))
  samples = [*STRINGS, "é", "é", "é", "é"]
  assert samples[decode.minimum_risk(samples)] == "é"


class Letters:
  """Writes each token as a letter."""

  def encode(self, lines):
    return [[*(ord(c) - ord("a") for c in line), EOS] for line in lines]

  def decode(self, tokens):
    return [
      "".join(chr(ord("a") + t) for t in row if t > EOS) for row in tokens
    ]


@pytest.mark.parametrize("name", ["ctc", "ctc_gauss"])
def test_a_corpus_is_translated_at_minimum_risk(name):
  model, params = built(name)
  method = Sample(COUNT, rank="mbr")
  found = decode.translate_corpus(
    model, params, Letters(), ["d", "", "cd"], method, key=KEY,
    bound=not model.exact,
  )  # fmt: skip
  drawn = decode.translate(
    model, params, X[1:2], method, key=jax.random.fold_in(KEY, 2)[None]
  )
  lines = Letters().decode(np.array(drawn.tokens[0]))
  best = decode.minimum_risk(lines)
  assert found.lines[1] == "" and found.lines[2] == lines[best]
  np.testing.assert_allclose(found.scores[2], drawn.scores[0, best], atol=1e-4)
