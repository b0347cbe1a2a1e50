"""Small parts of a Transformer: positions, dropout, a normalised linear map."""

from flax import linen as nn
import jax.numpy as jnp
import numpy as np

from latentnmt.types import Array


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
  """Dropout wherever a "dropout" rng is given; noise shared along `shared`."""

  rate: float
  shared: tuple[int, ...] = ()

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Returns `x`, with a share `rate` of it zero and the rest scaled up."""
    drop = nn.Dropout(self.rate, broadcast_dims=self.shared)
    return drop(x, deterministic=not self.has_rng("dropout"))


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
