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
import operator

from flax import linen as nn
from flax import struct
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from latentnmt import config as cfg
from latentnmt import products
from latentnmt.types import Array, Mask, Params, Source


@struct.dataclass
class Memory:
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
class Steps:
  """What the steps of a search share.

  Layers are taken apart once a search: a loop would copy its part of a stacked
  array at every step.

  Attributes:
    layers: for each layer its parameters, and keys and values as in `Memory`.
    mask: bool[B, S].
  """

  layers: tuple[tuple[Params, Array, Array], ...]
  mask: Mask


@struct.dataclass
class Cache:
  """One layer's self-attention keys and values of N hypotheses a sentence.

  Slot n of step t belongs to whoever was hypothesis n at that step; which
  slots make up a hypothesis's past is for the caller's `history` to say, so a
  beam is re-ordered without moving the cache.

  Attributes:
    keys: float[B, H, D/H, T, N], or uint16 as `products.stored` has them.
    values: float[B, H, T, N, D/H], likewise.
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
    dense = functools.partial(products.dense, c, use_bias=False)
    head = functools.partial(dense, (c.heads, c.width // c.heads))
    self.query, self.key, self.value = head(), head(), head()
    self.out = dense(c.width, axis=(-2, -1))
    self.dropout = Dropout(c.attention_dropout, shared=(0, 1))

  def keys_values(self, memory: Array) -> tuple[Array, Array]:
    """Float[B, H, D/H, S] and float[B, H, S, D/H] from float[B, S, D]."""
    keys, values = self.key(memory), self.value(memory)
    return keys.transpose(0, 2, 3, 1), values.swapaxes(1, 2)

  def __call__(self, x: Array, keys: Array, values: Array, mask: Mask):
    """float[B, T, D] attends where bool[B or 1, T or 1, S] is true."""
    query = self.query(x).swapaxes(1, 2) * np.float32(keys.shape[2] ** -0.5)
    logits = products.einsum("bhtk,bhks->bhts", query.astype(keys.dtype), keys)
    logits = jnp.where(mask[:, None], logits, -1e9)
    weights = nn.softmax(logits, axis=-1).astype(values.dtype)
    weights = self.dropout(weights)
    # Heads before positions: products of a few rows are then several times as
    # fast on a CPU.
    found = products.einsum("bhts,bhsk->bhtk", weights, values)
    return self.out(found.swapaxes(1, 2).astype(x.dtype))


class FeedForward(nn.Module):
  """Two linear maps around a ReLU."""

  config: cfg.TransformerConfig

  @nn.compact
  def __call__(self, x: Array) -> Array:
    c = self.config
    hidden = nn.relu(products.dense(c, c.hidden, name="hidden")(x))
    hidden = Dropout(c.hidden_dropout, shared=(-2,))(hidden)
    return products.dense(c, c.width, name="out")(hidden)


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

  def step(self, x, t, cache: Cache, history: Mask, memory: Memory):
    """One position of N hypotheses: float[B, N, D] and the cache after it."""
    normed = self.attention_norm(x)
    stored = functools.partial(products.stored, self.config)
    restored = functools.partial(products.restored, self.config)
    write = lax.dynamic_update_index_in_dim
    keys, values = self.attention.keys_values(normed)  # of N positions
    cache = Cache(
      write(cache.keys, stored(keys), t, axis=3),
      write(cache.values, stored(values), t, axis=2),
    )
    *batch, length, hypotheses, size = cache.values.shape
    slots = length * hypotheses
    keys = restored(cache.keys).reshape(*batch, size, slots)
    values = restored(cache.values).reshape(*batch, slots, size)
    return self._after(x, normed, keys, values, history, memory), cache

  def _after(self, x, normed, keys, values, mask, memory):
    x += self.dropout(self.attention(normed, keys, values, mask))
    normed = self.cross_norm(x)
    mask = memory.mask[:, None]
    x += self.dropout(self.cross(normed, memory.keys, memory.values, mask))
    return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


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
    self.dropout = Dropout(self.config.dropout, shared=(-2,))
    self.layers = DecoderLayer(self.config)
    self.norm = _norm(self.config)

  def memory(self, source: Source) -> Memory:
    """Keys and values of all layers, in one batched product if stacked."""

    def keys_values(layer, states):
      return layer.cross.keys_values(states)

    if _are_apart(self.layers):
      found = [
        nn.apply(keys_values, layer)(variables, source.states)
        for layer, variables in _each(self.layers)
      ]
      keys, values = jax.tree.map(lambda *leaves: jnp.stack(leaves), *found)
    else:
      keys, values = nn.vmap(
        keys_values,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=None,
        axis_size=self.num_layers,
      )(self.layers, source.states)
    return Memory(keys, values, source.mask)

  def __call__(self, x: Array, mask: Mask, memory: Memory) -> Array:
    """float[B, T, D] to float[B, T, D]; bool[B, T] is true on real ones."""
    mask = mask[:, None]  # [B, 1, T]
    if self.causal:
      mask = mask & np.tri(x.shape[1], dtype=bool)[None]

    def layer(module, x, keys, values, mask, source_mask):
      return module(x, mask, Memory(keys, values, source_mask)), None

    in_axes = 0, 0, nn.broadcast, nn.broadcast
    over_layers = _over_layers(self, layer, in_axes)
    x, _ = over_layers(
      self.layers, self.dropout(x), memory.keys, memory.values, mask,
      memory.mask,
    )  # fmt: skip
    return self.norm(x)

  def start(
    self, memory: Memory, length: int, hypotheses: int
  ) -> tuple[Steps, tuple[Cache, ...]]:
    """What all steps share, and empty caches for `length` steps."""
    params = self.layers.variables["params"]
    if not _are_apart(self.layers):
      params = apart(params, self.config)
    dtype, slots = self.config.product_dtype, (length, hypotheses)
    keys, values = memory.keys.astype(dtype), memory.values.astype(dtype)
    layers = tuple(
      (params[str(i)], keys[i], values[i]) for i in range(self.num_layers)
    )
    batch, heads, size, _ = keys.shape[1:]
    cache = Cache(
      jnp.zeros((batch, heads, size, *slots), dtype),
      jnp.zeros((batch, heads, *slots, size), dtype),
    )
    cache = jax.tree.map(functools.partial(products.stored, self.config), cache)
    caches = (cache,) * self.num_layers
    return Steps(layers, memory.mask), caches

  def step(
    self, x, t, caches: tuple[Cache, ...], history: Mask, steps: Steps
  ) -> tuple[Array, tuple[Cache, ...]]:
    """Position t of N hypotheses a sentence.

    Args:
      x: float[B, N, D], the embedded input of this position.
      t: the position, an int32 scalar.
      caches: of the positions before, one of each layer.
      history: bool[B, N, T, N], true on the slots that are a hypothesis's own
        past, and its own slot at step t.
      steps: as `start` gives it.

    Returns:
      float[B, N, D] and the caches with position t in them.
    """
    history = history.reshape(*history.shape[:2], -1)
    layer, after = DecoderLayer(self.config, parent=None), []
    for (params, keys, values), cache in zip(steps.layers, caches, strict=True):
      memory = Memory(keys, values, steps.mask)
      x, cache = layer.apply(
        {"params": params}, x, t, cache, history, memory, method="step"
      )
      after.append(cache)
    return self.norm(x), tuple(after)


def apart(params: Params, config: cfg.TransformerConfig) -> Params:
  """Stacked parameters of layers as those of "0", "1", ... by themselves.

  A loop over stacked layers copies each before it is used; what is apart is
  used where it lies. Kernels are of the dtype in which they multiply.

  Args:
    params: of the layers of a stack.
    config: of the stack.
  """
  stacked = jax.tree.map(
    lambda v: v.astype(config.product_dtype) if v.ndim > 2 else v, params
  )
  number = len(jax.tree.leaves(stacked)[0])
  return {
    str(i): jax.tree.map(operator.itemgetter(i), stacked) for i in range(number)
  }


def _are_apart(layers: nn.Module) -> bool:
  return "0" in layers.variables.get("params", {})


def _each(layers: nn.Module):
  """Each of the layers that are apart: a module and its variables."""
  params = layers.variables["params"]
  alone = type(layers)(layers.config, parent=None)
  return [(alone, {"params": params[str(i)]}) for i in range(len(params))]


def _one_by_one(layer, in_axes, layers: nn.Module, carry, *xs):
  """As what `_over_layers` scans, of layers that are apart."""
  for i, (alone, variables) in enumerate(_each(layers)):
    own = (
      x[i] if axis == 0 else x for x, axis in zip(xs, in_axes, strict=True)
    )
    carry, _ = nn.apply(layer, alone)(variables, carry, *own)
  return carry, None


def _over_layers(stack: nn.Module, layer, in_axes):
  """`layer(module, carry, *xs)` over the layers of a stack."""
  c = stack.config
  if _are_apart(stack.layers):
    if stack.has_rng("dropout"):
      raise ValueError("Parameters for inference are not to be trained.")
    return functools.partial(_one_by_one, layer, in_axes)
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
    dense = nn.Dense(self.features, use_bias=False)
    # A gain of our own: `nn.WeightNorm` multiplies by its at `init` and stores
    # the product, so that with a gain of zero no gradient ever reaches either.
    normed = nn.WeightNorm(dense, use_scale=False)(x.astype(jnp.float32))
    gain = self.param("gain", self.gain_init, (self.features,))
    bias = self.param("bias", nn.initializers.zeros, (self.features,))
    every = (None,) * (x.ndim - 1)
    return normed * gain[every] + bias[every]
