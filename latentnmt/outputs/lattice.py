"""Sums and maxima over the paths of a directed acyclic graph.

A path leaves vertex 0 and goes from vertex to later vertex to the last one. For
given targets, step t of a path stands where the t-th token is emitted, the last
vertex being where EOS is. `emissions[b, t, j]` is the log-probability of that
token there, `NEVER` where it cannot be; `links[b, i, j]` that of going from i
to j.
"""

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from latentnmt.masks import lengths, token_mask
from latentnmt.outputs.strings import NEVER
from latentnmt.types import Array, Mask, Nats, Tokens

# Logs that float32 can take the exponential of, by a margin. Bands into which
# numbers are sorted by their logs, how wide, and how many: one of them times a
# link of e^-50 is still in that range.
_RANGE, _BAND, _BANDS = 80.0, 30.0, 4


def reach(y: Tokens, mask: Mask) -> Mask:
  """Returns bool[B, T, U]: vertices of the t-th token, by counting alone.

  t vertices have to come before, and one for each token after. Leaving out the
  others changes no sum over paths. But without them all that matters may be
  below the smallest float32, beside paths that come to nothing.
  """
  vertex = jnp.arange(mask.shape[1])[None, None]
  t = jnp.arange(y.shape[1])[None, :, None]
  to_come = lengths(token_mask(y))[:, None, None] - 1 - t
  last = lengths(mask)[:, None, None] - 1
  is_end = (to_come == 0) & (vertex == last)
  is_inner = (to_come > 0) & (t < vertex) & (vertex <= last - to_come)
  return is_end | is_inner


@jax.custom_vjp
def log_marginal(emissions: Array, links: Array, real: Mask) -> Nats:
  """Returns log of the sum over paths, float32[B]; `NEVER` or less for none.

  One small product of matrices a step, see `_log_product`. The gradient is that
  of the forward-backward algorithm: no array is of T U U numbers.

  Args:
    emissions: float32[B, T, U].
    links: float32[B, U, U].
    real: bool[B, T], tokens, EOS included.
  """
  _, scale = _forward(emissions, links, real)
  return jnp.sum(scale, axis=0)


def _forward(emissions, links, real) -> tuple[Array, Array]:
  """Returns log of where paths are after each step, and what was taken off.

  The logs, float32[T, B, U], are zero at most; float32[T, B] was taken off.
  """
  probs = jnp.exp(links)

  def step(before, now):
    emission, real = now
    new = emission + _log_product("bki,bij->bkj", before, probs)
    most = jnp.max(new, axis=1)
    new = jnp.where(real[:, None], new - most[:, None], before)
    return new, (new, jnp.where(real, most, 0))

  steps = jnp.swapaxes(emissions, 0, 1), real.T
  _, result = lax.scan(step, _start(links), steps)
  return result


def _start(links: Array) -> Array:
  """Returns float32[B, U], log of where paths are at first: in vertex 0."""
  first = jnp.arange(links.shape[1])[None] == 0
  return jnp.broadcast_to(jnp.where(first, 0.0, NEVER), links.shape[:2])


def _log_product(formula: str, logs: Array, matrix: Array) -> Array:
  """Returns log(exp(logs) . matrix), float32[B, U], `NEVER` for zero.

  Logs may differ by more than the exponents of float32 do: those of paths that
  come to nothing are far above those that matter where a model is sure and
  wrong. So each band of logs is a vector of its own, scaled by the most in it.
  A product of a few vectors takes little longer than of one.

  Args:
    formula: of [B, K, U] and the matrix.
    logs: float32[B, U].
    matrix: float32[B, U, U], of probabilities.
  """
  most = jnp.max(logs, axis=1, keepdims=True)[:, None]
  shift = _BAND * np.arange(_BANDS, dtype=np.float32)[None, :, None]
  scaled = (logs[:, None] - most) + shift  # [B, K, U]
  in_band = (scaled <= 0) & ((scaled > -_BAND) | (shift == shift.max()))
  vectors = jnp.where(in_band, jnp.exp(jnp.minimum(scaled, 0)), 0)
  found = _product(formula, vectors, matrix)
  positive = found > 0
  found = jnp.where(positive, jnp.log(jnp.where(positive, found, 1)), NEVER)
  return jax.nn.logsumexp(found - shift + most, axis=1)


def _product(formula: str, *arrays: Array) -> Array:
  # On accelerators float32 is otherwise rounded, which nats are not to be.
  return jnp.einsum(formula, *arrays, precision=lax.Precision.HIGHEST)


