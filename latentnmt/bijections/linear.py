"""Maps of the channels at each position: normalisation and rotation."""

from typing import NamedTuple

from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from latentnmt import inference
from latentnmt.masks import lengths
from latentnmt.types import Array, Key, Latents, Mask, Nats, Params, Source

# Makes the log-scale learn faster than the shift, as in the public code.
_LOG_SCALE_FACTOR = 3.0
# A channel of less variance than this says nothing of its scale.
_CONSTANT = 1e-7
_MAX_HEAD_SIZE = 32


class ActNorm(nn.Module):
  """A shift and scale of each channel: e = (z + shift) exp(3 log_scale).

  Kingma & Dhariwal (2018), 3.1. Where `init` runs through `inverse`, both are
  set such that e has mean 0 and variance 1 in each channel, over the real
  positions of that batch. A channel that is constant there, as all are in a
  batch without real positions, keeps its scale.
  """

  length_multiple = 1

  def forward(
    self, e: Latents, mask: Mask, source: Source
  ) -> tuple[Latents, Nats]:
    """float32[B, T, C] and float32[B]: z and log |det dz/de|."""
    zeros = jnp.zeros(e.shape[-1:])
    shift, log_scale = self._shift_log_scale(lambda: (zeros, zeros))
    z = e * jnp.exp(-log_scale)[None, None] - shift[None, None]
    return z, -_per_position(log_scale, mask)

  def inverse(
    self, z: Latents, mask: Mask, source: Source
  ) -> tuple[Latents, Nats]:
    """float32[B, T, C] and float32[B]: e and log |det de/dz|."""
    shift, log_scale = self._shift_log_scale(lambda: _whitening(z, mask))
    e = (z + shift[None, None]) * jnp.exp(log_scale)[None, None]
    return e, _per_position(log_scale, mask)

  @nn.compact
  def _shift_log_scale(self, start) -> tuple[Array, Array]:
    """float32[C] each; `start()` is what `init` makes them."""
    shift = self.param("shift", lambda key: start()[0])
    factor = np.float32(_LOG_SCALE_FACTOR)
    log_scale = self.param("log_scale", lambda key: start()[1] / factor)
    return shift, factor * log_scale


def _whitening(x: Array, mask: Mask) -> tuple[Array, Array]:
  """Shift and log-scale to mean 0 and variance 1 over real positions."""
  real = mask[..., None]
  count = jnp.maximum(jnp.sum(mask, dtype=jnp.float32), 1.0)
  mean = jnp.sum(jnp.where(real, x, 0.0), axis=(0, 1)) / count
  centred = jnp.where(real, x - mean[None, None], 0.0)
  variance = jnp.sum(jnp.square(centred), axis=(0, 1)) / count
  varies = variance > _CONSTANT
  log_scale = -0.5 * jnp.log(jnp.where(varies, variance, 1.0))
  return -mean, log_scale


def _per_position(log_scale: Array, mask: Mask) -> Nats:
  return lengths(mask).astype(jnp.float32) * jnp.sum(log_scale)


class _Factors(NamedTuple):
  """Of n matrices: where each row of L U goes; L, U and log |diag U|."""

  place: Array  # int32[n, size]
  lower: Array  # float32[n, size, size]
  upper: Array  # float32[n, size, size]
  log_diagonal: Array  # float32[n, size]


