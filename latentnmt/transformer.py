"""Pre-norm Transformer stacks (Vaswani et al. 2017), scanned over layers.

Dropout is active exactly where a "dropout" rng is given to `apply`; no module
takes a training flag. Its noise is shared along the length (and, for attention
weights, over sentences and heads), as in the paper's public code: cheaper, and
a unit is dropped for a whole sentence.

Decoders attend to the source through a `Memory`: the keys and values of every
layer, computed once per sentence by `DecoderStack.memory`. Under `jax.vmap`
over samples, candidates or beams they stay one copy.
"""

import functools

from flax import linen as nn
from flax import struct
from jax import lax
import jax.numpy as jnp
import numpy as np

from latentnmt import config as cfg
from latentnmt.types import Array, Mask, Source

_dense_init = nn.initializers.xavier_uniform()


@struct.dataclass
class Memory:
  """Cross-attention keys and values of each of L layers.

  Attributes:
    keys: float[L, B, S, H, D/H].
    values: float[L, B, S, H, D/H].
    mask: bool[B, S].
  """

  keys: Array
  values: Array
  mask: Mask


@struct.dataclass
class Cache:
  """Self-attention keys and values of N hypotheses a sentence.

  Slot n of step t belongs to whoever was hypothesis n at that step; which
  slots make up a hypothesis's past is for the caller's `history` to say, so a
  beam is re-ordered without moving the cache.

  Attributes:
    keys: float[L, B, T, N, H, D/H].
    values: float[L, B, T, N, H, D/H].
  """

  keys: Array
  values: Array


def sinusoids(length: int, width: int) -> np.ndarray:
  """float32[length, width]: [sines | cosines] of geometric timescales."""
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
    drop = nn.Dropout(self.rate, broadcast_dims=self.shared)
    return drop(x, deterministic=not self.has_rng("dropout"))


