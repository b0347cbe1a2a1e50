"""The length predictor p(T|x) of models that need the length beforehand."""

import math

from flax import linen as nn
import jax
import jax.numpy as jnp

from latentnmt.masks import lengths, round_up
from latentnmt.types import Array, Key, Mask, Nats, Source


class LengthPredictor(nn.Module):
  """p(T|x): a classifier of T - S on the mean of the source states.

  Two hidden layers, 2 `bound` + 1 classes. A class that would give no positive
  multiple of `multiple` is impossible.

  Attributes:
    width: of the hidden layers.
    bound: the largest difference of lengths; large enough that two or more of
      any 2 `bound` + 1 lengths in a row are multiples.
    multiple: divides every target length.
    gradient: whether the loss of the length trains the encoder, too.
  """

  width: int
  bound: int
  multiple: int
  gradient: bool

  @nn.compact
  def __call__(self, source: Source) -> Array:
    """Returns the log-probability of each class, float32[B, 2 bound + 1]."""
    states, mask = source.states.astype(jnp.float32), source.mask[..., None]
    # As in the paper's code, lengths are read off states that others train.
    if not self.gradient:
      states = jax.lax.stop_gradient(states)
    # An empty row has no states to average, and must not divide by zero.
    count = jnp.maximum(jnp.sum(mask, axis=1), 1)
    h = jnp.sum(jnp.where(mask, states, 0), axis=1) / count
    h = nn.elu(nn.Dense(self.width)(h))
    h = nn.elu(nn.Dense(self.width)(h))
    logits = nn.Dense(2 * self.bound + 1)(h)
    return nn.log_softmax(jnp.where(self._possible(source), logits, -1e9))

  def log_prob(self, length: Array, source: Source, tails: bool) -> Nats:
    """Returns log p(T|x) of the target lengths int32[B], float32[B] nats.

    A length of 0 is of no sentence, and has zero nats.

    A length beyond the classes counts as its nearest class. With `tails`,
    an end class gives half its mass to its own length, a quarter to the next
    beyond and so on. Below, the halving stops at the shortest possible length,
    which gets what is left. So p(T|x) sums to one over all lengths and is never
    zero.
    """
    log_probs, lowest, highest = self._range(source)
    # Beyond the classes the nearest one stands in; its tail pays for the rest.
    nearest = jnp.clip(length, lowest, highest)
    index = nearest - lengths(source.mask) + self.bound
    log_prob = jnp.take_along_axis(log_probs, index[:, None], axis=1)[:, 0]
    if tails:
      log_prob += self._tail(length, lowest, highest)
    return jnp.where(length > 0, log_prob, 0.0)

  def best(self, source: Source, count: int) -> tuple[Array, Nats]:
    """Returns the `count` likeliest lengths, int32[B, count], and log p."""
    log_probs, classes = jax.lax.top_k(self(source), count)
    length = lengths(source.mask)[:, None] + classes - self.bound
    return round_up(jnp.maximum(length, 1), self.multiple), log_probs

  def sample(self, keys: Key, source: Source) -> tuple[Array, Nats]:
    """Draws lengths from p(T|x), tails and all, and returns log p of each.

    Args:
      keys: typed keys [B].
      source: B sentences.

    Returns:
      int32[B] and float32[B].
    """
    log_probs, lowest, highest = self._range(source)
    key_class, key_tail = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
    classes = jax.vmap(jax.random.categorical)(key_class, log_probs)
    length = lengths(source.mask) + classes - self.bound
    # Of a number in (0, 1] half is above 1/2, a quarter below that above 1/4:
    # how often the mass is halved.
    number = 1 - jax.vmap(jax.random.uniform)(key_tail)
    beyond = self.multiple * jnp.floor(-jnp.log2(number)).astype(jnp.int32)
    length += jnp.where(length == highest, beyond, 0)
    length -= jnp.where(length == lowest, beyond, 0)
    length = jnp.maximum(length, self.multiple)
    return length, self.log_prob(length, source, tails=True)

  def _possible(self, source: Source) -> Mask:
    length = self._lengths(source)
    return (length > 0) & (length % self.multiple == 0)

  def _lengths(self, source: Source) -> Array:
    classes = jnp.arange(-self.bound, self.bound + 1)
    return lengths(source.mask)[:, None] + classes[None, :]

  def _range(self, source: Source):
    log_probs = self(source)
    possible, length = self._possible(source), self._lengths(source)
    lowest = jnp.min(jnp.where(possible, length, 1 << 30), axis=1)
    return log_probs, lowest, jnp.max(jnp.where(possible, length, 0), axis=1)

  def _tail(self, length: Array, lowest: Array, highest: Array) -> Nats:
    above = jnp.maximum(length - highest, 0) // self.multiple
    below = jnp.maximum(lowest - length, 0) // self.multiple
    depth = lowest // self.multiple - 1  # how many shorter lengths there are
    halvings_above = jnp.where(length >= highest, above + 1, 0)
    halvings_below = jnp.where(
      length <= lowest, jnp.minimum(below + 1, depth), 0
    )
    return -math.log(2.0) * (halvings_above + halvings_below)
