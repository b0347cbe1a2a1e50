"""Random keys, one for each sentence: no result depends on its batch."""

import functools

import jax
import jax.numpy as jnp

from latentnmt.errors import InputError
from latentnmt.types import Array, Key


def row_keys(key: Key, rows: int) -> Key:
  """Returns typed keys [rows]: fold_in(key, b) of one key, or keys as given.

  Raises:
    InputError: for a key that is not of `jax.random.key`, or keys that are
      not one or `rows`.
  """
  if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
    raise InputError("key: pass jax.random.key(seed), not a uint32 key.")
  if key.shape not in ((), (rows,)):
    raise InputError(f"key: {key.shape} keys for {rows} sentences.")
  # Not `split`: its keys depend on how many there are.
  return key if key.ndim else fold_in_each(key, jnp.arange(rows))


@jax.jit
def fold_in_each(key: Key, numbers: Array) -> Key:
  """Returns typed keys [n]: fold_in(key, i) for each i of int32[n]."""
  return jax.vmap(jax.random.fold_in, (None, 0))(key, numbers)


def normal_each(keys: Key, shape: tuple[int, int, int]) -> Array:
  """Draws float32[B, T, C] of N(0, 1), at each position from its own key.

  A sentence's noise is then the same however far its batch pads it.

  Args:
    keys: typed keys [B], one for each sentence.
    shape: B, T, C.
  """
  _, length, channels = shape
  # One draw of a shape would not do: its numbers depend on the whole shape.
  keys = jax.vmap(fold_in_each, (0, None))(keys, jnp.arange(length))  # [B, T]
  draw = functools.partial(jax.random.normal, shape=(channels,))
  return jax.vmap(jax.vmap(draw))(keys)


def fold_in_all(keys: Key, number: Array) -> Key:
  """Returns typed keys [n]: fold_in(key, number) for each of keys [n]."""
  return jax.vmap(jax.random.fold_in, (0, None))(keys, number)