class Attention(nn.Module):
  """Multi-head attention without biases."""

  config: cfg.TransformerConfig

  def setup(self):
    c = self.config
    head = functools.partial(
      nn.DenseGeneral,
      features=(c.heads, c.width // c.heads),
      use_bias=False,
      kernel_init=_dense_init,
      dtype=c.dtype,
    )
    self.query, self.key, self.value = head(), head(), head()
    self.out = nn.DenseGeneral(
      c.width,
      axis=(-2, -1),
      use_bias=False,
      kernel_init=_dense_init,
      dtype=c.dtype,
    )
    self.dropout = Dropout(c.attention_dropout, shared=(0, 1))

  def keys_values(self, memory: Array) -> tuple[Array, Array]:
    """Two float[B, S, H, D/H] from float[B, S, D]."""
    return self.key(memory), self.value(memory)

  def __call__(self, x: Array, keys: Array, values: Array, mask: Mask):
    """float[B, T, D] attends where bool[B or 1, T or 1, S] is true."""
    query = self.query(x) * np.float32(keys.shape[-1] ** -0.5)
    logits = jnp.einsum(
      "bthk,bshk->bhts", query, keys, preferred_element_type=jnp.float32
    )
    logits = jnp.where(mask[:, None], logits, -1e9)
    weights = nn.softmax(logits, axis=-1).astype(values.dtype)
    weights = self.dropout(weights)
    return self.out(jnp.einsum("bhts,bshk->bthk", weights, values))


class FeedForward(nn.Module):
  """Two linear maps around a ReLU."""

  config: cfg.TransformerConfig

  @nn.compact
  def __call__(self, x: Array) -> Array:
    c = self.config
    dense = functools.partial(nn.Dense, kernel_init=_dense_init, dtype=c.dtype)
    hidden = nn.relu(dense(c.hidden, name="hidden")(x))
    hidden = Dropout(c.hidden_dropout, shared=(-2,))(hidden)
    return dense(c.width, name="out")(hidden)


class EncoderLayer(nn.Module):
  """Self-attention and feed-forward, each normed before and added after."""

  config: cfg.TransformerConfig

  def setup(self):
    c = self.config
    self.attention, self.feed_forward = Attention(c), FeedForward(c)
    self.attention_norm, self.feed_forward_norm = _norm(c), _norm(c)
    self.dropout = Dropout(c.dropout, shared=(-2,))

  def __call__(self, x: Array, mask: Mask) -> Array:
    """float[B, T, D] where bool[B or 1, T or 1, T] says who sees whom."""
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
    self.attention_norm, self.cross_norm = _norm(c), _norm(c)
    self.feed_forward_norm = _norm(c)
    self.dropout = Dropout(c.dropout, shared=(-2,))

  def __call__(self, x: Array, mask: Mask, memory: Memory) -> Array:
    """As `EncoderLayer`; `memory` is this layer's own, without the L."""
    normed = self.attention_norm(x)
    keys, values = self.attention.keys_values(normed)
    return self._after(x, normed, keys, values, mask, memory)

  def step(self, x, cache: Cache, layer, t, history: Mask, memory: Memory):
    """One position of N hypotheses: float[B, N, D] and the cache after it."""
    normed = self.attention_norm(x)
    keys, values = self.attention.keys_values(normed)  # [B, N, H, D/H]
    cache = Cache(
      _write(cache.keys, keys, layer, t),
      _write(cache.values, values, layer, t),
    )
    return self._after(
      x, normed, _read(cache.keys, layer), _read(cache.values, layer),
      history, memory,
    ), cache  # fmt: skip

  def _after(self, x, normed, keys, values, mask, memory):
    x += self.dropout(self.attention(normed, keys, values, mask))
    normed = self.cross_norm(x)
    mask = memory.mask[:, None]
    x += self.dropout(self.cross(normed, memory.keys, memory.values, mask))
    return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


def _write(cache: Array, new: Array, layer, t) -> Array:
  return lax.dynamic_update_slice(
    cache, new[None, :, None], (layer, 0, t, 0, 0, 0)
  )


def _read(cache: Array, layer) -> Array:
  """float[B, T N, H, D/H]: every slot of one layer, in a row."""
  slots = lax.dynamic_index_in_dim(cache, layer, keepdims=False)
  return slots.reshape(slots.shape[0], -1, *slots.shape[3:])


def _norm(config: cfg.TransformerConfig) -> nn.LayerNorm:
  return nn.LayerNorm(epsilon=1e-6, dtype=config.dtype)


class EncoderStack(nn.Module):
  """Dropout, `num_layers` encoder layers and a last norm."""

  config: cfg.TransformerConfig
  num_layers: int

  def setup(self):
    self.dropout = Dropout(self.config.dropout, shared=(-2,))
    self.layers = EncoderLayer(self.config)
    self.norm = _norm(self.config)

  def __call__(self, x: Array, mask: Mask) -> Array:
    """float[B, S, D] to float[B, S, D]; bool[B, S] hides padding."""

    def layer(module, x, mask):
      return module(x, mask), None

    over_layers = _scan(self, layer, in_axes=(nn.broadcast,))
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
    self.dropout = Dropout(self.config.dropout, shared=(-2,))
    self.layers = DecoderLayer(self.config)
    self.norm = _norm(self.config)

  def memory(self, source: Source) -> Memory:
    """Keys and values of all layers, in one batched product."""
    keys_values = nn.vmap(
      lambda layer, states: layer.cross.keys_values(states),
      variable_axes={"params": 0},
      split_rngs={"params": True},
      in_axes=None,
      axis_size=self.num_layers,
    )
    keys, values = keys_values(self.layers, source.states)
    return Memory(keys, values, source.mask)

  def __call__(self, x: Array, mask: Mask, memory: Memory) -> Array:
    """float[B, T, D] to float[B, T, D]; bool[B, T] is true on real ones."""
    mask = mask[:, None]  # [B, 1, T]
    if self.causal:
      mask = mask & np.tri(x.shape[1], dtype=bool)[None]

    def layer(module, x, keys, values, mask, source_mask):
      return module(x, mask, Memory(keys, values, source_mask)), None

    over_layers = _scan(self, layer, in_axes=(0, 0, nn.broadcast, nn.broadcast))
    x, _ = over_layers(
      self.layers, self.dropout(x), memory.keys, memory.values, mask,
      memory.mask,
    )  # fmt: skip
    return self.norm(x)

  def start(self, batch: int, length: int, hypotheses: int) -> Cache:
    """An empty cache for `length` steps."""
    c = self.config
    shape = (self.num_layers, batch, length, hypotheses)
    zeros = jnp.zeros((*shape, c.heads, c.width // c.heads), c.dtype)
    return Cache(zeros, zeros)

  def step(self, x, t, cache: Cache, history: Mask, memory: Memory):
    """Position t of N hypotheses a sentence.

    Args:
      x: float[B, N, D], the embedded input of this position.
      t: the position, an int32 scalar.
      cache: of the positions before.
      history: bool[B, N, T, N], true on the slots that are a hypothesis's own
        past, and its own slot at step t.
      memory: of the source.

    Returns:
      float[B, N, D] and the cache with position t in it.
    """
    history = history.reshape(*history.shape[:2], -1)

    def layer(module, carry, index, keys, values):
      x, cache = carry
      memory_ = Memory(keys, values, memory.mask)
      return module.step(x, cache, index, t, history, memory_), None

    over_layers = _scan(self, layer, in_axes=(0, 0, 0))
    index = jnp.arange(self.num_layers)
    (x, cache), _ = over_layers(
      self.layers, (x, cache), index, memory.keys, memory.values
    )
    return self.norm(x), cache


def _scan(stack: nn.Module, layer, in_axes):
  """`layer(module, carry, *xs)` over the layers of a stack."""
  c = stack.config
  if c.remat:
    layer = nn.remat(layer, prevent_cse=not c.scan_layers)
  return nn.scan(
    layer,
    variable_axes={"params": 0},
    split_rngs={"params": True, "dropout": True},
    in_axes=in_axes,
    length=stack.num_layers,
    unroll=1 if c.scan_layers else stack.num_layers,
  )


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
    dense = nn.Dense(self.features, kernel_init=nn.initializers.normal(0.05))
    return nn.WeightNorm(dense, scale_init=self.gain_init)(
      x.astype(jnp.float32)
    )
