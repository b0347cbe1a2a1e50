"""The roofline: the least time that a program can take on this machine.

`count` walks through a program as JAX traced it and adds up its matrix
products: 2 M N K floating-point operations for [M, K] times [K, N], and the
bytes of those operands that are parameters, read anew for each product. What a
loop computes from nothing that changes in it counts once, as if computed before
it. All else (softmax, norms, caches, solving with triangular matrices) counts
nothing, so that

  max(operations / operations per second, bytes / bytes per second)

is a lower bound of the time that these products take in any program, unless its
weights stay in a cache from one product to the next.
"""

from collections.abc import Callable, Sequence
import dataclasses
import math
import time

import jax
import jax.numpy as jnp
import numpy as np

from latentnmt.types import Params


@dataclasses.dataclass(frozen=True)
class Work:
  """Matrix products: two operations a multiplication, bytes of parameters."""

  flops: int = 0
  weight_bytes: int = 0

  def __add__(self, other: "Work") -> "Work":
    weight_bytes = self.weight_bytes + other.weight_bytes
    return Work(self.flops + other.flops, weight_bytes)


def count(function: Callable, params: Params, *args, trips: int = 1) -> Work:
  """Counts the matrix products of function(params, *args).

  Args:
    function: to be traced.
    params: arrays, or what `jax.eval_shape` says of them.
    *args: further arrays.
    trips: how often a loop without a number of its own goes round.
  """
  jaxpr = jax.make_jaxpr(function)(params, *args).jaxpr
  weights = len(jax.tree.leaves(params))
  marks = [_Mark(i < weights) for i in range(len(jaxpr.invars))]
  return _walk(jaxpr, marks, trips)[0]


@dataclasses.dataclass(frozen=True)
class _Mark:
  """A value of a program, and the loops that make it."""

  weight: bool = False  # whether it is made of parameters alone
  # Those in which it changes, each with how often it goes round.
  loops: frozenset[tuple[int, int]] = frozenset()

  def within(self, loop: tuple[int, int]) -> "_Mark":
    """Returns the mark of what changes in one loop more."""
    return _Mark(self.weight, self.loops | {loop})

  @property
  def times(self) -> int:
    """Number of times that it is made."""
    return math.prod(trips for _, trips in self.loops)


_Marks = Sequence[_Mark]


def _walk(jaxpr, marks: _Marks, trips: int) -> tuple[Work, _Marks]:
  """Counts the work of a traced function; marks what it returns."""
  known = dict(zip(jaxpr.invars, marks, strict=True))

  def mark(variable) -> _Mark | None:  # None: a constant, which is neither
    return None if hasattr(variable, "val") else known.get(variable)

  total = Work()
  for equation in _needed(jaxpr):
    inputs = [mark(variable) for variable in equation.invars]
    work, outputs = _equation(equation, inputs, trips)
    total += work
    known.update(zip(equation.outvars, outputs, strict=True))
  return total, [mark(v) or _Mark() for v in jaxpr.outvars]


def _needed(jaxpr) -> list:
  """Drops equations of which nothing comes, as compilers do."""
  live, equations = set(map(id, jaxpr.outvars)), []
  for equation in reversed(jaxpr.eqns):
    if any(id(variable) in live for variable in equation.outvars):
      equations.append(equation)
      live |= set(map(id, equation.invars))
  return equations[::-1]


