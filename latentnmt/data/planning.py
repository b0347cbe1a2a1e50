"""Few shapes (rows, S, T) for sentence pairs of many lengths, padding little.

Each shape is one more program to compile, and each padded position is computed
for nothing. Pairs are counted in cells between candidate edges, at most 24 a
side. A shape is a rectangle S x T of candidate edges; a pair goes to the
cheapest one that it fits. A greedy search with exchanges lowers an estimate of
the padding, then a climb the padding itself, empty rows included.
"""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import functools

import numpy as np

from latentnmt.errors import InputError

_ROWS = 8  # rows of every shape are a multiple, for a mesh of 8 devices
_EDGE = 4  # and S and T of this, for models that shorten the sequence
_EDGES = 24  # candidate edges a side
# Shares of the target in the cost that the search lowers, a sum over sides. The
# worse side counts, so each is tried and the best plan by that is taken.
_WEIGHTS = (0.3, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7)
_LESS = 1 - 1e-9  # an improvement by rounding alone would go on for ever


@dataclasses.dataclass(frozen=True)
class Plan:
  """Shapes and which pairs they take.

  Attributes:
    shapes: (rows, S, T) of each shape, the smallest first.
    ids: for each shape int64[m], the pairs it takes.
  """

  shapes: tuple[tuple[int, int, int], ...]
  ids: tuple[np.ndarray, ...]

  @property
  def batches(self) -> tuple[int, ...]:
    """Counts batches of each shape; the last rows may be empty."""
    return tuple(
      -(-len(ids) // shape[0])
      for shape, ids in zip(self.shapes, self.ids, strict=True)
    )

  @property
  def padded(self) -> np.ndarray:
    """Counts positions of source and target in all batches: int64[2]."""
    batches = np.array(self.batches)[:, None]
    shapes = np.array(self.shapes)
    return (batches * shapes[:, :1] * shapes[:, 1:]).sum(axis=0)


def plan_shapes(
  lengths: np.ndarray, batch_tokens: int, max_shapes: int = 8
) -> Plan:
  """Chooses at most `max_shapes` shapes.

  Of source and target, the side of which the smaller share is real counts.

  Args:
    lengths: int[n, 2], tokens of source and target; a side may be all zero.
    batch_tokens: rows times the longer of S and T, at most, as far as the
      least number of rows, 8, allows.
    max_shapes: number of shapes, at most.
  """
  grid = _Grid.of(lengths, batch_tokens)
  plans = []
  for weight in _WEIGHTS:
    table = grid.table(weight)
    chosen = _climb(grid, table, _search(table, grid.counts, max_shapes))
    plans.append((grid.padding(table, chosen), table, chosen))
  _, table, chosen = min(plans, key=lambda plan: plan[0])
  choice = table[:, chosen].argmin(axis=1)[grid.cell_of]  # of each pair
  rows = functools.partial(_rows, batch_tokens=batch_tokens)
  return _plan(grid.rectangles[chosen], choice, rows)


def plan_into(
  lengths: np.ndarray,
  batch_tokens: int,
  edges: Sequence[tuple[int, int]],
) -> Plan:
  """Puts pairs into given shapes, whose rows depend on the edges alone.

  Args:
    lengths: int[n, 2], tokens of source and target.
    batch_tokens: as for `plan_shapes`.
    edges: (S, T) of each shape.

  Raises:
    InputError: for edges that are no multiples of 4, or a pair that is longer
      than all of them.
  """
  bad = [edge for edge in edges if len(edge) != 2 or np.any(np.mod(edge, 4))]
  if bad:
    raise InputError(f"The shape {bad[0]} is no (S, T) of multiples of 4.")
  edges = np.array(sorted(edges, key=sum))
  fits = np.all(lengths[:, None] <= edges, axis=-1)  # [n, shapes]
  if not fits.any(axis=1).all():
    longest = lengths[~fits.any(axis=1)][0].tolist()
    raise InputError(
      f"A pair of {longest} tokens fits none of the shapes {edges.tolist()};"
      " add one, or lower max_length."
    )
  choice = fits.argmax(axis=1)  # the first, and so the smallest, that fits
  # The same shapes for any corpus: a compilation cache has them already.
  return _plan(
    edges, choice, lambda _, length: _most_rows(length, batch_tokens)
  )


def plan_mixed(plan: Plan, batch_tokens: int) -> Plan:
  """Plans as many batches of each shape, which together hold `batch_tokens`.

  Rows come in steps of 8; those that a shape's own pairs leave empty take pairs
  of smaller shapes, so that few positions are computed for nothing.

  Args:
    plan: of the same pairs, whose shapes are taken over but for their rows.
    batch_tokens: sum over shapes of rows times the longer of S and T, at most,
      as far as the least number of rows, 8 of a shape, allows.

  Returns:
    A plan whose ids are -1 where a row stays empty.
  """
  pairs = np.array([len(ids) for ids in plan.ids])
  longer = np.array(plan.shapes)[:, 1:].max(axis=1)
  batches = -(-pairs @ longer // batch_tokens)
  while True:
    rows, ids = _fill_rows(plan, int(batches))
    if rows @ longer <= batch_tokens or rows.max() <= _ROWS:
      break
    batches += 1
  used = np.flatnonzero(rows)
  shapes = tuple((int(rows[k]), *plan.shapes[k][1:]) for k in used)
  return Plan(shapes, tuple(ids[k] for k in used))


def _fill_rows(plan: Plan, batches: int) -> tuple[np.ndarray, list[np.ndarray]]:
  """Returns the rows of each shape, and ids with -1 for those left empty."""
  left = list(plan.ids)
  rows = np.zeros(len(left), np.int64)
  edges = np.array(plan.shapes)[:, 1:]
  for k in reversed(range(len(left))):
    rows[k] = -(-len(left[k]) // (batches * _ROWS)) * _ROWS
    # The next smaller shapes first: what they give up costs the least there.
    for j in reversed(range(k)):
      if np.all(edges[j] <= edges[k]):
        kept = max(len(left[j]) - (rows[k] * batches - len(left[k])), 0)
        left[k] = np.concatenate([left[k], left[j][kept:]])
        left[j] = left[j][:kept]
    empty = rows[k] * batches - len(left[k])
    left[k] = np.pad(left[k], (0, empty), constant_values=-1)
  return rows, left


def _plan(edges: np.ndarray, choice: np.ndarray, rows: Callable) -> Plan:
  """Makes the plan of int[shapes, 2] edges and the choice of each pair.

  Args:
    edges: S and T of the shapes; one that no pair takes is left out.
    choice: int[n], shape of each pair.
    rows: (pairs of a shape, its longer side) to its rows.
  """
  shapes, ids = [], []
  for k, (source, target) in enumerate(edges.tolist()):
    members = np.flatnonzero(choice == k)
    if len(members):
      size = int(rows(len(members), max(source, target)))
      shapes.append((size, source, target))
      ids.append(members)
  return Plan(tuple(shapes), tuple(ids))


@dataclasses.dataclass(frozen=True)
class _Grid:
  """Pairs counted between candidate edges.

  Attributes:
    rectangles: int[R, 2], S and T of every pair of candidate edges, row by
      row, the largest last.
    rows: number of candidate edges of the source.
    columns: and of the target.
    cells: int[cells], the smallest rectangle around the pairs of each cell.
    cell_of: int[n], the cell of each pair.
    counts: int[cells], pairs in each.
    real: float[2], real tokens of source and target.
    batch_tokens: see `plan_shapes`.
  """

  rectangles: np.ndarray
  rows: int
  columns: int
  cells: np.ndarray
  cell_of: np.ndarray
  counts: np.ndarray
  real: np.ndarray
  batch_tokens: int

  @classmethod
  def of(cls, lengths: np.ndarray, batch_tokens: int) -> "_Grid":
    """Counts pairs of int[n, 2] lengths."""
    edges = [_candidate_edges(side) for side in lengths.T]
    row, column = (
      np.searchsorted(edge, side)  # the first edge that is long enough
      for edge, side in zip(edges, lengths.T, strict=True)
    )
    cells, cell_of, counts = np.unique(
      row * len(edges[1]) + column, return_inverse=True, return_counts=True
    )
    rectangles = np.stack(np.meshgrid(*edges, indexing="ij"), -1).reshape(-1, 2)
    # At least 1: a side may be empty, and costs nothing.
    real = np.maximum(lengths.sum(axis=0, dtype=np.float64), 1.0)
    return cls(
      rectangles, *map(len, edges), cells, cell_of, counts, real, batch_tokens
    )

  def table(self, weight: float) -> np.ndarray:
    """Returns the cost of a pair of a cell in a rectangle, float[cells, R].

    The cost is the rectangle's share of the real tokens, `weight` of it the
    target's; infinite where the pair does not fit.
    """
    cost = self.rectangles / self.real @ np.array([1 - weight, weight])
    own = self.rectangles[self.cells]
    fits = np.all(own[:, None] <= self.rectangles, axis=-1)  # [cells, R]
    return np.where(fits, cost, np.inf)

  def padding(self, table: np.ndarray, chosen: list[int]) -> float:
    """Returns positions per real token, of the side where these are more."""
    choice = table[:, chosen].argmin(axis=1)
    pairs = np.bincount(choice, self.counts, len(chosen)).astype(np.int64)
    shape = self.rectangles[chosen]
    rows = _rows(pairs, shape.max(axis=1), self.batch_tokens)
    padded = -(-pairs // rows) * rows @ shape  # whole batches, empty rows too
    return float((padded / self.real).max())

  def neighbours(self, rectangle: int) -> Iterator[int]:
    """Yields rectangles with the next edge on one or both sides."""
    row, column = divmod(rectangle, self.columns)
    for i in (row - 1, row, row + 1):
      for j in (column - 1, column, column + 1):
        if 0 <= i < self.rows and 0 <= j < self.columns:
          yield i * self.columns + j


def _candidate_edges(lengths: np.ndarray) -> np.ndarray:
  """Returns multiples of 4 with about as many lengths between each two."""
  levels = np.quantile(
    lengths, np.linspace(0, 1, 8 * _EDGES), method="inverted_cdf"
  )
  edges = np.unique(-(-levels.astype(np.int64) // _EDGE) * _EDGE)
  if len(edges) > _EDGES:  # the largest stays, since all must fit
    edges = edges[np.linspace(0, len(edges) - 1, _EDGES).astype(int)]
  return edges


def _rows(pairs: np.ndarray, length, batch_tokens: int) -> np.ndarray:
  """Returns rows such that pairs fill batches evenly, within the budget."""
  batches = np.maximum(-(-pairs // _most_rows(length, batch_tokens)), 1)
  return np.maximum(-(-pairs // (batches * _ROWS)), 1) * _ROWS


def _most_rows(length, batch_tokens: int):
  """Returns the rows that a budget allows, and 8 where it allows none."""
  return np.maximum(batch_tokens // np.maximum(length, 1) // _ROWS, 1) * _ROWS


def _search(
  table: np.ndarray, counts: np.ndarray, max_shapes: int
) -> list[int]:
  """Chooses columns of `table`, of which every cell can take its cheapest.

  One is added, or one exchanged, for as long as the total cost decreases.
  """
  # A shape costs half a step of rows in itself: so many stay empty on average.
  overhead = np.where(np.isfinite(table), table, 0).max(axis=0) * _ROWS / 2
  chosen = [table.shape[1] - 1]  # the largest rectangle, which takes all
  total = counts @ table[:, -1] + overhead[-1]
  while True:
    # Without one of them, or with all: then the best one is added.
    moves = [chosen[:k] + chosen[k + 1 :] for k in range(1, len(chosen))]
    if len(chosen) < max_shapes:
      moves.append(chosen)
    for kept in moves:
      base = table[:, kept].min(axis=1, keepdims=True)
      # Of each column in addition to those kept, all at once.
      costs = counts @ np.minimum(base, table) + overhead
      best = int(costs.argmin())
      if costs[best] + overhead[kept].sum() < total * _LESS:
        total = costs[best] + overhead[kept].sum()
        chosen = [*kept, best]
        break
    else:
      return sorted(chosen)


def _climb(grid: _Grid, table, chosen: list[int]) -> list[int]:
  """Moves edges while the actual padding decreases, not its estimate."""
  padding, improved = grid.padding(table, chosen), True
  while improved:
    improved = False
    for k, old in enumerate(chosen[:-1]):  # the largest takes all: it stays
      for new in grid.neighbours(old):
        moved = chosen[:k] + [new] + chosen[k + 1 :]
        if (less := grid.padding(table, moved)) < padding * _LESS:
          chosen, padding, improved = moved, less, True
  return chosen
