"""Annealed importance sampling, forwards and in reverse."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latentnmt import likelihood, zoo
from latentnmt.closed_forms import LinearGaussian, Mixture
from latentnmt.errors import InputError
from latentnmt.models import build
from latentnmt.testing import perturb, random_batch
from latentnmt.types import Batch

# Correlated where q is not, too narrow and off the mean.
MODEL = LinearGaussian(2, noise=0.7, coupling=0.6, narrow=0.8, shift=0.4)
SIZES = dict(temperatures=20, chains=4, leapfrog=2)


def _batch(rows, seed=0, size=6):
  rng = np.random.default_rng(seed)
  y = rng.integers(2, 50, (rows, size)).astype(np.int32)
  y[np.arange(size)[None] >= rng.integers(2, size + 1, (rows, 1))] = 0
  return Batch(jnp.asarray(y), jnp.asarray(y))


def _run(model, batch, params=(), key=None, **sizes):
  key = jax.random.key(0) if key is None else key
  params = dict(params)
  estimate = likelihood.annealed(model, params, batch, key, **(SIZES | sizes))
  return jax.tree.map(np.asarray, estimate)


@pytest.fixture(scope="module")
def many():
  """Bounds of 200 sentences, in nats above the truth, and importance's."""
  batch = _batch(200)
  truth = MODEL.log_evidence(batch.y)
  exact = MODEL.posterior_sample(jax.random.key(2), batch.y)
  forward = _run(MODEL, batch)
  reverse = _run(MODEL, batch, key=jax.random.key(1), reverse_from=exact)
  importance = likelihood.log_likelihood(
    MODEL, {}, batch, jax.random.key(0), samples=100
  )
  return SimpleNamespace(
    forward=forward,
    below=forward.given_length - truth,
    above=reverse.given_length - truth,
    reverse=reverse,
    iwae=importance.given_length - truth,
  )


def _is_zero(values):
  error = np.std(values) / len(values) ** 0.5
  return abs(np.mean(values)) < 4 * error


def test_weights_are_unbiased_both_ways(many):
  """Each sentence is one draw of a mean that is one."""
  assert _is_zero(np.expm1(many.below))
  assert _is_zero(np.expm1(-many.above))


def test_truth_is_enclosed_and_the_bounds_are_close(many):
  error = np.std(many.below) / 200**0.5
  assert np.mean(many.below) < 2 * error
  assert np.mean(many.above) > -2 * error
  gap = np.mean(many.above) - np.mean(many.below)
  assert gap < 0.3  # of nats per sentence
  assert np.mean(many.below) > np.mean(many.iwae)  # with 100 samples


def test_acceptance_is_about_what_it_was_adapted_to(many):
  assert 0.7 < np.mean(many.forward.acceptance) <= 1
  assert 0.7 < np.mean(many.reverse.acceptance) <= 1
  for estimate in (many.forward, many.reverse):
    assert np.all((estimate.ess >= 1) & (estimate.ess <= 4))


def test_standard_error_is_the_spread_over_keys():
  batch = _batch(4)
  batch = jax.tree.map(lambda v: jnp.tile(v[:1], (200, 1)), batch)
  estimate = _run(MODEL, batch)
  spread = np.std(estimate.log_likelihood)
  typical = np.sqrt(np.mean(estimate.standard_error**2))
  # Of four chains, whose variance is taken about their own mean.
  assert 0.6 < typical / spread < 1.2


def test_exact_posterior_has_no_variance():
  batch = _batch(3)
  model = Mixture(3, separation=2.0)
  estimate = _run(model, batch)
  np.testing.assert_allclose(
    estimate.given_length, model.log_evidence(batch.y), rtol=1e-5
  )
  np.testing.assert_allclose(estimate.ess, 4, rtol=1e-4)
  np.testing.assert_allclose(estimate.standard_error, 0, atol=1e-4)
  np.testing.assert_allclose(estimate.acceptance, 1, atol=1e-3)


