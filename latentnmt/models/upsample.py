"""Inputs of a non-causal decoder: states of the source, spread over it."""

from flax import linen as nn
import jax.numpy as jnp

from latentnmt import config as cfg
from latentnmt import matmul
from latentnmt.types import Array


class Upsample(nn.Module):
  """Spreads the states of S source positions evenly over U others.

  Positions of the same source state differ by a linear map: the first of them
  sees one, the second another, up to `phases`.

  Attributes:
    config: sizes.
    phases: linear maps.
  """

  config: cfg.TransformerConfig
  phases: int

  @nn.compact
  def __call__(
    self, states: Array, source_lengths: Array, positions: Array, size: int
  ) -> Array:
    """Returns float[B, U, D]; beyond a sentence's own positions, anything.

    Args:
      states: float[B, S, D].
      source_lengths: int32[B].
      positions: int32[B], of each sentence.
      size: U.
    """
    batch, length, width = states.shape
    maps = matmul.dense(self.config, self.phases * width, name="maps")
    states = maps(states).reshape(batch, length * self.phases, width)
    # At least 1, for rows of padding.
    many = jnp.maximum(positions, 1)[:, None]
    source = jnp.maximum(source_lengths, 1)[:, None]
    position = jnp.arange(size)[None]
    index = jnp.minimum(position * source // many, source - 1)
    first = -(-index * many // source)  # position that sees this state
    phase = jnp.clip(position - first, 0, self.phases - 1)
    index = (index * self.phases + phase)[..., None]
    return jnp.take_along_axis(states, index, axis=1)
