"""Checks of the contract of bijections."""

import functools

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from latentnmt.masks import length_mask
from latentnmt.testing.assertions import assert_array, assert_close
from latentnmt.testing.inputs import SOURCE_LENGTHS, perturb, random_source
from latentnmt.types import Key, Source


def check_bijection(
  bijection: nn.Module, key: Key, *, channels: int | None = None
) -> None:
  """Checks that a Linen module keeps the `Bijection` contract.

  With randomly perturbed parameters, on sentences of different lengths:

  * Shapes and dtypes are right, and gradients finite.
  * `forward` and `inverse` undo each other, with opposite log-determinants.
  * The one of `inverse` is that of autodiff's Jacobian on the real coordinates
    of each sentence, which depend on no other coordinates.
  * Padding, of latents and of the source, is invisible.

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
    source, far = random_source(keys[0]), jnp.float32(10)  # what padding is
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
  """Returns a program of (params, x, mask, source): results and gradient."""

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
  assert_array(f"{method}: log_det", log_det, jnp.float32, len(x))
  assert_close(back[0][mask], x[mask], f"{other} does not undo {method}")
  assert_close(back[1], -log_det, "log-determinants are not each other's minus")


def _check_unseen(method, mask, result, changed):
  """Compares values and gradients without and with noise on padding."""
  message = f"{method} sees padding"
  assert_close(changed[0][mask], result[0][mask], message)
  assert_close(changed[1], result[1], message)
  leaves = jax.tree.leaves(changed[2:])
  finite = all(np.isfinite(leaf).all() for leaf in leaves)
  assert finite, f"{method}: gradient is not finite"
  outside = changed[3][~mask]
  assert not outside.any(), f"{method}: gradient on padded positions"


def _check_row_alone(call, x, mask, source, result):
  """Checks that a row alone and unpadded becomes what it does in the batch."""
  length, size = int(mask[1].sum()), SOURCE_LENGTHS[1]
  alone = Source(source.states[1:2, :size], source.mask[1:2, :size])
  inverse = jax.jit(functools.partial(call, "inverse"))
  own = inverse(x[1:2, :length], mask[1:2, :length], alone)
  message = "inverse of a row depends on padding or on other rows"
  assert_close(own[0][0], result[0][1, :length], message)
  assert_close(own[1][0], result[1][1], message)


def _check_jacobian(call, x, mask, source, log_det):
  def flat(x_flat):
    return call("inverse", x_flat.reshape(x.shape), mask, source)[0].ravel()

  # All rows of the batch at once: what one row does to another shows too.
  jacobian = np.asarray(jax.jit(jax.jacrev(flat))(x.ravel()), np.float64)
  row = np.where(mask, np.arange(len(mask))[:, None], -1)  # -1 for padding
  row = np.repeat(row.ravel(), x.shape[-1])  # of each coordinate
  for b, value in enumerate(log_det):
    own = jacobian[row == b]
    assert not own[:, row != b].any(), "inverse sees other rows or padding"
    _, expected = np.linalg.slogdet(own[:, row == b])  # in float64
    assert_close(value, expected, "log-determinant is not that of the Jacobian")