def test_the_length_is_paid_for(many):
  for estimate in (many.forward, many.reverse):
    np.testing.assert_allclose(
      estimate.log_likelihood - estimate.given_length,
      estimate.log_pl,
      rtol=1e-4,
    )
    np.testing.assert_array_equal(estimate.log_pl, -1)


def test_neither_batch_nor_padding_nor_chunk_matters():
  y = np.int32([[5, 6, 7, 1], [0] * 4, [9, 1, 0, 0]])
  keys = jax.random.split(jax.random.key(1), 3)
  together = _run(MODEL, Batch(y, y), key=keys)
  padded = np.pad(y[2:], ((0, 0), (0, 2)))
  alone = _run(MODEL, Batch(padded, padded), key=keys[2:], chunk=3)
  for value, own in zip(
    jax.tree.leaves(together), jax.tree.leaves(alone), strict=True
  ):
    assert value.shape == (3,) and value.dtype == np.float32
    assert value[1] == 0
    np.testing.assert_allclose(value[2], own[0], rtol=1e-4, atol=1e-4)
  np.testing.assert_array_equal(together.num_tokens, [4, 0, 2])


def test_lines_keep_their_order():
  lines = ["3 4", "6", "7 8", "11 12"]
  tokenizer = SimpleNamespace(
    encode=lambda lines: [[int(w) for w in s.split()] + [1] for s in lines]
  )
  estimate = likelihood.annealed_lines(
    *(MODEL, {}, tokenizer, lines, lines, jax.random.key(0)), **SIZES
  )
  np.testing.assert_array_equal(estimate.num_tokens, [3, 2, 3, 3])
  y = np.int32([ids + [0] * (3 - len(ids)) for ids in tokenizer.encode(lines)])
  error = estimate.given_length - MODEL.log_evidence(y)
  assert np.all(np.abs(error) < 6 * estimate.standard_error + 0.5)


@pytest.mark.slow
def test_bounds_enclose_a_transformer():
  """On sentences of its own: y's, and so z's, are exact."""
  sizes = dict(width=16, hidden=16, heads=2)
  config = zoo.config(
    "gauss_tiny",
    vocab_size=200,
    transformer=sizes,
    channels=4,
    encoder_layers=1,
    posterior_layers=1,
    decoder_layers=1,
    length_multiple=4,
  )
  model, key = build(config), jax.random.key(0)
  batch = random_batch(key, vocab_size=200, rows=16)
  params = jax.jit(model.init)(key, batch, key)["params"]
  params = perturb(params, key, 0.1)
  batch, exact = likelihood.simulate(model, params, batch, key)
  forward = _run(model, batch, params)
  reverse = _run(
    model, batch, params, key=jax.random.key(1), reverse_from=exact
  )
  whole = np.asarray(batch.y[:, 0] != 0)
  assert 10 < np.sum(whole)
  assert set(np.sum(np.asarray(batch.y) != 0, axis=1)) <= {0, 4, 8}
  above = (reverse.log_likelihood - forward.log_likelihood)[whole]
  assert np.mean(above) > -2 * np.std(above) / np.sum(whole) ** 0.5
  assert np.sum(above) < 0.1 * np.sum(forward.num_positions)


def test_bad_arguments_are_named():
  batch = _batch(2)
  wrong = jnp.zeros((2, 6, 3))
  for changes, message in (
    (dict(temperatures=1), "temperatures=1"),
    (dict(chains=0), "chains=0"),
    (dict(leapfrog=0), "leapfrog=0"),
    (dict(chunk=0), "chunk=0"),
    (dict(key=jnp.zeros(2, jnp.uint32)), "jax.random.key"),
    (dict(reverse_from=wrong), "2, 6, 3.*2, 6, 2"),
  ):
    with pytest.raises(InputError, match=message):
      _run(MODEL, batch, **changes)
  model = build(zoo.config("transformer_tiny", vocab_size=20))
  with pytest.raises(InputError, match="exact"):
    _run(model, batch)