class Invertible1x1(nn.Module):
  """Multi-head invertible 1x1 convolution (Ma et al. 2019), e = P L U z.

  The channels are cut into heads of at most 32, of a size that divides their
  number, each with a matrix of its own that starts as a random rotation.
  `weight` holds all of it that is trained: below the diagonal that of L,
  whose diagonal is 1, above it that of U, and on it the logarithms of U's. P
  is the order of `order` and U's signs are those of `sign`, both stay as they
  were drawn. `inverse` multiplies; `forward` solves two triangular systems, or
  multiplies by the inverse where that is prepared for inference.

  Attributes:
    layout: "a" for heads of alternate channels, head h of n having the
      channels h, h + n, h + 2n and so on, "c" for contiguous ones.
  """

  layout: str = "c"
  length_multiple = 1

  def forward(
    self, e: Latents, mask: Mask, source: Source
  ) -> tuple[Latents, Nats]:
    """float32[B, T, C] and float32[B]: z and log |det dz/de|."""
    factors = self._factors(e.shape[-1])
    heads = self._split(e)
    inverse = self._prepared_inverse()
    if inverse is not None:
      z = _multiply(inverse, heads)
    else:
      columns = heads.transpose(2, 3, 0, 1)  # [heads, size, B, T]
      solved = _solve(factors, columns.reshape(*columns.shape[:2], -1))
      z = solved.reshape(columns.shape).transpose(2, 3, 0, 1)
    return self._join(z), -_per_position(factors.log_diagonal, mask)

  def inverse(
    self, z: Latents, mask: Mask, source: Source
  ) -> tuple[Latents, Nats]:
    """float32[B, T, C] and float32[B]: e and log |det de/dz|."""
    factors = self._factors(z.shape[-1])
    self._prepared_inverse()  # this way goes the pass that prepares
    product = jnp.matmul(
      factors.lower, factors.upper, precision=lax.Precision.HIGHEST
    )
    weight = jnp.take_along_axis(product, factors.place[..., None], axis=1)
    e = _multiply(weight, self._split(z))
    return self._join(e), _per_position(factors.log_diagonal, mask)

  def _prepared_inverse(self) -> Array | None:
    """float32[heads, size, size], where it is prepared for inference."""
    return inference.prepared(
      self, "inverse", lambda: _inverses(self.variables["params"]["factors"])
    )

  @nn.compact
  def _factors(self, channels: int) -> _Factors:
    size = _head_size(channels)
    return _unpacked(self.param("factors", _rotations, size, channels))

  def _split(self, x: Array) -> Array:
    """[B, T, heads, size] of [B, T, C]."""
    size = _head_size(x.shape[-1])
    if self.layout == "a":
      return x.reshape(*x.shape[:-1], size, -1).swapaxes(-1, -2)
    return x.reshape(*x.shape[:-1], -1, size)

  def _join(self, heads: Array) -> Array:
    if self.layout == "a":
      heads = heads.swapaxes(-1, -2)
    return heads.reshape(*heads.shape[:-2], -1)


def _head_size(channels: int) -> int:
  sizes = range(1, min(channels, _MAX_HEAD_SIZE) + 1)
  return max(size for size in sizes if channels % size == 0)


def _rotations(key: Key, size: int, channels: int) -> dict[str, Array]:
  """Random orthogonal matrices as rows `order` of their factors L and U."""

  # One matrix at a time: on a CPU a factorisation of a batch waits for threads
  # of the pool that runs it, and two of them at once for each other, for ever.
  def factorised(key):
    return lax.linalg.lu(jax.random.orthogonal(key, size))

  keys = jax.random.split(key, channels // size)
  packed, _, order = lax.map(factorised, keys)
  diagonal = jnp.diagonal(packed, axis1=1, axis2=2)
  on_diagonal = np.eye(size, dtype=bool)[None]
  logs = jnp.log(jnp.abs(diagonal))[..., None]
  return {
    "weight": jnp.where(on_diagonal, logs, packed),
    "order": order.astype(jnp.float32),
    "sign": jnp.sign(diagonal),
  }


def _unpacked(packed: Params) -> _Factors:
  weight = packed["weight"]
  # Only an order and signs: these two have no gradient.
  place = jnp.argsort(packed["order"], axis=-1)
  sign = jnp.sign(packed["sign"])
  log_diagonal = jnp.diagonal(weight, axis1=1, axis2=2)
  one = np.eye(weight.shape[-1], dtype=np.float32)[None]
  upper = jnp.triu(weight, 1)
  upper += one * (sign * jnp.exp(log_diagonal))[..., None]
  return _Factors(place, jnp.tril(weight, -1) + one, upper, log_diagonal)


def _inverses(packed: Params) -> Array:
  """float32[heads, size, size]."""
  one = jnp.eye(packed["weight"].shape[-1])
  return _solve(
    _unpacked(packed), jnp.broadcast_to(one, packed["weight"].shape)
  )


def _multiply(matrices: Array, heads: Array) -> Array:
  """float32[B, T, heads, size], each head by its own matrix."""
  return jnp.einsum(
    "hij,bthj->bthi", matrices, heads, precision=lax.Precision.HIGHEST
  )


def _solve(factors: _Factors, columns: Array) -> Array:
  """The x of P L U x = columns for n matrices, both float32[n, size, m]."""
  rows = jnp.argsort(factors.place, axis=-1)[..., None]
  columns = jnp.take_along_axis(columns, rows, axis=1)
  columns = _solve_triangular(factors.lower, columns, lower=True)
  return _solve_triangular(factors.upper, columns, lower=False)


def _solve_triangular(matrix: Array, columns: Array, *, lower: bool) -> Array:
  """Each of a batch of systems, one after the other: see `_rotations`."""

  def solve(args):
    return lax.linalg.triangular_solve(
      *args, left_side=True, lower=lower, unit_diagonal=lower
    )

  return lax.map(solve, (matrix, columns))
