"""Products that are added up in float32, linear maps made of them, and storage.

A `TransformerConfig` says what they multiply: the compute dtype, or, where
`matmul_dtype` is "bfloat16", rounded numbers amid float32 activations.
"""

import math

from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp

from latentnmt import config as cfg
from latentnmt.types import Array

_dense_init = nn.initializers.xavier_uniform()


def einsum(formula: str, *arrays: Array) -> Array:
  """As `jnp.einsum`: float32, whatever the dtype of the arrays."""
  return jnp.einsum(formula, *arrays, preferred_element_type=jnp.float32)


def round_to(x: Array, dtype) -> Array:
  """Numbers of `dtype`, as float32.

  Not by two casts: a compiler may leave out both.
  """
  info = jnp.finfo(dtype)
  return lax.reduce_precision(x.astype(jnp.float32), info.nexp, info.nmant)


def dense(config: cfg.TransformerConfig, features, **kwargs) -> nn.Module:
  """`nn.DenseGeneral` of a stack with these sizes."""
  if _rounds(config):
    kwargs |= {
      "dot_general_cls": lambda: _dot_general,
      "promote_dtype": _as_is,
    }
  return nn.DenseGeneral(
    features, kernel_init=_dense_init, dtype=config.dtype, **kwargs
  )


def pack(config: cfg.TransformerConfig, x: Array) -> Array:
  """What a product will see of `x`, such that parts of it can be replaced.

  XLA for CPUs makes all of a bfloat16 array float32, and back, to replace a
  part of it. Amid float32, bfloat16 numbers are stored as their bits, uint16.
  """
  x = x.astype(config.operand_dtype)
  return lax.bitcast_convert_type(x, jnp.uint16) if _rounds(config) else x


def unpack(config: cfg.TransformerConfig, x: Array) -> Array:
  """Inverse of `pack`, but for the rounding."""
  dtype = config.operand_dtype
  return lax.bitcast_convert_type(x, dtype) if _rounds(config) else x


def _rounds(config: cfg.TransformerConfig) -> bool:
  return config.operand_dtype != config.dtype


def _as_is(*arrays, dtype, inexact=True):
  """Kernels that are rounded already are not made float32 on the way."""
  del dtype, inexact
  return arrays


def _dot_general(x, kernel, dimension_numbers, **kwargs):
  """`lax.dot_general` as a linear map calls it, of bfloat16 numbers."""
  del kwargs
  (axes, _), _ = dimension_numbers
  rows, features = x.shape[: axes[0]], kernel.shape[len(axes) :]
  size = math.prod(kernel.shape[: len(axes)])
  out = _matmul(x.reshape(-1, size), kernel.reshape(size, -1))
  return out.reshape(*rows, *features).astype(x.dtype)


@jax.custom_vjp
def _matmul(x: Array, kernel: Array) -> Array:
  """float32[M, N] of bfloat16 numbers: [M, D] and [D, N]."""
  return einsum("md,dn->mn", *_bfloat16(x, kernel))


def _matmul_forward(x, kernel):
  return _matmul(x, kernel), (x, kernel)


def _matmul_backward(residuals, gradient):
  x, kernel = residuals
  d_x = einsum("mn,dn->md", *_bfloat16(gradient, kernel)).astype(x.dtype)
  # CPUs have no such product of bfloat16.
  return d_x, (x.T @ gradient.astype(x.dtype)).astype(kernel.dtype)


_matmul.defvjp(_matmul_forward, _matmul_backward)


def _bfloat16(*arrays: Array) -> list[Array]:
  return [array.astype(jnp.bfloat16) for array in arrays]
