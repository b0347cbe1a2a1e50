import itertools

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from latentnmt import likelihood, zoo
from latentnmt.closed_forms import LinearGaussian, Mixture
from latentnmt.config import LatentConfig, TransformerConfig
from latentnmt.errors import InputError
from latentnmt.keys import fold_in_all, normal_each
from latentnmt.masks import real_mask
from latentnmt.models import build
from latentnmt.types import Batch, Estimate, Terms

CONFIG = LatentConfig(TransformerConfig(vocab_size=50, width=8, heads=2))


def _batch(*sentence_lengths, seed=0, size=None, vocab=50):
  size = size or max(sentence_lengths)
  rng = np.random.default_rng(seed)
  y = np.zeros((len(sentence_lengths), size), np.int32)
  for row, length in zip(y, sentence_lengths, strict=True):
    row[: max(length - 1, 0)] = rng.integers(2, vocab, max(length - 1, 0))
    row[max(length - 1, 0) : length] = 1
  return Batch(x=jnp.asarray(y), y=jnp.asarray(y))


def _run(model, batch, samples=50, chunk=None, key=None):
  key = jax.random.key(0) if key is None else key
  estimate = likelihood.log_likelihood(model, {}, batch, key, samples, chunk)
  return jax.tree.map(np.asarray, estimate)


def _normals(samples, rows, seed=0, spread=(3.0, 1.0, 1.0)):
  rng = np.random.default_rng(seed)
  means = (-30.0, -20.0, -15.0)
  return [
    jnp.float32(rng.normal(mean, scale, size=(samples, rows)))
    for mean, scale in zip(means, spread, strict=True)
  ]


def test_estimators_are_their_formulas():
  log_py, log_pz, log_qz = weights = _normals(20, 3)
  length = np.float32([4, 8, 31])
  w = np.float64(log_py) + np.float64(log_pz) - np.float64(log_qz)
  u = np.float64(log_pz) - np.float64(log_qz)
  np.testing.assert_allclose(
    likelihood.iwae(*weights), special.logsumexp(w, axis=0) - np.log(20), 1e-5
  )
  np.testing.assert_allclose(likelihood.elbo(*weights), w.mean(0), 1e-5)
  np.testing.assert_allclose(
    likelihood.reconstruction(*weights), np.float64(log_py).mean(0), 1e-5
  )
  # Facts of the public code: softmax over K of the mean over positions.
  share = special.softmax(u / length, axis=0)
  published = np.log((share * np.exp(np.float64(log_py) / length)).sum(0))
  np.testing.assert_allclose(
    likelihood.lee2020(*weights, jnp.asarray(length)), published * length, 1e-5
  )
  share = special.softmax(w, axis=0)
  np.testing.assert_allclose(
    likelihood.effective_sample_size(*weights), 1 / (share**2).sum(0), 1e-4
  )


