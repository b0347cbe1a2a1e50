"""Attention with its caches, and the layers that are made of it."""

import functools

from flax import linen as nn
from flax import struct
from jax import lax
import jax.numpy as jnp
import numpy as np

from latentnmt import config as cfg
from latentnmt import matmul
from latentnmt.transformer.parts import dropout
from latentnmt.types import Array, Mask


@struct.dataclass
class CrossAttentionCache:
  """Cross-attention keys and values of each of L layers.

  Attributes:
    keys: float[L, B, H, D/H, S], as products with queries like them.
    values: float[L, B, H, S, D/H].
    mask: bool[B, S].
  """

  keys: Array
  values: Array
  mask: Mask


@struct.dataclass
class SelfAttentionCache:
  """One layer's self-attention keys and values of N hypotheses a sentence.

  Slot n of step t belongs to whoever was hypothesis n at that step; which
  slots make up a hypothesis's past is for the caller's `history` to say, so a
  beam is re-ordered without moving the cache.

  Attributes:
    keys: float[B, H, D/H, T, N], or uint16 as `matmul.pack` has them.
    values: float[B, H, T, N, D/H], likewise.
  """

  keys: Array
  values: Array


class Attention(nn.Module):
  """Multi-head attention without biases."""

  config: cfg.TransformerConfig

  def setup(self):
    c = self.config
    dense = functools.partial(matmul.dense, c, use_bias=False)
    head = functools.partial(dense, (c.heads, c.width // c.heads))
    self.query, self.key, self.value = head(), head(), head()
    self.out = dense(c.width, axis=(-2, -1))
    # Where noise is shared: one mask for all sentences and heads.
    self.dropout = dropout(c, c.attention_dropout, 0, 1)

  def keys_values(self, states: Array) -> tuple[Array, Array]:
    """Maps float[B, S, D] to float[B, H, D/H, S] and float[B, H, S, D/H]."""
    keys, values = self.key(states), self.value(states)
    return keys.transpose(0, 2, 3, 1), values.swapaxes(1, 2)

  def __call__(self, x: Array, keys: Array, values: Array, mask: Mask) -> Array:
    """Lets float[B, T, D] attend where bool[B or 1, T or 1, S] is true."""
    # Scaled before the product: T x D/H numbers instead of T x S.
    query = self.query(x).swapaxes(1, 2) * np.float32(keys.shape[2] ** -0.5)
    logits = matmul.einsum("bhtk,bhks->bhts", query.astype(keys.dtype), keys)
    # A large number rather than infinity: a row that sees nothing, as padding
    # does, attends to everything alike instead of dividing zero by zero.
    logits = jnp.where(mask[:, None], logits, -1e9)
    weights = nn.softmax(logits, axis=-1).astype(values.dtype)
    weights = self.dropout(weights)
    # Heads before positions: products of a few rows are then several times as
    # fast on a CPU.
    found = matmul.einsum("bhts,bhsk->bhtk", weights, values)
    return self.out(found.swapaxes(1, 2).astype(x.dtype))


class FeedForward(nn.Module):
  """Two linear maps around a ReLU."""

  config: cfg.TransformerConfig

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Maps float[B, T, D] to float[B, T, D]."""
    c = self.config
    hidden = nn.relu(matmul.dense(c, c.hidden, name="hidden")(x))
    hidden = dropout(c, c.hidden_dropout, -2)(hidden)
    return matmul.dense(c, c.width, name="out")(hidden)


def layer_norm(config: cfg.TransformerConfig) -> nn.LayerNorm:
  """Returns the layer normalisation of a stack with these sizes."""
  return nn.LayerNorm(epsilon=1e-6, dtype=config.dtype)


class EncoderLayer(nn.Module):
  """Self-attention and feed-forward, each normed before and added after."""

  config: cfg.TransformerConfig

  def setup(self):
    c = self.config
    self.attention, self.feed_forward = Attention(c), FeedForward(c)
    self.attention_norm, self.feed_forward_norm = layer_norm(c), layer_norm(c)
    self.dropout = dropout(c, c.dropout, -2)

  def __call__(self, x: Array, mask: Mask) -> Array:
    """Maps float[B, T, D]; bool[B or 1, T or 1, T] says who sees whom."""
    normed = self.attention_norm(x)
    keys, values = self.attention.keys_values(normed)
    x += self.dropout(self.attention(normed, keys, values, mask))
    return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


class DecoderLayer(nn.Module):
  """Self-attention, attention to the source, feed-forward."""

  config: cfg.TransformerConfig

  def setup(self):
    c = self.config
    self.attention, self.cross = Attention(c), Attention(c)
    self.feed_forward = FeedForward(c)
    self.attention_norm, self.cross_norm = layer_norm(c), layer_norm(c)
    self.feed_forward_norm = layer_norm(c)
    self.dropout = dropout(c, c.dropout, -2)

  def __call__(
    self, x: Array, mask: Mask, source: CrossAttentionCache
  ) -> Array:
    """Maps float[B, T, D]; `source` is this layer's own, without the L."""
    normed = self.attention_norm(x)
    keys, values = self.attention.keys_values(normed)
    return self._after(x, normed, keys, values, mask, source)

  def step(
    self,
    x: Array,
    t: Array,
    past: SelfAttentionCache,
    history: Mask,
    source: CrossAttentionCache,
  ) -> tuple[Array, SelfAttentionCache]:
    """Takes one position of N hypotheses: float[B, N, D], and the cache after.

    Args:
      x: float[B, N, D].
      t: the position, an int32 scalar.
      past: of the positions before.
      history: bool[B, N, T N], true on the slots of each hypothesis's past.
      source: this layer's own, without the L.
    """
    normed = self.attention_norm(x)
    pack = functools.partial(matmul.pack, self.config)
    unpack = functools.partial(matmul.unpack, self.config)
    write = lax.dynamic_update_index_in_dim
    # XLA updates the caches of a loop in place as long as each is written once
    # and read after that.
    keys, values = self.attention.keys_values(normed)  # of N positions
    past = SelfAttentionCache(
      write(past.keys, pack(keys), t, axis=3),
      write(past.values, pack(values), t, axis=2),
    )
    *batch, length, hypotheses, size = past.values.shape
    slots = length * hypotheses
    keys = unpack(past.keys).reshape(*batch, size, slots)
    values = unpack(past.values).reshape(*batch, slots, size)
    return self._after(x, normed, keys, values, history, source), past

  def _after(self, x, normed, keys, values, mask, source) -> Array:
    """Attends to the target's past and to the source, then feeds forward."""
    x += self.dropout(self.attention(normed, keys, values, mask))
    normed = self.cross_norm(x)
    mask = source.mask[:, None]
    x += self.dropout(self.cross(normed, source.keys, source.values, mask))
    return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))
