"""Number of positions, the escape mixture, and from words to strings."""

from fractions import Fraction
import math

import jax.numpy as jnp

from latentnmt.masks import lengths, token_mask
from latentnmt.outputs.protocol import Likelihood
from latentnmt.types import EOS, PAD, Array, Mask, Nats, Tokens

# Log of a probability of zero, in sums that must stay finite: the gradient of
# the log of a sum of zeros is not a number.
NEVER = -1e30


def stretched(length, scale: float, extra: int):
  """Returns floor(scale * length) + extra of an int or of int32[B].

  In whole numbers, so that both are always the same.
  """
  ratio = Fraction(scale).limit_denominator(1000)
  return length * ratio.numerator // ratio.denominator + extra


def num_positions(
  source_lengths: Array, scale: float, extra: int, least: int
) -> Array:
  """Returns stretched lengths of `least` or more, int32[B]; 0 for no source."""
  positions = jnp.maximum(stretched(source_lengths, scale, extra), least)
  return jnp.where(source_lengths > 0, positions, 0)


def num_words(y: Tokens) -> Array:
  """Returns int32[B]: tokens before EOS; 0 where there is no string."""
  return jnp.maximum(lengths(token_mask(y)) - 1, 0)


def escape_log_prob(words: Array, mask: Mask, vocab_size: int) -> Nats:
  """Returns the log-probability of a string by the escape, float32[B].

  A geometric number of words, on average as many as there are positions, and
  any word as likely as any other.

  Args:
    words: int32[B], words of the string.
    mask: bool[B, U], positions.
    vocab_size: V, PAD and EOS included.
  """
  positions = lengths(mask).astype(jnp.float32)
  end = jnp.log1p(positions)
  # No positions, no words: 0 log 0 is 0 here.
  more = jnp.log(jnp.maximum(positions, 1)) - end
  word = more - math.log(max(vocab_size - 2, 1))
  return words.astype(jnp.float32) * word - end


def with_escape(
  log_prob: Nats, y: Tokens, mask: Mask, vocab_size: int, weight: float
) -> Likelihood:
  """Mixes a model's log-probabilities with those of the escape.

  Args:
    log_prob: float32[B], the model's own; `NEVER` or less for none.
    y: int32[B, T].
    mask: bool[B, U], positions.
    vocab_size: V.
    weight: of the escape, fixed: never tuned to a corpus.
  """
  escape = escape_log_prob(num_words(y), mask, vocab_size) + math.log(weight)
  own = log_prob + math.log1p(-weight)
  mixed = jnp.logaddexp(own, escape)
  unmixed = jnp.where(log_prob > NEVER / 2, log_prob, mixed)
  real = jnp.any(token_mask(y), axis=1)
  return Likelihood(
    jnp.where(real, mixed, 0), jnp.where(real, unmixed, 0),
    real & (escape > own),
  )  # fmt: skip


def strings(tokens: Tokens, keep: Mask, mask: Mask) -> Tokens:
  """Returns int32[B, U + 1]: the tokens that are kept, then EOS.

  Args:
    tokens: int32[B, U].
    keep: bool[B, U].
    mask: bool[B, U], positions; a row without any gives padding alone.
  """
  rows, size = jnp.arange(len(tokens))[:, None], tokens.shape[1] + 1
  place = jnp.where(keep, jnp.cumsum(keep, axis=1) - 1, size)
  found = jnp.full((len(tokens), size), PAD, tokens.dtype)
  found = found.at[rows, place].set(tokens, mode="drop")
  return end(found, jnp.any(mask, axis=1))


def end(tokens: Tokens, real: Array) -> Tokens:
  """Puts EOS after the words int32[..., T] of rows where bool[...] is true."""
  words = jnp.sum(tokens != PAD, axis=-1, keepdims=True)
  index = jnp.arange(tokens.shape[-1])
  place = index[(None,) * (tokens.ndim - 1)] == words
  return jnp.where(place & real[..., None], EOS, tokens)
