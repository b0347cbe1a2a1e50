"""Random keys, one for each sentence: no result depends on its batch."""

import jax
import jax.numpy as jnp

from latentnmt.types import Array, InputError, Key


def row_keys(key: Key, rows: int) -> Key:
  """Typed keys [rows]: fold_in(key, b) of one key, or such keys themselves.

  Raises:
    InputError: for a key that is not of `jax.random.key`, or keys that are
      not one or `rows`.
  """
  if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
    raise InputError("key: pass jax.random.key(seed), not a uint32 key.")
  if key.shape not in ((), (rows,)):
    raise InputError(f"key: {key.shape} keys for {rows} sentences.")
  return key if key.ndim else fold_in_each(key, jnp.arange(rows))


def fold_in_each(key: Key, numbers: Array) -> Key:
  """Typed keys [n]: fold_in(key, i) for each i of int32[n]."""
  return jax.vmap(jax.random.fold_in, (None, 0))(key, numbers)
