"""Lengths at which to decode, of models that need them beforehand."""

import functools
import math

from flax import linen as nn
import jax
import jax.numpy as jnp

from latentnmt.inference import variables
from latentnmt.masks import round_up
from latentnmt.types import Array, Nats, Params, Source, Tokens

# Target lengths are rounded up to a multiple of this, longer ones to a quarter
# of the next power of two: few programs, of which none wastes much.
_LENGTH_STEP = 8


@functools.partial(jax.jit, static_argnums=(0, 1))
def propose_lengths(
  model: nn.Module, count: int, params: Params, x: Tokens
) -> tuple[Source, Array, Nats]:
  """Returns the source, its likeliest lengths int32[B, count], and log p."""
  apply = functools.partial(model.apply, variables(params))
  source = apply(x, method="precompute")
  length, log_pl = apply(source, count, method="best_lengths")
  real = jnp.any(source.mask, axis=1)[:, None]
  return source, jnp.where(real, length, 0), jnp.where(real, log_pl, 0.0)


def grid_size(length: Array, x: Tokens, multiple: int = 1) -> int:
  """Returns T for lengths int32[...] of translations of int32[B, S]."""
  # The one place where the host looks: how long the longest one is. Not below
  # S, so that batches of one shape nearly always share their program.
  return _padded_length(max(int(jnp.max(length)), x.shape[1]), multiple)


def _padded_length(longest: int, multiple: int) -> int:
  """Rounds up to 8, 16, 24, 32, 48, 64, 96 ..., and to `multiple`."""
  quarter = 1 << max((longest - 1).bit_length() - 2, 0)
  return round_up(longest, math.lcm(max(_LENGTH_STEP, quarter), multiple))
