"""Matrix products that add up in float32, and linear maps made of them.

A `TransformerConfig` says what they multiply: numbers of the compute dtype or,
where `matmul_dtype` is "bfloat16", rounded ones amid float32 activations.
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
  """Computes `jnp.einsum` in float32, whatever the dtype of the arrays."""
  return jnp.einsum(formula, *arrays, preferred_element_type=jnp.float32)


def round_to(x: Array, dtype) -> Array:
  """Rounds to the nearest numbers of `dtype`, kept as float32."""
  # Not by two casts, there and back: a compiler may leave out both.
  info = jnp.finfo(dtype)
  return lax.reduce_precision(x.astype(jnp.float32), info.nexp, info.nmant)


def dense(config: cfg.TransformerConfig, features, **kwargs) -> nn.Module:
  """Returns an `nn.DenseGeneral` for a stack with these sizes."""
  if _rounds(config):  # else Flax has all that is needed
    kwargs |= {
      "dot_general_cls": lambda: _dot_general,
      "promote_dtype": _as_is,
    }
  return nn.DenseGeneral(
    features, kernel_init=_dense_init, dtype=config.dtype, **kwargs
  )


def pack(config: cfg.TransformerConfig, x: Array) -> Array:
  """Returns what a product sees of `x`, in a form of which parts are replaced.

  A cache is such an array: each step writes one position of it.
  """
  x = x.astype(config.operand_dtype)
  # As bits, uint16: to replace a part of a bfloat16 array, XLA for CPUs makes
  # all of it float32 and back, at each step of a search.
  return lax.bitcast_convert_type(x, jnp.uint16) if _rounds(config) else x


def unpack(config: cfg.TransformerConfig, x: Array) -> Array:
  """Undoes `pack`, but for the rounding."""
  dtype = config.operand_dtype
  return lax.bitcast_convert_type(x, dtype) if _rounds(config) else x


def _rounds(config: cfg.TransformerConfig) -> bool:
  return config.operand_dtype != config.dtype


def _as_is(*arrays, dtype, inexact=True):
  """Stands for `promote_dtype`, which would make rounded kernels float32."""
  del dtype, inexact
  return arrays


def _dot_general(x, kernel, dimension_numbers, **kwargs):
  """Computes `lax.dot_general`, as a linear map calls it, in bfloat16."""
  del kwargs
  (axes, _), _ = dimension_numbers  # the last of x with the first of kernel
  rows, features = x.shape[: axes[0]], kernel.shape[len(axes) :]
  size = math.prod(kernel.shape[: len(axes)])
  # One matrix product, whatever the axes: its gradient is written once.
  out = _matmul(x.reshape(-1, size), kernel.reshape(size, -1))
  return out.reshape(*rows, *features).astype(x.dtype)


@jax.custom_vjp
def _matmul(x: Array, kernel: Array) -> Array:
  """Multiplies [M, D] and [D, N] as bfloat16 numbers: float32[M, N]."""
  # With a gradient of its own, whose products are rounded too: autodiff's would
  # multiply float32, for the incoming gradient is that.
  return einsum("md,dn->mn", *_bfloat16(x, kernel))


def _matmul_forward(x, kernel):
  return _matmul(x, kernel), (x, kernel)


def _matmul_backward(residuals, gradient):
  x, kernel = residuals
  d_x = einsum("mn,dn->md", *_bfloat16(gradient, kernel)).astype(x.dtype)
  # In float32: CPUs have no such product of bfloat16.
  return d_x, (x.T @ gradient.astype(x.dtype)).astype(kernel.dtype)


_matmul.defvjp(_matmul_forward, _matmul_backward)


def _bfloat16(*arrays: Array) -> list[Array]:
  return [array.astype(jnp.bfloat16) for array in arrays]
