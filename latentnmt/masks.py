"""Masks, shifts and the end of a sentence.

Worked example, PAD = 0 and EOS = 1, two sentences in T = 5:

  y                    7 8 1 0 0     9 1 0 0 0
  token_mask(y)        1 1 1 0 0     1 1 0 0 0
  shift_right(y)       0 7 8 1 0     0 9 1 0 0
  append_eos(y, 4)     7 8 1 1 0     9 1 1 1 0
  trim(z): after EOS   7 8 1 0 0 <-  7 8 1 9 1
"""

import jax.numpy as jnp

from latentnmt.types import EOS, PAD, Array, Mask, Tokens


def token_mask(tokens: Tokens) -> Mask:
  """Returns bool[B, T], true on everything but padding."""
  return tokens != PAD


def lengths(mask: Mask) -> Array:
  """Counts the real positions of each row, int32[B]."""
  return jnp.sum(mask, axis=-1, dtype=jnp.int32)


def length_mask(length: Array, size: int) -> Mask:
  """Returns bool[B, size], true on the first `length` (int32[B]) positions."""
  return jnp.arange(size)[None, :] < length[:, None]


def shift_right(tokens: Tokens) -> Tokens:
  """Returns what a causal decoder reads: targets a step later, PAD first."""
  return jnp.pad(tokens, ((0, 0), (1, 0)), constant_values=PAD)[:, :-1]


def append_eos(tokens: Tokens, multiple: int) -> Tokens:
  """Fills each sentence up with EOS to a multiple of `multiple` positions.

  T grows to such a multiple too, if it is none. Empty rows stay empty.
  """
  if multiple == 1:
    return tokens
  # -T % m is what T lacks of a multiple of m.
  tokens = jnp.pad(tokens, ((0, 0), (0, -tokens.shape[1] % multiple)))
  length = lengths(token_mask(tokens))
  filled = length_mask(round_up(length, multiple), tokens.shape[1])  # 0 stays 0
  return jnp.where(filled & ~token_mask(tokens), EOS, tokens)


def round_up(value, multiple: int):
  """Returns the smallest multiple of `multiple` that is at least `value`."""
  return -(-value // multiple) * multiple  # // rounds down, -(-a // b) up


def real_mask(tokens: Tokens) -> Mask:
  """Returns bool[..., T], true up to and including each row's first EOS."""
  # Minus the token itself, so that it counts the EOS before: the first stays.
  ended = jnp.cumsum(tokens == EOS, axis=-1) - (tokens == EOS)
  return (ended == 0) & (tokens != PAD)


def trim(tokens: Tokens) -> Tokens:
  """Pads everything after each row's first EOS."""
  return jnp.where(real_mask(tokens), tokens, PAD)


def take_rows(values: Array, index: Array) -> Array:
  """Takes rows int32[B, M] of each of B matrices [B, N, T]: [B, M, T]."""
  return jnp.take_along_axis(values, index[:, :, None], axis=1)


def masked_sum(values: Array, mask: Mask) -> Array:
  """Sums over all but the first axis where a mask is true: float32[B].

  Args:
    values: float[B, T] or float[B, T, C].
    mask: bool[B, T].
  """
  mask = mask.reshape(
    mask.shape + (1,) * (values.ndim - mask.ndim)
  )  # [B, T, 1]
  axes = tuple(range(1, values.ndim))
  # Not `values * mask`: on padding there may be an infinity, and 0 inf is nan.
  return jnp.sum(jnp.where(mask, values, 0.0), axis=axes, dtype=jnp.float32)
