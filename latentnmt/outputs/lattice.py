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

from latentnmt.masks import lengths, token_mask
from latentnmt.outputs.strings import NEVER
from latentnmt.types import Array, Mask, Nats, Tokens

# Such a path has a link of e^-80 that nearly no other path needs; beyond that
# its share of the links' gradient is cut off.
_MOST = 80.0


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

  One product of a vector and a matrix a step, of numbers scaled to be at most
  one. The gradient is that of the forward-backward algorithm: no array is of
  T U U numbers.

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
    new = emission + _log(_product("bi,bij->bj", jnp.exp(before), probs))
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


def _log(x: Array) -> Array:
  return jnp.where(x > 0, jnp.log(jnp.where(x > 0, x, 1)), NEVER)


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

  def step(ahead, now):
    """From log of what comes after a step to that of what comes after t - 1."""
    emission, real, after, scale = now
    total = jax.nn.logsumexp(after + ahead, axis=1, keepdims=True)
    posterior = jnp.exp(after + ahead - total)
    arrival = ahead + emission
    most = jnp.max(arrival, axis=1, keepdims=True)
    before = _log(_product("bij,bj->bi", probs, jnp.exp(arrival - most)))
    # Posterior over what arrives, by which a link's share is its expectation.
    ratio = jnp.exp(jnp.minimum(arrival - scale[:, None] - total, _MOST))
    real = real[:, None]
    found = jnp.where(real, posterior, 0), jnp.where(real, ratio, 0)
    return jnp.where(real, before, ahead), found

  steps = jnp.swapaxes(emissions, 0, 1), real.T, after, scale
  zeros = jnp.zeros(links.shape[:2])
  _, (posterior, ratio) = lax.scan(step, zeros, steps, reverse=True)
  before = jnp.concatenate([_start(links)[None], after[:-1]])
  uses = probs * _product("tbi,tbj->bij", jnp.exp(before), ratio)
  gradient = gradient[:, None, None]
  return gradient * jnp.swapaxes(posterior, 0, 1), gradient * uses, None


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
