"""Small random inputs."""

import jax
import jax.numpy as jnp

from latentnmt.masks import length_mask
from latentnmt.types import EOS, PAD, Array, Batch, Key, Params, Source, Tokens

SOURCE_LENGTHS = (5, 3, 2)
_WIDTH = 16  # of the states, which a module takes as they come


def random_batch(
  key: Key, *, vocab_size: int = 20, rows: int = 3, length: int = 6
) -> Batch:
  """Draws sentences of 2 to `length` tokens, EOS included."""

  def sentences(key):
    key_length, key_token = jax.random.split(key)
    size = jax.random.randint(key_length, (rows, 1), 2, length + 1)
    return random_tokens(key_token, vocab_size, size, length)

  key_x, key_y = jax.random.split(key)
  return Batch(sentences(key_x), sentences(key_y))


def random_tokens(
  key: Key, vocab_size: int, size: Array, length: int
) -> Tokens:
  """Draws int32[B, length] of sentences of int32[B, 1] tokens."""
  shape = len(size), length
  tokens = jax.random.randint(key, shape, EOS + 1, vocab_size)  # not PAD, EOS
  position = jnp.arange(length)[None]
  tokens = jnp.where(position == size - 1, EOS, tokens)
  return jnp.where(position < size, tokens, PAD)


def random_source(key: Key) -> Source:
  """Draws the states of sources of `SOURCE_LENGTHS` positions."""
  lengths, size = jnp.array(SOURCE_LENGTHS), max(SOURCE_LENGTHS)
  states = jax.random.normal(key, (len(lengths), size, _WIDTH))
  return Source(states, length_mask(lengths, size))


def perturb(params: Params, key: Key, scale: float = 0.1) -> Params:
  """Returns parameters plus Gaussian noise, so that no zero hides a fault."""
  leaves, treedef = jax.tree.flatten(params)
  keys = jax.random.split(key, len(leaves))
  noisy = [
    leaf + scale * jax.random.normal(key, leaf.shape, leaf.dtype)
    for leaf, key in zip(leaves, keys, strict=True)
  ]
  return jax.tree.unflatten(treedef, noisy)
