"""Property checks for what one brings oneself, and small inputs to try it on.

The library's own tests call these functions too.
"""

from collections.abc import Callable
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


def check_start(
  loss: Callable[[Params], jax.Array], params: Params, key: Key
) -> None:
  """Checks that training can leave the point at which it starts.

  What starts at zero may keep a gradient from other parameters for a step or
  two. What has none at the third step, and would have one at parameters close
  by, never gets one. That is asked of each output of each parameter, the
  entries of its last axis; a quarter of them may be silent by chance.

  Args:
    loss: a scalar; it is not to have other random numbers at every call.
    params: as `init` makes them.
    key: of the parameters close by.

  Raises:
    AssertionError: naming the parameter.
  """
  gradient = jax.jit(jax.grad(loss))
  close_by = gradient(perturb(params, key, 1e-3))
  for _ in range(2):
    params = jax.tree.map(lambda p, g: p - 1e-3 * g, params, gradient(params))
  for (path, found), other in zip(
    jax.tree_util.tree_leaves_with_path(gradient(params)),
    jax.tree.leaves(close_by),
    strict=True,
  ):
    dead = ~_any_but_last(found) & _any_but_last(other)
    name = jax.tree_util.keystr(path)
    assert jnp.mean(dead) <= 0.25, f"{name} never gets a gradient"


def _any_but_last(x: jax.Array) -> jax.Array:
  return jnp.any(x, axis=tuple(range(x.ndim - 1)))


def check_prior(prior: nn.Module, key: Key) -> None:
  """Checks that a Linen module keeps the `Prior` contract.

  That training reaches every parameter (`check_start`). And, with randomly
  perturbed parameters, on sentences of different lengths:
  shapes and dtypes; that padding, of latents and of the source, is invisible;
  that gradients are finite; that draws are zero on padding, depend on the key
  and on nothing else that is random, and have the
  density that `log_prob` says (the score identities E[grad log p] = 0 and
  E[-(z - E z) . grad log p] = dimensions); that this density integrates to
  one (reverse importance sampling); `kl`, where offered, against its Monte
  Carlo estimate; that a source's `cache`, where offered, changes nothing.
  Statistical checks allow five standard errors.

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
  one_twice = np.maximum(np.arange(_DRAWS) - 1, 0)
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
    found = call(method, *args, with_cache)
    same = np.allclose(found, call(method, *args, source), 1e-4, 1e-4)
    assert same, f"{method}: other numbers with a cache"


def _random_source(key: Key) -> Source:
  lengths = jnp.array(_SOURCE_LENGTHS)
  size = max(_SOURCE_LENGTHS)
  states = jax.random.normal(key, (len(lengths), size, _WIDTH))
  return Source(states, length_mask(lengths, size))


def _target_mask(multiple: int):
  return length_mask(jnp.array([2, 1, 1]) * multiple, 2 * multiple)


def _check_log_prob(log_prob_and_score, z, mask, key):
  log_prob, gradient = log_prob_and_score(z)
  assert log_prob.shape == z.shape[:1], f"log_prob: shape {log_prob.shape}"
  assert log_prob.dtype == jnp.float32, f"log_prob: dtype {log_prob.dtype}"
  noise = 1e3 * jax.random.normal(key, z.shape)
  noisy = jnp.where(mask[..., None], z, noise)
  changed, _ = log_prob_and_score(noisy)
  _close(changed, log_prob, "log_prob sees latents on padded positions")
  assert np.isfinite(gradient).all(), "log_prob: gradient is not finite"
  outside = np.asarray(gradient)[~np.asarray(mask)]
  assert not outside.any(), "log_prob: gradient on padded positions"


def _check_padding(call, z, mask, source):
  """A row alone and unpadded has the density it has in the batch."""
  length, size = int(mask[1].sum()), _SOURCE_LENGTHS[1]
  alone = Source(source.states[1:2, :size], source.mask[1:2, :size])
  own = mask[1:2, :length]
  value = call("log_prob", z[1:2, :length], own, alone)[0]
  expected = call("log_prob", z, mask, source)[1]
  _close(value, expected, "log_prob depends on padding")
  value = call("center", own, alone)[0]
  expected = call("center", mask, source)[1, :length]
  _close(value, expected, "center depends on padding")


def _check_draws(draws, center, shape, mask):
  """Of three draws, the first two are from one key."""
  draw, again, other = np.asarray(draws)
  assert draw.shape == shape, f"sample: shape {draw.shape}, not {shape}"
  assert center.shape == shape, f"center: shape {center.shape}, not {shape}"
  real = np.asarray(mask)
  for name, value in (("sample", draw), ("center", np.asarray(center))):
    assert not value[~real].any(), f"{name}: not zero on padded positions"
    assert np.isfinite(value).all(), f"{name}: not finite"
  _close(again, draw, "sample is not a function of its key")
  assert (other[real] != draw[real]).any(), "sample ignores its key"


def _check_density(draws, log_prob_and_score, mask):
  log_prob, score = jax.jit(log_prob_and_score)(draws)
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


def check_bijection(
  bijection: nn.Module, key: Key, *, channels: int | None = None
) -> None:
  """Checks that a Linen module keeps the `Bijection` contract.

  With randomly perturbed parameters, on sentences of different lengths:
  shapes and dtypes; that `forward` and `inverse` undo each other and have
  opposite log-determinants; that the one of `inverse` is that of autodiff's
  Jacobian on the real coordinates of each sentence, which depend on no other
  coordinates; that padding, of latents and of the source, is invisible; and
  that gradients are finite.

  Args:
    bijection: unbound, as it would be given to `FlowPrior`.
    key: of everything random.
    channels: C; by default `bijection.channels` if it has that, else 4.

  Raises:
    AssertionError: saying which property fails.
  """
  channels = channels or getattr(bijection, "channels", 4)
  multiple = getattr(bijection, "length_multiple", 1)

  @jax.jit
  def start(key):
    keys = jax.random.split(key, 4)
    source, far = _random_source(keys[0]), jnp.float32(10)
    seen = source.mask[..., None]
    mask = length_mask(jnp.array([3, 1, 2]) * multiple, 3 * multiple)
    x, noise = jax.random.normal(keys[1], (2, *mask.shape, channels))
    params = bijection.init(keys[2], x, mask, source, method="inverse")
    noisy = jnp.where(mask[..., None], x, 10 * noise)
    noisy_source = source.replace(states=jnp.where(seen, source.states, far))
    clean, noisy = (x, mask, source), (noisy, mask, noisy_source)
    return perturb(params, keys[3]), clean, noisy

  # On the host from here on: each operation on a device is one more program.
  params, clean, noisy = jax.device_get(start(key))

  def call(method, x, mask, source, params=params):
    return bijection.apply(params, x, mask, source, method=method)

  calls = {name: _with_gradient(call, name) for name in ("inverse", "forward")}
  x, mask, source = clean
  for method, other in (("inverse", "forward"), ("forward", "inverse")):
    result = calls[method](params, *clean)
    back = calls[other](params, result[0], mask, source)
    _check_round_trip(method, other, x, mask, result, back)
    _check_unseen(method, mask, result, calls[method](params, *noisy))
  result = calls["inverse"](params, *clean)
  _check_row_alone(call, x, mask, source, result)
  _check_jacobian(call, x, mask, source, result[1])


def _with_gradient(call, method):
  """A program of (params, x, mask, source): call's results and gradient."""

  def total(params, x, mask, source):
    y, log_det = call(method, x, mask, source, params)
    loss = jnp.sum(jnp.where(mask[..., None], y, 0) ** 2) + jnp.sum(log_det)
    return loss, (y, log_det)

  @jax.jit
  def run(params, x, mask, source):
    gradient = jax.grad(total, argnums=(0, 1), has_aux=True)
    (of_params, of_x), results = gradient(params, x, mask, source)
    return *results, of_params, of_x

  return lambda *args: jax.device_get(run(*args))


