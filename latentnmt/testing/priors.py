"""Checks of the contract of priors."""

import functools

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from latentnmt import distributions
from latentnmt.masks import length_mask, masked_sum
from latentnmt.testing.assertions import (
  assert_array,
  assert_close,
  assert_zero_mean,
  check_start,
)
from latentnmt.testing.inputs import SOURCE_LENGTHS, perturb, random_source
from latentnmt.types import Key, Source

_DRAWS = 4096  # five standard errors are then 8 % of a deviation


def check_prior(prior: nn.Module, key: Key) -> None:
  """Checks that a Linen module keeps the `Prior` contract.

  Training reaches every parameter (`check_start`). And with randomly perturbed
  parameters, on sentences of different lengths:

  * Shapes and dtypes are right, and gradients finite.
  * Padding, of latents and of the source, is invisible.
  * Draws are zero on padding, and are a function of the key.
  * They have the density that `log_prob` says: E[grad log p] = 0 and
    E[-(z - E z) . grad log p] = dimensions (the score identities).
  * That density integrates to one (reverse importance sampling).
  * `kl`, if offered, is its Monte Carlo estimate, and a `cache`, if offered,
    changes nothing.

  Statistical checks allow five standard errors.

  Args:
    prior: unbound, as it would be given to `LatentTransformer`.
    key: of everything random.

  Raises:
    AssertionError: saying which property fails.
  """
  keys = iter(jax.random.split(key, 9))
  source = random_source(next(keys))
  mask = _target_mask(prior.length_multiple)  # [B, T]
  z = jax.random.normal(next(keys), (*mask.shape, prior.channels))
  init = jax.jit(functools.partial(prior.init, method="log_prob"))
  start = init(next(keys), z, mask, source)
  params = perturb(start, next(keys))

  def loss(params):
    log_prob = prior.apply(params, z, mask, source, method="log_prob")
    return -jnp.sum(log_prob)

  @functools.partial(jax.jit, static_argnums=0)
  def call(method, *args):
    return prior.apply(params, *args, method=method)

  def log_prob_and_score(z):
    log_prob, vjp = jax.vjp(lambda z: call("log_prob", z, mask, source), z)
    return log_prob, vjp(jnp.ones_like(log_prob))[0]

  def draw(key):
    return call("sample", key, mask, source)

  check_start(loss, start, key)
  _check_log_prob(jax.jit(log_prob_and_score), z, mask, next(keys))
  _check_padding(call, z, mask, source)
  one_twice = np.maximum(np.arange(_DRAWS) - 1, 0)  # 0, 0, 1, 2, ...
  draws = jax.random.split(next(keys), _DRAWS)[one_twice]
  draws = jax.jit(jax.vmap(draw))(draws)  # [K, B, T, C]
  _check_draws(draws[:3], call("center", mask, source), z.shape, mask)
  _check_density(draws[1:], jax.vmap(log_prob_and_score), mask)
  if hasattr(prior, "kl"):
    _check_kl(call, z.shape, mask, source, next(keys))
  if hasattr(prior, "precompute"):
    _check_cache(call, z, mask, source)


def _check_cache(call, z, mask, source):
  with_cache = source.replace(cache=call("precompute", source))
  for method, *args in (("log_prob", z, mask), ("center", mask)):
    value, expected = (call(method, *args, s) for s in (with_cache, source))
    assert_close(value, expected, f"{method}: other numbers with a cache")


def _target_mask(multiple: int):
  return length_mask(jnp.array([2, 1, 1]) * multiple, 2 * multiple)


def _check_log_prob(log_prob_and_score, z, mask, key):
  log_prob, gradient = log_prob_and_score(z)
  assert_array("log_prob", log_prob, jnp.float32, len(z))
  noise = 1e3 * jax.random.normal(key, z.shape)  # large, to be noticed
  noisy = jnp.where(mask[..., None], z, noise)
  changed, _ = log_prob_and_score(noisy)
  assert_close(changed, log_prob, "log_prob sees latents on padded positions")
  assert np.isfinite(gradient).all(), "log_prob: gradient is not finite"
  outside = np.asarray(gradient)[~np.asarray(mask)]
  assert not outside.any(), "log_prob: gradient on padded positions"


def _check_padding(call, z, mask, source):
  """Checks that a row alone and unpadded is what it is in the batch."""
  length, size = int(mask[1].sum()), SOURCE_LENGTHS[1]
  alone = Source(source.states[1:2, :size], source.mask[1:2, :size])
  own = mask[1:2, :length]
  value = call("log_prob", z[1:2, :length], own, alone)[0]
  expected = call("log_prob", z, mask, source)[1]
  assert_close(value, expected, "log_prob depends on padding")
  value = call("center", own, alone)[0]
  expected = call("center", mask, source)[1, :length]
  assert_close(value, expected, "center depends on padding")


def _check_draws(draws, center, shape, mask):
  """Checks three draws, of which the first two are from one key."""
  draw, again, other = np.asarray(draws)
  assert draw.shape == shape, f"sample: shape {draw.shape}, not {shape}"
  assert center.shape == shape, f"center: shape {center.shape}, not {shape}"
  real = np.asarray(mask)
  for name, value in (("sample", draw), ("center", np.asarray(center))):
    assert not value[~real].any(), f"{name}: not zero on padded positions"
    assert np.isfinite(value).all(), f"{name}: not finite"
  assert_close(again, draw, "sample is not a function of its key")
  assert (other[real] != draw[real]).any(), "sample ignores its key"


def _check_density(draws, log_prob_and_score, mask):
  """Checks draws against the density, without knowing either in closed form."""
  log_prob, score = jax.jit(log_prob_and_score)(draws)
  mean, std = jnp.mean(draws, axis=0), jnp.std(draws, axis=0)
  assert_zero_mean(
    score, "E[grad log p] is not zero: do sample and log_prob agree?"
  )
  # By parts: E[z_i d log p / dz_i] = -1. It tells whether scales agree.
  centred = draws - mean[None]
  real = mask[None, :, :, None]
  virial = jnp.sum(jnp.where(real, centred * score + 1, 0), axis=(2, 3))
  assert_zero_mean(
    virial, "E[(z - E z) . grad log p] is not minus the dimensions"
  )
  # E[r / p] = 1 of any density r; a narrow one keeps the ratio from exploding.
  std = jnp.where(mask[..., None], 0.7 * std, 1)
  log_narrow = distributions.normal_log_prob(draws, mean[None], std[None])
  log_narrow = jax.vmap(lambda value: masked_sum(value, mask))(log_narrow)
  ratio = jnp.exp(log_narrow - log_prob)
  assert_zero_mean(ratio - 1, "exp(log_prob) does not integrate to one")


def _check_kl(call, shape, mask, source, key):
  key_mean, key_scale, key_noise = jax.random.split(key, 3)
  mean = jax.random.normal(key_mean, shape)
  scale = jnp.exp(0.3 * jax.random.normal(key_scale, shape))
  noise = jax.random.normal(key_noise, (_DRAWS, *shape))
  draws = mean[None] + scale[None] * noise

  def log_ratio(z):
    log_qz = masked_sum(distributions.normal_log_prob(z, mean, scale), mask)
    return log_qz - call("log_prob", z, mask, source)

  kl = call("kl", mean, scale, mask, source)
  estimate = jax.jit(jax.vmap(log_ratio))(draws)
  assert_zero_mean(estimate - kl[None], "kl is not E[log q - log p]")
