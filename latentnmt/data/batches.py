"""Batches of few shapes, gathered from a token store.

A plan is a handful of shapes (rows, S, T) and the shape of each pair. It is
made from the lengths alone, so every process plans the same. A batch is of one
shape, or it has a part of every shape and so sentences of all lengths. Which
pairs share a batch is a pure function of (seed, epoch), so the state to resume
from is the number of the next batch. The pairs of a shape fill its batches but
for a few rows, which stay empty: nothing is left out.
"""

from collections.abc import Sequence
import functools

import numpy as np

from latentnmt.data.planning import plan_into, plan_mixed, plan_shapes
from latentnmt.data.token_store import TokenStore
from latentnmt.errors import InputError
from latentnmt.types import Batch


class Batches:
  """Training batches for ever; batch i is a pure function of (seed, i).

  A batch is a tuple of its parts, each a `Batch` of one shape.

  Args:
    store: the pairs.
    batch_tokens: rows times the longer of S and T, at most.
    max_length: pairs with a longer side, in tokens, are left out.
    seed: of the order, which differs from epoch to epoch.
    max_shapes: number of shapes, at most.
    edges: (S, T) of the shapes; by default chosen from the lengths.
    mixed: whether a batch has a part of every shape, rather than one part.

  Attributes:
    shapes: (rows, S, T) of each shape: rows a multiple of 8, S and T of 4.
    kinds: for each kind of batch there is, the shapes of its parts.
    per_epoch: batches in an epoch; i // per_epoch is the epoch.
    fill: real share of source and of target tokens, empty rows included.
    dropped: pairs left out because of their length.

  Raises:
    InputError: when no pair is left, or for `edges` that do not hold all.
  """

  def __init__(
    self,
    store: TokenStore,
    batch_tokens: int,
    *,
    max_length: int | None = None,
    seed: int = 0,
    max_shapes: int = 8,
    edges: Sequence[tuple[int, int]] = (),
    mixed: bool = False,
  ):
    kept = np.arange(len(store))
    if max_length is not None:
      kept = np.flatnonzero(store.lengths.max(axis=1) <= max_length)
    self.dropped = len(store) - len(kept)
    if not len(kept):
      raise InputError(
        f"No pair of {len(store):,} is left to train on with"
        f" max_length={max_length}."
      )
    self._store, self._seed = store, seed
    lengths = store.lengths[kept]
    if edges:
      plan = plan_into(lengths, batch_tokens, edges)
    else:
      plan = plan_shapes(lengths, batch_tokens, max_shapes)
    if mixed:
      plan = plan_mixed(plan, batch_tokens)
    self._ids = tuple(kept[ids[ids >= 0]] for ids in plan.ids)
    self.shapes, self._batches = plan.shapes, plan.batches
    self._mixed = mixed
    self.kinds = (plan.shapes,) if mixed else tuple((s,) for s in plan.shapes)
    self.per_epoch = plan.batches[0] if mixed else sum(plan.batches)
    source, target = lengths.sum(axis=0) / plan.padded
    self.fill = float(source), float(target)
    # Two: who reads a few batches ahead is in the next epoch already.
    self._epoch = functools.lru_cache(2)(self._plan_epoch)

  def __repr__(self) -> str:
    shapes = " ".join("x".join(map(str, shape)) for shape in self.shapes)
    return f"Batches({self.per_epoch:,} an epoch, shapes {shapes})"

  def _plan_epoch(self, epoch: int) -> list[tuple[tuple[int, np.ndarray], ...]]:
    """Returns (shape, int64[rows] ids) of the parts of each batch, in order."""
    random = np.random.default_rng([self._seed, epoch])  # of nothing before
    of_shapes = []
    for k, ids in enumerate(self._ids):
      rows, count = self.shapes[k][0], self._batches[k]
      filled = np.full(count * rows, -1, np.int64)  # -1 for an empty row
      filled[: len(ids)] = random.permutation(ids)
      if self._mixed:  # as many empty rows in each batch, but for one
        filled = filled.reshape(rows, count).T
      of_shapes.append([(k, row) for row in filled.reshape(count, rows)])
    if self._mixed:
      return list(zip(*of_shapes, strict=True))
    batches = [(part,) for parts in of_shapes for part in parts]
    # In any order, so that batches of one length do not follow each other.
    return [batches[i] for i in random.permutation(len(batches))]

  def __getitem__(self, step: int) -> tuple[Batch, ...]:
    """Returns the parts of a step's batch, counted from 0 over all epochs."""
    return tuple(
      self._store.gather(ids, *self.shapes[k][1:])
      for k, ids in self._epoch(step // self.per_epoch)[step % self.per_epoch]
    )


def few_shapes(sequences: int) -> int:
  """Returns how many shapes to translate so many sequences in, 8 at most."""
  # One more costs a compilation; from about 300 sequences on it saves as much.
  return min(max(-(-sequences // 300), 1), 8)


def length_batches(
  x: Sequence,
  y: Sequence | None = None,
  *,
  batch_tokens: int,
  max_shapes: int = 8,
) -> list[tuple[np.ndarray, Batch | np.ndarray]]:
  """Puts every sequence into exactly one batch, in few shapes, by length.

  Args:
    x: sequences of source ids, each ending in EOS.
    y: the targets, or None for sources alone.
    batch_tokens: rows times the longer of S and T, at most.
    max_shapes: number of shapes, at most.

  Returns:
    Pairs of ids, int64[rows], -1 for a row that is all padding, and the Batch
    of these pairs or, without `y`, the int32[rows, S] sources.
  """
  if not len(x):
    return []
  # Without targets all are empty, and planning looks at sources alone.
  store = TokenStore.from_sequences(x, [()] * len(x) if y is None else y)
  plan = plan_shapes(store.lengths, batch_tokens, max_shapes)
  batches = []
  for (rows, source, target), ids in zip(plan.shapes, plan.ids, strict=True):
    # By target, then source: what is decoded together ends together.
    ids = ids[np.lexsort(store.lengths[ids].T)]
    ids = np.concatenate([ids, np.full(-len(ids) % rows, -1)])
    for row in ids.reshape(-1, rows):
      batch = store.gather(row, source, target)
      batches.append((row, batch.x if y is None else batch))
  return batches
