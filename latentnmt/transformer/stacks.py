"""Stacks of layers, scanned, and their steps in a search."""

import functools
import operator
from typing import Any

from flax import linen as nn
from flax import struct
import jax
import jax.numpy as jnp
import numpy as np

from latentnmt import config as cfg
from latentnmt import inference, matmul
from latentnmt.transformer.layers import (
  CrossAttentionCache,
  DecoderLayer,
  EncoderLayer,
  SelfAttentionCache,
  layer_norm,
)
from latentnmt.transformer.parts import dropout
from latentnmt.types import Array, Mask, Params, Source


@struct.dataclass
class SearchContext:
  """Parameters and source that all steps of a search share.

  Layers are unstacked once a search: a loop would copy its part of a stacked
  array at every step.

  Attributes:
    layers: for each layer its parameters, and keys and values as in
      `CrossAttentionCache`.
    mask: bool[B, S].
  """

  layers: tuple[tuple[Params, Array, Array], ...]
  mask: Mask


class EncoderStack(nn.Module):
  """Dropout, `num_layers` encoder layers and a last norm."""

  config: cfg.TransformerConfig
  num_layers: int

  def setup(self):
    self.dropout = dropout(self.config, self.config.dropout, -2)
    self.layers = EncoderLayer(self.config)
    self.norm = layer_norm(self.config)

  def __call__(self, x: Array, mask: Mask) -> Array:
    """Maps float[B, S, D] to float[B, S, D]; bool[B, S] hides padding."""

    def layer(module, x, mask):
      return module(x, mask), None

    over_layers = _over_layers(self, layer, (nn.broadcast,))
    x, _ = over_layers(self.layers, self.dropout(x), mask[:, None])
    return self.norm(x)


class DecoderStack(nn.Module):
  """Dropout, `num_layers` decoder layers and a last norm.

  The self-attention is causal where `causal` is set; else every real position
  sees every other.
  """

  config: cfg.TransformerConfig
  num_layers: int
  causal: bool = False

  def setup(self):
    self.dropout = dropout(self.config, self.config.dropout, -2)
    self.layers = DecoderLayer(self.config)
    self.norm = layer_norm(self.config)

  def precompute(self, source: Source) -> CrossAttentionCache:
    """Returns keys and values of all layers, in one product if stacked."""

    def keys_values(layer, states):
      return layer.cross.keys_values(states)

    unstacked = _unstacked(self)
    if unstacked is not None:
      found = [
        nn.apply(keys_values, layer)(variables, source.states)
        for layer, variables in _each(self.layers, unstacked)
      ]
      keys, values = jax.tree.map(lambda *leaves: jnp.stack(leaves), *found)
    else:
      # Stacked kernels times one source: a single batched product.
      keys, values = nn.vmap(
        keys_values,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=None,
        axis_size=self.num_layers,
      )(self.layers, source.states)
    return CrossAttentionCache(keys, values, source.mask)

  def __call__(
    self, x: Array, mask: Mask, source: CrossAttentionCache
  ) -> Array:
    """Maps float[B, T, D] to float[B, T, D]; bool[B, T] hides padding."""
    mask = mask[:, None]  # [B, 1, T]
    if self.causal:
      mask = mask & np.tri(x.shape[1], dtype=bool)[None]

    def layer(module, x, keys, values, mask, source_mask):
      cache = CrossAttentionCache(keys, values, source_mask)
      return module(x, mask, cache), None

    in_axes = 0, 0, nn.broadcast, nn.broadcast
    over_layers = _over_layers(self, layer, in_axes)
    x, _ = over_layers(
      self.layers, self.dropout(x), source.keys, source.values, mask,
      source.mask,
    )  # fmt: skip
    return self.norm(x)

  def start(
    self, source: CrossAttentionCache, length: int, hypotheses: int
  ) -> tuple[SearchContext, tuple[SelfAttentionCache, ...]]:
    """Returns what all steps share, and empty caches for `length` steps."""
    layers = _unstacked(self)
    if layers is None:
      layers = unstack_layers(self.layers.variables["params"], self.config)
    dtype, slots = self.config.operand_dtype, (length, hypotheses)
    keys, values = source.keys.astype(dtype), source.values.astype(dtype)
    shared = tuple(zip(layers, keys, values, strict=True))
    batch, heads, size, _ = keys.shape[1:]
    cache = SelfAttentionCache(
      jnp.zeros((batch, heads, size, *slots), dtype),
      jnp.zeros((batch, heads, *slots, size), dtype),
    )
    cache = jax.tree.map(functools.partial(matmul.pack, self.config), cache)
    return SearchContext(shared, source.mask), (cache,) * self.num_layers

  def step(
    self,
    x: Array,
    t: Array,
    caches: tuple[SelfAttentionCache, ...],
    history: Mask,
    context: SearchContext,
  ) -> tuple[Array, tuple[SelfAttentionCache, ...]]:
    """Takes position t of N hypotheses a sentence.

    Args:
      x: float[B, N, D], the embedded input of this position.
      t: the position, an int32 scalar.
      caches: of the positions before, one of each layer.
      history: bool[B, N, T, N], true on the slots that are a hypothesis's own
        past, and its own slot at step t.
      context: as `start` gives it.

    Returns:
      float[B, N, D] and the caches with position t in them.
    """
    history = history.reshape(*history.shape[:2], -1)
    # A layer of no stack, to be bound to the parameters of each in turn.
    layer, after = DecoderLayer(self.config, parent=None), []
    for (params, keys, values), past in zip(
      context.layers, caches, strict=True
    ):
      source = CrossAttentionCache(keys, values, context.mask)
      bound = layer.bind({"params": params})
      x, past = bound.step(x, t, past, history, source)
      after.append(past)
    return self.norm(x), tuple(after)


