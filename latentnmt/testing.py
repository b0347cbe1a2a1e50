"""Property checks for priors of one's own, and small inputs to try things on.

The library's own tests call these functions too.
"""

import functools
import math

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from latentnmt import distributions
from latentnmt.masks import length_mask, masked_sum
from latentnmt.types import EOS, PAD, Batch, Key, Params, Source

_WIDTH = 16
_SOURCE_LENGTHS = (5, 3, 2)
_DRAWS = 4096


def random_batch(
  key: Key, *, vocab_size: int = 20, rows: int = 3, length: int = 6
) -> Batch:
  """A batch of random sentences of 2 to `length` tokens, EOS included."""
  key_x, key_y = jax.random.split(key)
  return Batch(
    _random_tokens(key_x, vocab_size, rows, length),
    _random_tokens(key_y, vocab_size, rows, length),
  )


def _random_tokens(key, vocab_size, rows, length):
  key_length, key_token = jax.random.split(key)
  tokens = jax.random.randint(key_token, (rows, length), EOS + 1, vocab_size)
  size = jax.random.randint(key_length, (rows, 1), 2, length + 1)
  position = jnp.arange(length)[None]
  tokens = jnp.where(position == size - 1, EOS, tokens)
  return jnp.where(position < size, tokens, PAD)


def perturb(params: Params, key: Key, scale: float = 0.1) -> Params:
  """Parameters with Gaussian noise on top, so that no zero hides a fault."""
  leaves, treedef = jax.tree.flatten(params)
  keys = jax.random.split(key, len(leaves))
  noisy = [
    leaf + scale * jax.random.normal(key, leaf.shape, leaf.dtype)
    for leaf, key in zip(leaves, keys, strict=True)
  ]
  return jax.tree.unflatten(treedef, noisy)


def check_prior(prior: nn.Module, key: Key) -> None:
  """Checks that a Linen module keeps the `Prior` contract.

  With randomly perturbed parameters, on sentences of different lengths:
  shapes and dtypes; that padding, of latents and of the source, is invisible;
  that gradients are finite; that draws are zero on padding, depend on the key
  and on nothing else that is random, and have the
  density that `log_prob` says (the score identities E[grad log p] = 0 and
  E[-(z - E z) . grad log p] = dimensions); that this density integrates to
  one (reverse importance sampling); and `kl`, where offered, against its
  Monte Carlo estimate. Statistical checks allow five standard errors.

  Args:
    prior: unbound, as it would be given to `LatentTransformer`.
    key: of everything random.

  Raises:
    AssertionError: saying which property fails.
  """
  keys = iter(jax.random.split(key, 9))
  source = _random_source(next(keys))
  mask = _target_mask(prior.length_multiple)
  z = jax.random.normal(next(keys), (*mask.shape, prior.channels))
  params = prior.init(next(keys), z, mask, source, method="log_prob")
  params = perturb(params, next(keys))

  @functools.partial(jax.jit, static_argnums=0)
  def call(method, *args):
    return prior.apply(params, *args, method=method)

  _check_log_prob(call, z, mask, source, next(keys))
  _check_padding(call, z, mask, source)
  _check_draws(call, z.shape, mask, source, next(keys))
  _check_density(call, mask, source, next(keys))
  if hasattr(prior, "kl"):
    _check_kl(call, z.shape, mask, source, next(keys))


def _random_source(key: Key) -> Source:
  lengths = jnp.array(_SOURCE_LENGTHS)
  size = max(_SOURCE_LENGTHS)
  states = jax.random.normal(key, (len(lengths), size, _WIDTH))
  return Source(states, length_mask(lengths, size))


def _target_mask(multiple: int):
  return length_mask(jnp.array([2, 1, 1]) * multiple, 2 * multiple)


