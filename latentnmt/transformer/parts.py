"""Small parts of a Transformer: positions, dropout, a normalised linear map."""

from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from latentnmt import config as cfg
from latentnmt.types import Array, Key


def sinusoids(length: int, width: int) -> np.ndarray:
  """Returns [sines | cosines], float32[length, width], geometric timescales."""
  # Ends included, so that the slowest rate is 1e-4 whatever the width.
  rates = 1e4 ** -(np.arange(width // 2) / max(width // 2 - 1, 1))
  angles = np.arange(length)[:, None] * rates[None, :]
  return np.concatenate([np.sin(angles), np.cos(angles)], 1).astype(np.float32)


def add_positions(x: Array) -> Array:
  """Adds sinusoids to float[B, T, D]."""
  return x + sinusoids(*x.shape[1:])[None].astype(x.dtype)


class Dropout(nn.Module):
  """Dropout wherever a "dropout" rng is given.

  Attributes:
    rate: share of the numbers that become zero.
    shared: axes along which all have the same noise; without any, `rate` is
      rounded to a multiple of 1/256.
  """

  rate: float
  shared: tuple[int, ...] = ()

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Returns `x`, with a share `rate` of it zero and the rest scaled up."""
    if not self.has_rng("dropout") or not self.rate:
      return x
    if self.shared:
      drop = nn.Dropout(self.rate, broadcast_dims=self.shared)
      return drop(x, deterministic=False)
    return _ByteDropout(self.rate)(x)


class _ByteDropout(nn.Module):
  """Dropout at a multiple of 1/256, of a byte of noise for each number.

  A module of its own, made where it is called: one that a transformation
  without the "dropout" rng has seen cannot draw from it later.
  """

  rate: float

  @nn.compact
  def __call__(self, x: Array) -> Array:
    dropped = round(self.rate * 256)
    kept = random_bytes(self.make_rng("dropout"), x.shape) >= dropped
    return jnp.where(kept, x / (1 - dropped / 256), 0)


def dropout(
  config: cfg.TransformerConfig, rate: float, *shared: int
) -> Dropout:
  """Returns dropout that has noise in common along the axes `shared`.

  Only where the configuration wants that; else every number has its own.
  """
  return Dropout(rate, shared if config.shared_dropout else ())


def random_bytes(key: Key, shape: tuple[int, ...]) -> Array:
  """Draws uint8 numbers, four out of each random word.

  Random words are what dropout costs on a CPU; `jax.random.bits` would draw one
  for each byte.
  """
  *rows, columns = shape
  words = jax.random.bits(key, (*rows, -(-columns // 4)), jnp.uint32)
  # The leading axes stay as they are, so that each device draws its own rows.
  numbers = lax.bitcast_convert_type(words, jnp.uint8).reshape(*rows, -1)
  return numbers[..., :columns]


class WeightNormDense(nn.Module):
  """Linear map with weight normalisation (Salimans & Kingma 2016).

  Its bias starts at zero, and by default its gain too, and so its output.

  Attributes:
    features: of the output.
    gain_init: initialiser of the gain of each feature.
  """

  features: int
  gain_init: nn.initializers.Initializer = nn.initializers.zeros

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Maps float[..., D] to float32[..., features]."""
    dense = nn.Dense(self.features, use_bias=False)
    # A gain of our own: `nn.WeightNorm` multiplies by its at `init` and stores
    # the product, so that with a gain of zero no gradient ever reaches either.
    normed = nn.WeightNorm(dense, use_scale=False)(x.astype(jnp.float32))
    gain = self.param("gain", self.gain_init, (self.features,))
    bias = self.param("bias", nn.initializers.zeros, (self.features,))
    every = (None,) * (x.ndim - 1)
    return normed * gain[every] + bias[every]