@pytest.mark.parametrize("samples", [1, 8, 21])
def test_sweep_is_the_bound_of_each_group(samples):
  weights = _normals(samples, 3)
  log_weights = sum(
    np.float64(w) * sign for w, sign in zip(weights, (1, 1, -1), strict=True)
  )
  bounds = likelihood.sweep(*weights)
  sizes = likelihood.sweep_sizes(samples)
  assert sizes == {1: [1], 8: [8, 4, 2, 1], 21: [21, 10, 5, 2, 1]}[samples]
  for bound, size in zip(bounds.T, sizes, strict=True):
    groups = np.split(log_weights[: samples // size * size], samples // size)
    expected = [special.logsumexp(g, axis=0) - np.log(size) for g in groups]
    np.testing.assert_allclose(bound, np.mean(expected, axis=0), rtol=1e-5)
  np.testing.assert_allclose(bounds[:, 0], likelihood.iwae(*weights), 1e-6)
  np.testing.assert_allclose(bounds[:, -1], likelihood.elbo(*weights), 1e-6)


@pytest.mark.parametrize("power", [0.2, 0.5, 1.0])
def test_a_power_law_is_extrapolated_to_its_limit(power):
  limits, gaps = np.float32([-20, -50, -7]), np.float32([9, 4, 1])
  sizes = np.float32(likelihood.sweep_sizes(1024))
  bounds = limits[:, None] - gaps[:, None] * sizes[None] ** -power
  np.testing.assert_allclose(likelihood.extrapolate(bounds), limits, 1e-3)


def test_extrapolation_leaves_what_is_exact_and_takes_enough_samples():
  bounds = np.full((3, 5), -20, np.float32)
  np.testing.assert_array_equal(likelihood.extrapolate(bounds), -20)
  # A gap that grows with K is noise.
  noisy = bounds - np.float32([[1.0, 0.5, 0, 0, 0]])
  assert np.all(np.abs(likelihood.extrapolate(noisy) + 21) <= 0.5)
  with pytest.raises(InputError, match="samples=8"):
    likelihood.extrapolate(bounds[:, :3])


def test_one_sample_gives_bound_and_reconstruction():
  weights = _normals(1, 5)
  length = jnp.float32([1, 2, 3, 17, 40])
  np.testing.assert_allclose(
    likelihood.lee2020(*weights, length),
    likelihood.reconstruction(*weights),
    rtol=1e-6,
  )
  np.testing.assert_array_equal(
    likelihood.iwae(*weights), likelihood.elbo(*weights)
  )
  np.testing.assert_array_equal(likelihood.standard_error(*weights), 0)
  np.testing.assert_array_equal(likelihood.effective_sample_size(*weights), 1)


def test_lee2020_of_one_position_is_self_normalised_sampling():
  log_py, log_pz, log_qz = weights = _normals(30, 1)
  expected = special.logsumexp(log_py, b=special.softmax(log_pz - log_qz))
  value = likelihood.lee2020(*weights, jnp.ones(1))
  np.testing.assert_allclose(value[0], expected, rtol=1e-5)


def test_standard_error_is_that_of_a_bootstrap():
  weights = _normals(500, 3, spread=(0.3, 0.3, 0.3))
  rng = np.random.default_rng(1)
  draws = []
  for _ in range(300):
    chosen = rng.integers(0, 500, size=500)
    draws.append(likelihood.iwae(*(w[chosen] for w in weights)))
  np.testing.assert_allclose(
    likelihood.standard_error(*weights), np.std(draws, axis=0), rtol=0.2
  )


@pytest.mark.parametrize("samples", [1, 7, 100])
def test_effective_sample_size_is_between_one_and_all(samples):
  one = _normals(samples, 2, spread=(1e5, 1, 1))
  equal = _normals(samples, 2, spread=(0, 0, 0))
  np.testing.assert_allclose(
    likelihood.effective_sample_size(*one), 1, atol=1e-3
  )
  assert np.all(likelihood.effective_sample_size(*one) >= 1)
  np.testing.assert_allclose(
    likelihood.effective_sample_size(*equal), samples, rtol=1e-5
  )
  assert np.all(likelihood.effective_sample_size(*equal) <= samples)


@pytest.mark.parametrize("samples", [1, 3, 40])
@pytest.mark.parametrize(
  "model",
  [
    LinearGaussian(),
    LinearGaussian(noise=0.3),
    Mixture(8, separation=1.0),
    Mixture(8, separation=3.0),
  ],
  ids=["noise1", "noise.3", "apart1", "apart3"],
)
def test_exact_posterior_has_no_variance(model, samples):
  batch = _batch(8, 6, 4, 1)
  estimate = _run(model, batch, samples)
  truth = model.log_evidence(batch.y)
  np.testing.assert_allclose(estimate.given_length, truth, rtol=1e-4)
  bound = estimate.elbo - estimate.log_pl
  np.testing.assert_allclose(bound, truth, rtol=1e-4)
  np.testing.assert_allclose(estimate.ess, samples, rtol=1e-4)
  np.testing.assert_allclose(estimate.standard_error, 0, atol=1e-4)
  np.testing.assert_allclose(
    estimate.reconstruction - estimate.kl, bound, rtol=1e-4
  )


def test_lee2020_is_decided_by_the_divergence_not_by_the_truth():
  """Same data, same truth: only the separation of the clusters differs."""
  batch = _batch(32, 32, 32, 32)
  truth = Mixture(8).log_evidence(batch.y) / 32
  errors = []
  for separation in (0.0, 1.0, 2.0, 4.0):
    estimate = _run(Mixture(8, separation=separation), batch, 400)
    error = estimate.lee2020 / 32 - truth
    np.testing.assert_allclose(error, estimate.kl / 32, atol=0.12)
    errors.append(error.mean())
  assert abs(errors[0]) < 1e-4
  assert errors == sorted(errors) and errors[-1] > 1.5


def test_the_length_is_paid_for_in_every_bound():
  model = LinearGaussian(narrow=0.8, shift=0.2)
  batch = _batch(8, 5, 3)
  # Targets of other lengths than their sources.
  batch = batch.replace(x=jnp.roll(batch.x, 1, axis=0))
  estimate = _run(model, batch, 40)
  np.testing.assert_array_equal(estimate.log_pl, [-6, -4, -3])
  np.testing.assert_allclose(
    estimate.log_likelihood - estimate.given_length, estimate.log_pl, rtol=1e-5
  )
  np.testing.assert_allclose(
    estimate.sweep[:, 0], estimate.log_likelihood, rtol=1e-6
  )
  np.testing.assert_allclose(estimate.sweep[:, -1], estimate.elbo, rtol=1e-5)
  same = _run(model, batch.replace(x=batch.y), 40)
  for name in ("given_length", "reconstruction", "lee2020", "kl", "ess"):
    np.testing.assert_array_equal(getattr(estimate, name), getattr(same, name))


@pytest.mark.parametrize("length", [2, 4, 16, 32])
@pytest.mark.parametrize("q", [(1.0, 0.0), (0.9, 0.1)])
def test_lee2020_tends_to_its_renyi_limit(length, q):
  model = LinearGaussian(channels=1, narrow=q[0], shift=q[1])
  batch = _batch(*[length] * 4, vocab=20)
  y = np.asarray(batch.y)
  mean, true_scale = (np.asarray(v) for v in model.best_posterior(y))
  scale, moved = true_scale * q[0], mean + q[1] * true_scale
  order = 1 - 1 / length
  to_prior = _renyi(order, moved, scale, np.zeros(1), np.ones(1))
  to_posterior = _renyi(order, moved, scale, mean, true_scale)
  limit = model.log_evidence(y) + np.sum(to_prior - to_posterior, axis=(1, 2))
  estimate = _run(model, batch, 20_000)
  np.testing.assert_allclose(
    estimate.lee2020 / length, limit / length, atol=0.02
  )
  assert np.all(estimate.lee2020 > model.log_evidence(y))


def _renyi(order, mean, scale, mean2, scale2):
  """Renyi divergence of two normal distributions, elementwise."""
  mixed = order * scale2**2 + (1 - order) * scale**2
  return (
    np.log(scale2 / scale)
    + np.log(scale2**2 / mixed) / (2 * (order - 1))
    + order * (mean - mean2) ** 2 / (2 * mixed)
  )


def test_bounds_are_ordered_and_iwae_closes_the_gap():
  model = LinearGaussian(narrow=0.9, shift=0.15)
  batch = _batch(*[12] * 64)
  truth = model.log_evidence(batch.y)
  gaps = []
  for samples in (1, 20, 1000):
    estimate = _run(model, batch, samples)
    gaps.append(np.mean(truth - estimate.given_length))
    assert np.all(estimate.elbo <= estimate.log_likelihood + 1e-4)
  assert gaps == sorted(gaps, reverse=True)
  assert 0 < gaps[-1] < 0.2 * gaps[0]


def test_error_stays_within_its_standard_error():
  model = LinearGaussian(narrow=1.1, shift=0.05)
  batch = _batch(*[6] * 32)
  estimate = _run(model, batch, 1000)
  error = estimate.given_length - model.log_evidence(batch.y)
  z = error / estimate.standard_error
  assert 0.6 < np.sqrt(np.mean(z**2)) < 1.5


@pytest.mark.parametrize("chunk", [1, 3, 7, 20, 1000])
def test_chunks_do_not_change_the_result(chunk):
  model = LinearGaussian(narrow=0.8, shift=0.2)
  batch = _batch(8, 5, 3)
  whole = _run(model, batch, 20, chunk=20)
  parts = _run(model, batch, 20, chunk=chunk)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
    whole,
    parts,
  )


def test_one_key_is_folded_into_a_key_for_each_sentence():
  model = LinearGaussian(narrow=0.8)
  batch = _batch(8, 5, 3)
  keys = jax.vmap(jax.random.fold_in, (None, 0))(
    jax.random.key(3), jnp.arange(3)
  )
  one = _run(model, batch, key=jax.random.key(3))
  each = _run(model, batch, key=keys)
  jax.tree.map(np.testing.assert_array_equal, one, each)


def test_other_sentences_and_padding_do_not_matter():
  model = LinearGaussian(narrow=0.8, shift=0.1)
  batch = _batch(8, 5, 3)
  keys = jax.random.split(jax.random.key(1), 3)
  together = _run(model, batch, key=keys)
  for b in range(3):
    y = jnp.pad(batch.y[b : b + 1], ((0, 1), (0, 4)))
    both = jnp.stack([keys[b], keys[0]])
    alone = _run(model, Batch(y, y), key=both)
    jax.tree.map(
      lambda a, t, b=b: np.testing.assert_allclose(a[0], t[b], rtol=1e-5),
      alone,
      together,
    )


def test_samples_extend_each_other():
  """The first samples of a larger K are those of a smaller one."""
  key = jax.random.split(jax.random.key(0), 2)
  short = normal_each(key, (2, 3, 5))
  long = normal_each(key, (2, 6, 5))
  np.testing.assert_array_equal(short, long[:, :3])
  many = np.concatenate(
    [normal_each(fold_in_all(key, k), (2, 6, 5)).ravel() for k in range(100)]
  )
  assert len(set(many)) == many.size
  assert stats.kstest(many, "norm").pvalue > 1e-3


def test_rows_of_padding_give_zeros():
  estimate = _run(LinearGaussian(), _batch(4, 0, 2, 0))
  for value in jax.tree.leaves(estimate):
    assert value.shape[0] == 4 and value.dtype == np.float32
    np.testing.assert_array_equal(value[[1, 3]], 0)
  np.testing.assert_array_equal(estimate.num_tokens, [4, 0, 2, 0])
  np.testing.assert_array_equal(estimate.log_pl, [-1, 0, -1, 0])


def test_appended_eos_are_positions_but_no_tokens():
  y = jnp.int32([[5, 6, 1, 1, 1, 1]])
  estimate = _run(LinearGaussian(), Batch(y, y))
  assert estimate.num_positions == [6] and estimate.num_tokens == [3]
  assert np.sum(real_mask(y)) == 3


def test_default_chunk_fits_the_memory_and_is_even():
  sizes = itertools.product([1, 64], [8, 64], [1, 10, 1000])
  for rows, length, samples in sizes:
    chunk = likelihood.default_chunk(CONFIG, rows, length, samples)
    assert 1 <= chunk <= samples
    logits = 4 * chunk * rows * length * CONFIG.transformer.vocab_size
    assert logits < likelihood.CHUNK_BYTES
  large = LatentConfig(TransformerConfig(vocab_size=10**6))
  assert likelihood.default_chunk(large, 64, 64, 1000) == 1
  # Logits are kept where gradients are taken, and else only a part of them.
  found = [likelihood.default_chunk(large, 1, 8, 100, n) for n in (1, 2)]
  assert found[0] == 100 and found[1] * 4 * 8 * 10**6 < likelihood.CHUNK_BYTES


def test_bad_arguments_are_named():
  model, batch = LinearGaussian(), _batch(3, 3)
  for kwargs, message in (
    ({"samples": 0}, "samples=0"),
    ({"chunk": 0}, "chunk=0"),
    ({"key": jax.random.split(jax.random.key(0), 3)}, "3,. keys for 2"),
    ({"key": jnp.zeros(2, jnp.uint32)}, "jax.random.key"),
  ):
    with pytest.raises(InputError, match=message):
      _run(model, batch, **kwargs)


def _tiny(name, **changes):
  sizes = dict(width=16, hidden=16, heads=2)
  changes = dict(transformer=sizes) | changes
  model = build(zoo.config(name, vocab_size=50, **changes))
  batch = _batch(7, 5, 0, 3, size=8)
  key = jax.random.key(0)
  return model, jax.jit(model.init)(key, batch, key)["params"], batch


def test_autoregressive_model_is_exact():
  model, params, batch = _tiny("transformer_tiny")
  estimate = likelihood.log_likelihood(
    model, params, batch, jax.random.key(0), samples=9
  )
  terms = model.apply({"params": params}, batch, jax.random.key(1))
  exact = [estimate.log_likelihood, estimate.elbo, *estimate.sweep.T]
  given = [estimate.given_length, estimate.reconstruction, estimate.lee2020]
  for value in exact + given:
    np.testing.assert_allclose(value, terms.log_py, rtol=1e-5)
  assert estimate.sweep.shape == (4, len(likelihood.sweep_sizes(9)))
  for value in (estimate.kl, estimate.standard_error, estimate.log_pl):
    np.testing.assert_array_equal(value, 0)
  np.testing.assert_array_equal(estimate.ess, [9, 9, 0, 9])
  np.testing.assert_array_equal(estimate.num_tokens, [7, 5, 0, 3])


class Uniform(nn.Module):
  """An exact model that pays for the length apart, by a geometric law."""

  exact = True
  methods = ()

  def __call__(self, batch, key, train=False):
    count = jnp.sum(batch.y > 0, axis=1, dtype=jnp.float32)
    terms = Terms.without_latents(-3 * count, -3 * count, count)
    return terms.replace(log_pl=-np.float32(np.log(2)) * count)


def test_an_exact_model_may_have_a_length_predictor():
  estimate = _run(Uniform(), _batch(4, 2, 0), 8)
  expected = np.float32([4, 2, 0])
  np.testing.assert_allclose(estimate.given_length, -3 * expected)
  for value in (estimate.log_likelihood, estimate.elbo, *estimate.sweep.T):
    paid = -(3 + np.log(2)) * expected
    np.testing.assert_allclose(value, paid, rtol=1e-6)


@pytest.mark.parametrize("multiple", [1, 4])
def test_latent_model_agrees_with_its_terms(multiple):
  """The mean of one-sample bounds is the bound of many samples."""
  model, params, batch = _tiny(
    "gauss_tiny", length_multiple=multiple, channels=4
  )
  estimate = likelihood.log_likelihood(
    model, params, batch, jax.random.key(0), samples=400, chunk=64
  )
  terms = jax.lax.map(
    lambda key: model.apply({"params": params}, batch, key),
    jax.random.split(jax.random.key(1), 400),
  )
  for ours, theirs in (
    (estimate.elbo, terms.elbo),
    (estimate.elbo - estimate.log_pl, terms.given_length),
    (estimate.reconstruction, terms.log_py),
    (estimate.kl, terms.kl),
  ):
    error = 0.01 + 5 * np.std(theirs, axis=0) / 20
    assert np.all(np.abs(ours - np.mean(theirs, axis=0)) < error)
  for name in ("log_pl", "num_tokens", "num_positions"):
    np.testing.assert_allclose(
      getattr(estimate, name), getattr(terms, name)[0], rtol=1e-5
    )
  assert np.all(estimate.log_likelihood >= estimate.elbo - 1e-3)


def test_an_estimate_shows_itself_in_one_line():
  numbers = jnp.array([-2.0, -4.0])
  estimate = Estimate(*[numbers] * 13).replace(num_tokens=jnp.array([1.0, 2.0]))
  shown = "2 sentences, log p(y|x) -6.00 nats, -2.000 a token, ESS -3.0"
  assert repr(estimate) == f"Estimate({shown})"
  jax.jit(lambda e: repr(e) and e.kl)(estimate)