def _equation(equation, inputs, trips: int) -> tuple[Work, _Marks]:
  variable = [mark for mark in inputs if mark is not None]
  loops = frozenset().union(*(mark.loops for mark in variable))
  result = _Mark(bool(variable) and all(m.weight for m in variable), loops)
  results = [result] * len(equation.outvars)
  marks = [mark or _Mark() for mark in inputs]
  parameters = equation.params
  match equation.primitive.name:
    case "dot_general":
      return _product(equation, marks, result.times), results
    case "scan":
      first = parameters["num_consts"], parameters["num_carry"]
      body, times = parameters["jaxpr"], parameters["length"]
      return _loop(body, marks, *first, loops, times, trips), results
    case "while":
      marks = marks[parameters["cond_nconsts"] :]
      first = parameters["body_nconsts"], len(results)
      body = parameters["body_jaxpr"]
      return _loop(body, marks, *first, loops, trips, trips), results
    case "cond":
      branches = [
        _walk(branch.jaxpr, marks[1:], trips)
        for branch in parameters["branches"]
      ]
      return max(branches, key=lambda branch: branch[0].flops)
  inner = parameters.get("jaxpr", parameters.get("call_jaxpr"))
  if inner is None:
    return Work(), results
  return _walk(getattr(inner, "jaxpr", inner), marks, trips)


def _loop(
  body, marks: _Marks, consts: int, carry: int, loops, times: int, trips: int
) -> Work:
  """Counts a loop: its constants, what it carries, a slice of all others."""
  loop = id(body), times
  carried = [_Mark(False, loops).within(loop)] * carry
  slices = [mark.within(loop) for mark in marks[consts + carry :]]
  inner = [*marks[:consts], *carried, *slices]
  return _walk(body.jaxpr, inner, trips)[0] if times else Work()


def _product(equation, marks: _Marks, times: int) -> Work:
  (contracted, _), _ = equation.params["dimension_numbers"]
  left = equation.invars[0].aval.shape
  size = math.prod(equation.outvars[0].aval.shape)
  flops = 2 * size * math.prod(left[axis] for axis in contracted)
  weight_bytes = sum(
    operand.aval.size * operand.aval.dtype.itemsize
    for operand, mark in zip(equation.invars, marks, strict=True)
    if mark.weight
  )
  return Work(times * flops, times * weight_bytes)


@dataclasses.dataclass(frozen=True)
class Machine:
  """The best that a machine was seen to do.

  Attributes:
    flops_per_second: in a product of two large matrices.
    bytes_per_second: read from and written to main memory.
  """

  flops_per_second: float
  bytes_per_second: float

  def lower_bound(self, work: Work) -> float:
    """Returns the seconds that the work takes at the least."""
    return max(
      work.flops / self.flops_per_second,
      work.weight_bytes / self.bytes_per_second,
    )


def measure_machine(dtype: str, sizes: Sequence[int] = ()) -> Machine:
  """Measures the machine, in some seconds.

  Of several ways to do the same the fastest counts, on a CPU in float32
  NumPy's too: a peak is what anything reaches. Matrices of `dtype` have `sizes`
  rows, by default such as keep a device busy.
  """
  cpu = jax.default_backend() == "cpu"
  sizes = sizes or ((2048, 4096) if cpu else (8192, 16384))
  square = jax.jit(
    lambda a: jnp.matmul(a, a, preferred_element_type=jnp.float32)
  )
  flops = []
  for size in sizes:
    seconds = [_fastest(square, jnp.ones((size, size), dtype))]
    if cpu and dtype == "float32":
      seconds.append(_fastest(lambda a: a @ a, np.ones((size, size), dtype)))
    flops.append(2 * size**3 / min(seconds))
  a = jnp.ones((sizes[-1], 4 * sizes[-1]), jnp.float32)
  double, sums = jax.jit(lambda a: a * 2), jax.jit(lambda a, v: a @ v)
  ones = jnp.ones(a.shape[1:])
  moved = 2 * a.nbytes / _fastest(double, a), a.nbytes / _fastest(sums, a, ones)
  return Machine(max(flops), max(moved))


def _fastest(call: Callable, *args, repeats: int = 5) -> float:
  """Times several calls, after one that warms up; seconds of the fastest."""
  seconds = []
  for _ in range(repeats + 1):
    start = time.perf_counter()
    jax.block_until_ready(call(*args))
    seconds.append(time.perf_counter() - start)
  return min(seconds[1:])
