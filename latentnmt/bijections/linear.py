"""Maps of the channels at each position: normalisation and rotation."""

from typing import NamedTuple

from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from latentnmt import inference
from latentnmt.bijections.protocol import Mapped
from latentnmt.masks import lengths
from latentnmt.types import Array, Key, Latents, Mask, Nats, Params, Source

# What is trained is log_scale / 3: its steps then count thrice, and the scale
# learns faster than the shift, as in the public code.
_LOG_SCALE_FACTOR = 3.0
_LEAST_VARIANCE = 1e-7  # of less, rounding decides, and scales would explode
_MAX_HEAD_SIZE = 32  # as in the public code


class ActNorm(nn.Module):
  """A shift and scale of each channel: e = (z + shift) exp(3 log_scale).

  Kingma & Dhariwal (2018), 3.1. Where `init` runs through `inverse`, both are
  set such that e has mean 0 and variance 1 in each channel, over the real
  positions of that batch. A channel that is constant there, as all are in a
  batch without real positions, keeps its scale.
  """

  length_multiple = 1

  def forward(self, e: Latents, mask: Mask, source: Source) -> Mapped:
    """Returns z, float32[B, T, C], and log |det dz/de|, float32[B]."""
    zeros = jnp.zeros(e.shape[-1:])
    shift, log_scale = self._shift_log_scale(lambda: (zeros, zeros))
    # Ranks are written out everywhere: nothing is broadcast by accident.
    z = e * jnp.exp(-log_scale)[None, None] - shift[None, None]
    return z, -_per_position(log_scale, mask)

  def inverse(self, z: Latents, mask: Mask, source: Source) -> Mapped:
    """Returns e, float32[B, T, C], and log |det de/dz|, float32[B]."""
    shift, log_scale = self._shift_log_scale(lambda: _whitening(z, mask))
    e = (z + shift[None, None]) * jnp.exp(log_scale)[None, None]
    return e, _per_position(log_scale, mask)

  @nn.compact
  def _shift_log_scale(self, start) -> tuple[Array, Array]:
    """Returns float32[C] each; `init` makes them of `start()`."""
    shift = self.param("shift", lambda key: start()[0])
    factor = np.float32(_LOG_SCALE_FACTOR)
    log_scale = self.param("log_scale", lambda key: start()[1] / factor)
    return shift, factor * log_scale


def _whitening(x: Array, mask: Mask) -> tuple[Array, Array]:
  """Returns shift and log-scale to mean 0 and variance 1 on real positions."""
  real = mask[..., None]
  # A model's own `init` shows no real position: not 0 / 0, the identity.
  count = jnp.maximum(jnp.sum(mask, dtype=jnp.float32), 1.0)
  mean = jnp.sum(jnp.where(real, x, 0.0), axis=(0, 1)) / count
  centred = jnp.where(real, x - mean[None, None], 0.0)
  # Not E[x^2] - E[x]^2, which may be below 0 by rounding.
  variance = jnp.sum(jnp.square(centred), axis=(0, 1)) / count
  varies = variance > _LEAST_VARIANCE
  log_scale = -0.5 * jnp.log(jnp.where(varies, variance, 1.0))
  return -mean, log_scale


def _per_position(log_scale: Array, mask: Mask) -> Nats:
  # Every position is scaled alike: its sum of logs, as often as there are any.
  return lengths(mask).astype(jnp.float32) * jnp.sum(log_scale)


class _Factors(NamedTuple):
  """The factors of n matrices: P as the place of each row of L U, L and U."""

  place: Array  # int32[n, size]
  lower: Array  # float32[n, size, size]
  upper: Array  # float32[n, size, size]
  log_diagonal: Array  # float32[n, size], log |diag U|


