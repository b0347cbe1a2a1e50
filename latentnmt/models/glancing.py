"""Glancing: in training a decoder is shown some words that it got wrong.

Qian et al. (2021). A first pass, of which no gradient is taken, says which of
the reference's words the decoder would write; a share of as many as it got
wrong, at random places, is put into the input of a second pass. What is shown
is given away: the second pass has no likelihood of the sentence, and an
evaluation never glances.
"""

from flax import linen as nn
import jax
import jax.numpy as jnp

from latentnmt.embedding import Embedding
from latentnmt.types import EOS, PAD, Array, Key, Mask, Tokens


def glimpse(
  output: nn.Module,
  embedding: Embedding,
  states: Array,
  y: Tokens,
  mask: Mask,
  key: Key,
  share: Array,
) -> Tokens:
  """Returns the words to show, int32[B, U], PAD where there is none.

  Args:
    output: with the contract `Output`.
    embedding: of the model.
    states: float[B, U, D], of the first pass.
    y: int32[B, T].
    mask: bool[B, U].
    key: of what is chosen.
    share: of the wrong words, a scalar.
  """
  states = jax.lax.stop_gradient(states)
  index, _ = output.alignment(embedding, states, y, mask)
  word = jnp.take_along_axis(y, jnp.maximum(index, 0), axis=1)
  # EOS is in the structure of an output: there is nothing to show.
  word = jnp.where((index >= 0) & (word != EOS), word, PAD)
  guess, _ = output.likeliest(embedding, states)
  return choose(word, guess, key, share)


def choose(word: Tokens, guess: Tokens, key: Key, share: Array) -> Tokens:
  """Returns some of the words, as many as a share of the wrong guesses.

  Args:
    word: int32[B, U], the right ones; PAD where nothing is to be shown.
    guess: int32[B, U].
    key: of what is chosen.
    share: a scalar.
  """
  shown = word != PAD
  wrong = jnp.sum(shown & (guess != word), axis=1, keepdims=True)
  number = jnp.round(share * wrong).astype(jnp.int32)
  place = jax.random.uniform(key, word.shape)
  place = jnp.where(shown, place, 2.0)  # behind all others
  rank = jnp.argsort(jnp.argsort(place, axis=1), axis=1)
  return jnp.where(shown & (rank < number), word, PAD)


def show(inputs: Array, words: Tokens, embedding: Embedding) -> Array:
  """Puts embedded words int32[B, U] into a decoder's input float[B, U, D]."""
  shown = (words != PAD)[..., None]
  return jnp.where(shown, embedding(words).astype(inputs.dtype), inputs)