def _check_log_prob(call, z, mask, source, key):
  log_prob = call("log_prob", z, mask, source)
  assert log_prob.shape == z.shape[:1], f"log_prob: shape {log_prob.shape}"
  assert log_prob.dtype == jnp.float32, f"log_prob: dtype {log_prob.dtype}"
  noise = 1e3 * jax.random.normal(key, z.shape)
  noisy = jnp.where(mask[..., None], z, noise)
  changed = call("log_prob", noisy, mask, source)
  _close(changed, log_prob, "log_prob sees latents on padded positions")
  gradient = jax.grad(lambda z: jnp.sum(call("log_prob", z, mask, source)))(z)
  assert np.isfinite(gradient).all(), "log_prob: gradient is not finite"
  outside = np.asarray(jnp.where(mask[..., None], 0, gradient))
  assert not outside.any(), "log_prob: gradient on padded positions"


def _check_padding(call, z, mask, source):
  """A row alone and unpadded has the density it has in the batch."""
  log_prob = call("log_prob", z, mask, source)
  center = call("center", mask, source)
  for row, size in enumerate(_SOURCE_LENGTHS):
    length = int(mask[row].sum())
    cut = slice(row, row + 1)
    alone = Source(source.states[cut, :size], source.mask[cut, :size])
    own = mask[cut, :length]
    value = call("log_prob", z[cut, :length], own, alone)
    _close(value[0], log_prob[row], "log_prob depends on padding")
    value = call("center", own, alone)
    _close(value[0], center[row, :length], "center depends on padding")


def _check_draws(call, shape, mask, source, key):
  draw = call("sample", key, mask, source)
  center = call("center", mask, source)
  assert draw.shape == shape, f"sample: shape {draw.shape}, not {shape}"
  assert center.shape == shape, f"center: shape {center.shape}, not {shape}"
  for name, value in (("sample", draw), ("center", center)):
    padded = np.asarray(jnp.where(mask[..., None], 0, value))
    assert not padded.any(), f"{name}: not zero on padded positions"
    assert np.isfinite(value).all(), f"{name}: not finite"
  again = call("sample", key, mask, source)
  _close(again, draw, "sample is not a function of its key")
  other = call("sample", jax.random.fold_in(key, 1), mask, source)
  real = np.asarray(mask)
  assert (other[real] != draw[real]).any(), "sample ignores its key"


def _check_density(call, mask, source, key):
  draw = jax.jit(jax.vmap(lambda key: call("sample", key, mask, source)))
  draws = draw(jax.random.split(key, _DRAWS))  # [K, B, T, C]

  def log_prob_and_score(z):
    log_prob, vjp = jax.vjp(lambda z: call("log_prob", z, mask, source), z)
    return log_prob, vjp(jnp.ones_like(log_prob))[0]

  log_prob, score = jax.jit(jax.vmap(log_prob_and_score))(draws)
  mean, std = jnp.mean(draws, axis=0), jnp.std(draws, axis=0)
  _zero_mean(score, "E[grad log p] is not zero: do sample and log_prob agree?")
  centred = draws - mean[None]
  real = mask[None, :, :, None]
  virial = jnp.sum(jnp.where(real, centred * score + 1, 0), axis=(2, 3))
  _zero_mean(virial, "E[(z - E z) . grad log p] is not minus the dimensions")

  std = jnp.where(mask[..., None], 0.7 * std, 1)
  log_narrow = distributions.normal_log_prob(draws, mean[None], std[None])
  log_narrow = jax.vmap(lambda value: masked_sum(value, mask))(log_narrow)
  ratio = jnp.exp(log_narrow - log_prob)
  _zero_mean(ratio - 1, "exp(log_prob) does not integrate to one")


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
  _zero_mean(estimate - kl[None], "kl is not E[log q - log p]")


def _close(value, expected, message: str):
  np.testing.assert_allclose(
    value, expected, rtol=1e-4, atol=1e-4, err_msg=message
  )


def _zero_mean(draws, message: str):
  """Asserts that the mean over the first axis is within 5 standard errors."""
  draws = np.asarray(draws, np.float64)
  error = draws.std(axis=0) / math.sqrt(len(draws))
  off = np.abs(draws.mean(axis=0)) - 5 * error
  assert (off <= 1e-5).all(), f"{message} (by {off.max():.3g})"