def unstack_layers(
  params: Params, config: cfg.TransformerConfig
) -> tuple[Params, ...]:
  """Returns the parameters of each layer by itself, of stacked ones.

  A loop over stacked layers copies each before it is used; what is unstacked
  is used where it lies. Kernels get the dtype in which they multiply.

  Args:
    params: of the layers of a stack.
    config: of the stack.
  """
  stacked = jax.tree.map(
    lambda v: v.astype(config.operand_dtype) if v.ndim > 2 else v, params
  )
  number = len(jax.tree.leaves(stacked)[0])
  return tuple(
    jax.tree.map(operator.itemgetter(i), stacked) for i in range(number)
  )


def _unstacked(stack: nn.Module) -> tuple[Params, ...] | None:
  """Returns each layer's parameters where they are prepared for inference."""
  return inference.prepared(
    stack,
    "unstacked_layers",
    lambda: unstack_layers(stack.layers.variables["params"], stack.config),
  )


def _each(
  layers: nn.Module, params: tuple[Params, ...]
) -> list[tuple[nn.Module, dict[str, Any]]]:
  """Returns a module and its variables for each of the layers."""
  alone = type(layers)(layers.config, parent=None)
  return [(alone, {"params": own}) for own in params]


def _one_by_one(layer, in_axes, params, layers: nn.Module, carry, *xs):
  """Does what the scan of `_over_layers` does, layer by layer."""
  for i, (alone, variables) in enumerate(_each(layers, params)):
    own = (
      x[i] if axis == 0 else x for x, axis in zip(xs, in_axes, strict=True)
    )
    carry, _ = nn.apply(layer, alone)(variables, carry, *own)
  return carry, None


def _over_layers(stack: nn.Module, layer, in_axes):
  """Returns the scan of `layer(module, carry, *xs)` over a stack's layers."""
  c = stack.config
  unstacked = _unstacked(stack)
  if unstacked is not None:
    if stack.has_rng("dropout"):
      raise ValueError("Parameters for inference are not to be trained.")
    return functools.partial(_one_by_one, layer, in_axes, unstacked)
  if c.remat:
    # Inside a scan nothing is there that common-subexpression elimination
    # could undo the rematerialisation with, and its guard costs time.
    layer = nn.remat(layer, prevent_cse=not c.scan_layers)
  return nn.scan(
    layer,
    variable_axes={"params": 0},
    split_rngs={"params": True, "dropout": True},
    in_axes=in_axes,
    length=stack.num_layers,
    # Unrolled, the layers are still one scan, so that parameters are stacked
    # alike and checkpoints of both ways fit.
    unroll=1 if c.scan_layers else stack.num_layers,
  )