def _log_marginal_forward(emissions, links, real):
  after, scale = _forward(emissions, links, real)
  residuals = emissions, links, real, after, scale
  return jnp.sum(scale, axis=0), residuals


def _log_marginal_backward(residuals, gradient):
  emissions, links, real, after, scale = residuals
  probs = jnp.exp(links)
  before = jnp.concatenate([_start(links)[None], after[:-1]])

  def step(ahead, now):
    emission, real, before, after, scale = now
    total = jax.nn.logsumexp(after + ahead, axis=1, keepdims=True)
    posterior = jnp.exp(after + ahead - total)
    arrival = ahead + emission
    ratio = arrival - scale[:, None] - total
    ahead_before = _log_product("bkj,bij->bki", arrival, probs)
    factors = _factors(before, ratio, before + ahead_before)
    real = real[:, None]
    found = jax.tree.map(lambda x: jnp.where(real, x, 0), (posterior, *factors))
    return jnp.where(real, ahead_before, ahead), found

  steps = jnp.swapaxes(emissions, 0, 1), real.T, before, after, scale
  zeros = jnp.zeros(links.shape[:2])
  _, (posterior, leave, arrive) = lax.scan(step, zeros, steps, reverse=True)
  uses = probs * _product("tbi,tbj->bij", leave, arrive)
  gradient = gradient[:, None, None]
  return gradient * jnp.swapaxes(posterior, 0, 1), gradient * uses, None


def _factors(before, ratio, posterior) -> tuple[Array, Array]:
  """Returns two vectors whose outer product, times links, is the links' use.

  That is exp(before_i + ratio_j), of which neither has to be in float32's
  range. Where a path most probably is, the first is one.

  Args:
    before: float32[B, U], log of where paths are.
    ratio: float32[B, U], log of where they are next over what arrives there.
    posterior: float32[B, U], of the former given the targets; in logs, and but
      for a factor.
  """
  likeliest = jnp.argmax(posterior, axis=1)[:, None]
  middle = jnp.take_along_axis(before, likeliest, axis=1)
  leave, arrive = before - middle, ratio + middle
  return jnp.exp(jnp.minimum(leave, _RANGE)), jnp.exp(
    jnp.minimum(arrive, _RANGE)
  )


log_marginal.defvjp(_log_marginal_forward, _log_marginal_backward)


def best_scores(emissions: Array, links: Array) -> Array:
  """Returns the best score of a path at each vertex after t = 0, 1, ... steps.

  Args:
    emissions: float32[B, T, U].
    links: float32[B, U, U].

  Returns:
    float32[T + 1, B, U].
  """

  def step(before, emission):
    new = emission + jnp.max(before[:, :, None] + links, axis=1)
    return new, new

  start = _start(links)
  _, scores = lax.scan(step, start, jnp.swapaxes(emissions, 0, 1))
  return jnp.concatenate([start[None], scores])


def trace_back(scores: Array, links: Array, mask: Mask, steps: Array) -> Array:
  """Returns the best path, as the step at which it is in each vertex.

  Args:
    scores: float32[T + 1, B, U], `best_scores` of T steps or more.
    links: float32[B, U, U].
    mask: bool[B, U], vertices.
    steps: int32[B], after which the path is in the last vertex.

  Returns:
    int32[B, U], counted from 0 for the first vertex after the start; -1 where
    the path never is.
  """
  vertices = jnp.arange(mask.shape[1])[None]
  last = lengths(mask) - 1

  def step(carry, now):
    after, found = carry
    t, score = now
    link = jnp.take_along_axis(links, after[:, None, None], axis=2)[..., 0]
    before = jnp.argmax(score + link, axis=1)
    vertex = jnp.where(t < steps, before, last)
    here = (vertices == vertex[:, None]) & (t <= steps)[:, None]
    return (vertex, jnp.where(here, t - 1, found)), None

  start = jnp.maximum(last, 0), jnp.full(mask.shape, -1)
  times = jnp.arange(len(scores))
  (_, found), _ = lax.scan(step, start, (times, scores), reverse=True)
  return found


def walk(successor: Array, mask: Mask) -> Mask:
  """Returns the vertices that a walk from vertex 0 visits, bool[B, U].

  Args:
    successor: int32[B, U], of each vertex a later one.
    mask: bool[B, U], vertices.
  """

  def step(here, now):
    vertex, following, real = now
    visited = (here == vertex) & real
    return jnp.where(visited, following, here), visited

  vertices = jnp.arange(mask.shape[1])
  start = jnp.zeros(len(mask), successor.dtype)
  _, visited = lax.scan(step, start, (vertices, successor.T, mask.T))
  return visited.T