def _check_round_trip(method, other, x, mask, result, back):
  y, log_det, *_ = result
  assert y.shape == x.shape, f"{method}: shape {y.shape}, not {x.shape}"
  assert log_det.shape == x.shape[:1], f"{method}: log_det {log_det.shape}"
  assert log_det.dtype == jnp.float32, f"{method}: dtype {log_det.dtype}"
  _close(back[0][mask], x[mask], f"{other} does not undo {method}")
  _close(back[1], -log_det, "log-determinants are not each other's minus")


def _check_unseen(method, mask, result, changed):
  """Values and gradients, without and with noise on the padding."""
  message = f"{method} sees padding"
  _close(changed[0][mask], result[0][mask], message)
  _close(changed[1], result[1], message)
  leaves = jax.tree.leaves(changed[2:])
  finite = all(np.isfinite(leaf).all() for leaf in leaves)
  assert finite, f"{method}: gradient is not finite"
  outside = changed[3][~mask]
  assert not outside.any(), f"{method}: gradient on padded positions"


def _check_row_alone(call, x, mask, source, result):
  """A row alone and unpadded becomes what it does in the batch."""
  length, size = int(mask[1].sum()), _SOURCE_LENGTHS[1]
  alone = Source(source.states[1:2, :size], source.mask[1:2, :size])
  inverse = jax.jit(functools.partial(call, "inverse"))
  own = inverse(x[1:2, :length], mask[1:2, :length], alone)
  message = "inverse of a row depends on padding or on other rows"
  _close(own[0][0], result[0][1, :length], message)
  _close(own[1][0], result[1][1], message)


def _check_jacobian(call, x, mask, source, log_det):
  def flat(x_flat):
    return call("inverse", x_flat.reshape(x.shape), mask, source)[0].ravel()

  jacobian = np.asarray(jax.jit(jax.jacrev(flat))(x.ravel()), np.float64)
  row = np.where(mask, np.arange(len(mask))[:, None], -1)
  row = np.repeat(row.ravel(), x.shape[-1])  # of each coordinate
  for b, value in enumerate(log_det):
    own = jacobian[row == b]
    assert not own[:, row != b].any(), "inverse sees other rows or padding"
    _, expected = np.linalg.slogdet(own[:, row == b])
    _close(value, expected, "log-determinant is not that of the Jacobian")


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