class Invertible1x1(nn.Module):
  """Multi-head invertible 1x1 convolution (Ma et al. 2019), e = P L U z.

  The channels are cut into heads of at most 32, of a size that divides their
  number. Each has a matrix of its own, at first a random rotation. All that is
  trained is in `weight`: below the diagonal that of L, whose diagonal is 1,
  above it that of U, and on it the logarithms of U's. P is the order of `order`
  and U's signs are those of `sign`; both stay as drawn. `inverse` multiplies.
  `forward` solves two triangular systems, or multiplies by the inverse where
  that is prepared for inference.

  Attributes:
    layout: "a" for heads of alternate channels, head h of n having the
      channels h, h + n, h + 2n and so on, "c" for contiguous ones.
  """

  layout: str = "c"
  length_multiple = 1

  def forward(self, e: Latents, mask: Mask, source: Source) -> Mapped:
    """Returns z, float32[B, T, C], and log |det dz/de|, float32[B]."""
    factors = self._factors(e.shape[-1])
    heads = self._split(e)
    inverse = self._prepared_inverse()
    if inverse is not None:  # a product is much faster than two solves
      z = _multiply(inverse, heads)
    else:
      columns = heads.transpose(2, 3, 0, 1)  # [heads, size, B, T]
      solved = _solve(factors, columns.reshape(*columns.shape[:2], -1))
      z = solved.reshape(columns.shape).transpose(2, 3, 0, 1)
    return self._join(z), -_per_position(factors.log_diagonal, mask)

  def inverse(self, z: Latents, mask: Mask, source: Source) -> Mapped:
    """Returns e, float32[B, T, C], and log |det de/dz|, float32[B]."""
    factors = self._factors(z.shape[-1])
    self._prepared_inverse()  # the pass that prepares comes this way
    # In full precision, as all here: a rounded matrix has another determinant
    # than the one that is reported, and another inverse.
    product = jnp.matmul(
      factors.lower, factors.upper, precision=lax.Precision.HIGHEST
    )
    weight = jnp.take_along_axis(product, factors.place[..., None], axis=1)
    e = _multiply(weight, self._split(z))
    return self._join(e), _per_position(factors.log_diagonal, mask)

  def _prepared_inverse(self) -> Array | None:
    """Returns float32[heads, size, size] where prepared for inference."""
    return inference.prepared(
      self, "inverse", lambda: _inverses(self.variables["params"]["factors"])
    )

  @nn.compact
  def _factors(self, channels: int) -> _Factors:
    size = _head_size(channels)
    return _unpacked(self.param("factors", _rotations, size, channels))

  def _split(self, x: Array) -> Array:
    """Cuts [B, T, C] into [B, T, heads, size]."""
    size = _head_size(x.shape[-1])
    if self.layout == "a":  # as alternate channels: head h has h, h + n, ...
      return x.reshape(*x.shape[:-1], size, -1).swapaxes(-1, -2)
    return x.reshape(*x.shape[:-1], -1, size)

  def _join(self, heads: Array) -> Array:
    if self.layout == "a":
      heads = heads.swapaxes(-1, -2)
    return heads.reshape(*heads.shape[:-2], -1)


def _head_size(channels: int) -> int:
  """Returns the largest divisor that is at most 32."""
  sizes = range(1, min(channels, _MAX_HEAD_SIZE) + 1)
  return max(size for size in sizes if channels % size == 0)


def _rotations(key: Key, size: int, channels: int) -> dict[str, Array]:
  """Draws orthogonal matrices as rows `order` of their factors L and U."""

  # One matrix at a time. On a CPU a factorisation of a batch waits for threads
  # of XLA's pool while it holds one of them; two at once wait for each other.
  def factorised(key):
    return lax.linalg.lu(jax.random.orthogonal(key, size))

  keys = jax.random.split(key, channels // size)
  packed, _, order = lax.map(factorised, keys)
  diagonal = jnp.diagonal(packed, axis1=1, axis2=2)  # of U; L has ones
  on_diagonal = np.eye(size, dtype=bool)[None]
  logs = jnp.log(jnp.abs(diagonal))[..., None]
  return {
    "weight": jnp.where(on_diagonal, logs, packed),
    "order": order.astype(jnp.float32),  # jax.grad takes floats alone
    "sign": jnp.sign(diagonal),
  }


def _unpacked(packed: Params) -> _Factors:
  """Returns the factors that parameters stand for."""
  weight = packed["weight"]
  # By order and signs alone: neither has a gradient, so training leaves both.
  place = jnp.argsort(packed["order"], axis=-1)  # undoes the order
  sign = jnp.sign(packed["sign"])
  log_diagonal = jnp.diagonal(weight, axis1=1, axis2=2)
  one = np.eye(weight.shape[-1], dtype=np.float32)[None]
  upper = jnp.triu(weight, 1)  # above the diagonal alone
  upper += one * (sign * jnp.exp(log_diagonal))[..., None]
  return _Factors(place, jnp.tril(weight, -1) + one, upper, log_diagonal)


def _inverses(packed: Params) -> Array:
  """Inverts each matrix: float32[heads, size, size]."""
  one = jnp.eye(packed["weight"].shape[-1])
  return _solve(
    _unpacked(packed), jnp.broadcast_to(one, packed["weight"].shape)
  )


def _multiply(matrices: Array, heads: Array) -> Array:
  """Multiplies each head by its own matrix: float32[B, T, heads, size]."""
  return jnp.einsum(
    "hij,bthj->bthi", matrices, heads, precision=lax.Precision.HIGHEST
  )


def _solve(factors: _Factors, columns: Array) -> Array:
  """Solves P L U x = columns for n matrices, both float32[n, size, m]."""
  rows = jnp.argsort(factors.place, axis=-1)[..., None]
  columns = jnp.take_along_axis(columns, rows, axis=1)  # P^-1
  columns = _solve_triangular(factors.lower, columns, lower=True)
  return _solve_triangular(factors.upper, columns, lower=False)


def _solve_triangular(matrix: Array, columns: Array, *, lower: bool) -> Array:
  """Solves systems one after the other, for the reason in `_rotations`."""

  def solve(args):
    return lax.linalg.triangular_solve(
      *args, left_side=True, lower=lower, unit_diagonal=lower
    )

  return lax.map(solve, (matrix, columns))
