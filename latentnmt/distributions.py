"""Densities of diagonal Gaussians: nats of each element, in float32."""

import jax.numpy as jnp
import numpy as np

from latentnmt.types import Array

_HALF_LOG_TWO_PI = float(0.5 * np.log(2 * np.pi))


def normal_log_prob(value: Array, mean: Array, scale: Array) -> Array:
  """Returns the log density of N(mean, scale^2); `scale` is a deviation."""
  value, mean, scale = _float32(value, mean, scale)
  whitened = (value - mean) / scale
  return -0.5 * jnp.square(whitened) - jnp.log(scale) - _HALF_LOG_TWO_PI


def standard_normal_log_prob(value: Array) -> Array:
  """Returns the log density of N(0, 1)."""
  (value,) = _float32(value)
  return -0.5 * jnp.square(value) - _HALF_LOG_TWO_PI


def kl_normal(
  mean: Array, scale: Array, other_mean: Array, other_scale: Array
) -> Array:
  """Returns KL(N(mean, scale^2) || N(other_mean, other_scale^2))."""
  mean, scale, other_mean, other_scale = _float32(
    mean, scale, other_mean, other_scale
  )
  ratio = scale / other_scale
  shift = (mean - other_mean) / other_scale
  return 0.5 * (jnp.square(ratio) + jnp.square(shift) - 1) - jnp.log(ratio)


def kl_standard_normal(mean: Array, scale: Array) -> Array:
  """Returns KL(N(mean, scale^2) || N(0, 1))."""
  mean, scale = _float32(mean, scale)
  return 0.5 * (jnp.square(scale) + jnp.square(mean) - 1) - jnp.log(scale)


def _float32(*arrays: Array) -> tuple[Array, ...]:
  # bfloat16 has three digits, and a sentence adds up thousands of these.
  return tuple(jnp.asarray(array, jnp.float32) for array in arrays)
