"""Token sequences of both sides, in flat arrays."""

from collections.abc import Sequence

import numpy as np

from latentnmt.types import PAD, Batch


class TokenStore:
  """Pairs of token sequences in flat arrays, which may be memory-mapped.

  Args:
    x: uint16[total], source tokens of all pairs, one after the other.
    x_offsets: int64[n + 1], where each begins and, last, the end.
    y: uint16[total], targets.
    y_offsets: int64[n + 1].
  """

  def __init__(self, x, x_offsets, y, y_offsets):
    # A view as a plain array: slicing a np.memmap itself is ten times slower.
    self.x, self.x_offsets = np.asarray(x), np.asarray(x_offsets)
    self.y, self.y_offsets = np.asarray(y), np.asarray(y_offsets)
    self.lengths = np.stack(
      [np.diff(self.x_offsets), np.diff(self.y_offsets)], axis=1
    ).astype(np.int32)  # [n, 2], with EOS

  @classmethod
  def from_sequences(cls, x: Sequence, y: Sequence) -> "TokenStore":
    """Returns a store in memory of sequences of ids that end in EOS."""
    return cls(*flatten(x), *flatten(y))

  def __len__(self) -> int:
    """Counts pairs."""
    return len(self.lengths)

  def gather(self, ids, source_length: int, target_length: int) -> Batch:
    """Returns a batch of int32[B, S] and int32[B, T] numpy arrays.

    Args:
      ids: int[B], pairs; -1 for a row that is all padding.
      source_length: S, no smaller than any source.
      target_length: T, no smaller than any target.
    """
    ids = np.asarray(ids)
    return Batch(
      x=_gather(self.x, self.x_offsets, ids, source_length),
      y=_gather(self.y, self.y_offsets, ids, target_length),
    )


def flatten(rows: Sequence) -> tuple[np.ndarray, np.ndarray]:
  """Joins sequences of ids: uint16[total] and offsets int64[n + 1]."""
  offsets = np.zeros(len(rows) + 1, np.int64)
  np.cumsum([len(row) for row in rows], out=offsets[1:])
  # Without a list of all of them on the way.
  flat = np.fromiter((i for row in rows for i in row), np.uint16, offsets[-1])
  return flat, offsets


def _gather(flat, offsets, ids, size: int) -> np.ndarray:
  """Returns sequences as the padded rows of int32[B, size]."""
  real = ids >= 0
  start = np.where(real, offsets[ids], 0)  # id -1 reads the last offset
  length = np.where(real, offsets[ids + 1] - start, 0)
  if length.max(initial=0) > size:
    raise ValueError(f"A sequence of {length.max()} tokens in {size} columns.")
  column = np.arange(size)
  mask = column < length[:, None]  # [B, size]
  # One indexing for the batch; padding reads the first token, and drops it.
  index = np.where(mask, start[:, None] + column, 0)
  return np.where(mask, flat[index], PAD).astype(np.int32)
