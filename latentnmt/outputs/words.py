"""The distribution of one word at each position: a softmax without PAD and EOS.

Functions of the operands of the softmax: states float[B, U, D] and the whole
table float[V, D]. Nothing here keeps logits of a whole vocabulary.
"""

import functools

from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from latentnmt import embedding as embeddings
from latentnmt import matmul
from latentnmt.keys import fold_in_all, fold_in_each
from latentnmt.types import EOS, PAD, Array, Key, Tokens

# Rows of the table from here on are words. What is no word never takes part in
# a normaliser: taken out afterwards it could leave next to nothing.
FIRST = EOS + 1


def own_logits(states: Array, table: Array, tokens: Tokens) -> Array:
  """Returns each of T tokens' logit at each position, float32[B, T, U]."""
  return matmul.einsum("btd,bud->btu", table[tokens], states)


def blank_logits(states: Array, table: Array) -> Array:
  """Returns the logit of the blank, the table's row of PAD, float32[B, U]."""
  return matmul.einsum("bud,d->bu", states, table[PAD])


def log_normaliser(states: Array, table: Array) -> Array:
  """Returns log of the sum over words of exp(logit), float32[B, U]."""
  # Many positions to a token: their logits would be most of the memory.
  return embeddings.log_normaliser(states, table, FIRST, False)


def likeliest(states: Array, table: Array) -> tuple[Tokens, Array, Array]:
  """Returns the likeliest word, its logit and the log-normaliser."""
  return embeddings.likeliest(states, table, FIRST)


def top(states: Array, table: Array, count: int) -> tuple[Array, Array, Array]:
  """Returns the likeliest words of each position, best first.

  Returns:
    int32[B, U, k], their logits float32[B, U, k], and the log-normaliser
    float32[B, U]. A logit is minus infinity where there are fewer words.
  """

  def part(rows_tokens):
    rows, tokens = rows_tokens
    logits = embeddings.part_logits(states, rows, tokens, len(table), FIRST)
    best, index = lax.top_k(logits, min(count, logits.shape[-1]))
    return best, jnp.asarray(tokens)[index], nn.logsumexp(logits, axis=-1)

  parts = embeddings.few_parts(table, states.shape[0] * states.shape[1])
  best, tokens, each = lax.map(part, parts)  # [n, B, U, k]
  best, tokens = (
    jnp.moveaxis(v, 0, 2).reshape(*states.shape[:2], -1) for v in (best, tokens)
  )
  best, index = lax.top_k(best, min(count, best.shape[-1]))
  tokens = jnp.take_along_axis(tokens, index, axis=2)
  return tokens, best, nn.logsumexp(each, axis=0)


def draw(
  keys: Key, states: Array, table: Array, temperature: float
) -> tuple[Tokens, Array, Array]:
  """Draws a word at each position, each from its own random numbers.

  Args:
    keys: typed keys [B], one for each sentence.
    states: float[B, U, D].
    table: float[V, D].
    temperature: divides the logits.

  Returns:
    int32[B, U], the word's logit and the log-normaliser, both float32[B, U]
    and divided by the temperature.
  """

  def part(drawn, rows_tokens_number):
    token, logit, normaliser = drawn
    rows, tokens, number = rows_tokens_number
    logits = embeddings.part_logits(states, rows, tokens, len(table), FIRST)
    logits /= temperature
    numbers = uniform_each(fold_in_all(keys, number), states.shape[1], 2)
    within, swap = numbers[..., 0], numbers[..., 1]
    index = choose(within, logits)
    own = nn.logsumexp(logits, axis=-1)
    normaliser = jnp.logaddexp(normaliser, own)
    # A word of this part replaces one of the parts before with the share that
    # this part has in all so far: a reservoir of one.
    swap = jnp.log(swap) < own - normaliser
    found = jnp.take_along_axis(logits, index[..., None], axis=-1)[..., 0]
    token = jnp.where(swap, jnp.asarray(tokens)[index], token)
    return (token, jnp.where(swap, found, logit), normaliser), None

  rows, tokens = embeddings.parts(table)
  numbers = np.arange(len(tokens), dtype=np.int32)
  zero = jnp.zeros(states.shape[:2])
  start = zero.astype(jnp.int32), zero, zero - jnp.inf
  drawn, _ = lax.scan(part, start, (rows, tokens, numbers))
  return drawn


def choose(number: Array, logits: Array) -> Array:
  """Returns the index that a number in [0, 1) draws from softmax(logits).

  Args:
    number: float32[...].
    logits: float32[..., N].
  """
  probs = jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True))
  mass = jnp.cumsum(probs, axis=-1)
  # Strictly below the sum, whatever the rounding: an index of no probability
  # is never drawn.
  below = mass <= number[..., None] * mass[..., -1:]
  return jnp.sum(below, axis=-1, dtype=jnp.int32)


def uniform_each(keys: Key, positions: int, count: int) -> Array:
  """Returns float32[B, U, count] in [0, 1), a position's from its own key.

  So what a sentence draws is the same however far its batch pads it.
  """
  keys = jax.vmap(fold_in_each, (0, None))(keys, jnp.arange(positions))
  numbers = functools.partial(jax.random.uniform, shape=(count,))
  return jax.vmap(jax.vmap(numbers))(keys)
