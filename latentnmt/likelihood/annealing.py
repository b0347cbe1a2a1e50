"""Annealed importance sampling from q(z|x, y) to p(y, z|x), and back.

A chain starts from the posterior and passes through densities

  f_t(z) = q(z|x, y)^(1-t) p(y, z|x)^t,    t = 1/n, ..., (n-1)/n,

at each of which one move of Hamiltonian Monte Carlo leaves f_t as it is. With
w(z) = p(y, z|x) / q(z|x, y), its weight is the product of w(z_i)^(1/n) over
the n places z_0, ..., z_{n-1} of the chain, and has mean p(y|x) (Neal 2001).
The log of an average of weights is a lower bound in expectation. Its gap
shrinks like 1/n; that of n times as many samples of q hardly moves where
latents are many. n = 1 would be importance sampling.

Of chains that run backwards from an exact sample of p(z|x, y) the inverse
weights have mean 1 / p(y|x), and give an upper bound in expectation. Such a
sample is known where the model itself drew the sentence: the two bounds then
enclose log p(y|x) (bidirectional Monte Carlo, Grosse et al. 2015).

Latents are moved in units of the posterior, z = mean + scale e. There
-log f_t = |e|^2 / 2 - t log w + constant. A leapfrog step turns (e, momentum)
by an angle, which is exact for the first part in any number of dimensions, and
kicks the momentum by t grad log w, which is small for a good posterior
(Shahbaba et al. 2014). The angle is found for each sentence and t by pilot
chains, which count for nothing else: the weights stay unbiased.
"""

from collections.abc import Callable
import functools
import math

from flax import struct
import jax
from jax import lax
import jax.numpy as jnp

from latentnmt.distributions import standard_normal_log_prob
from latentnmt.errors import InputError
from latentnmt.inference import variables
from latentnmt.keys import fold_in_all, normal_each, row_keys
from latentnmt.likelihood import estimators
from latentnmt.likelihood.importance import (
  default_chunk,
  in_chunks,
  zero_empty,
)
from latentnmt.masks import lengths, masked_sum, real_mask
from latentnmt.types import (
  AnnealedEstimate,
  Array,
  Batch,
  Key,
  Latents,
  Mask,
  Nats,
  Source,
  Tokens,
)

_LAYERS = 16  # of activations that a gradient keeps, about
_PILOTS = 4  # chains that find the angles
_ACCEPTANCE = 0.8  # what they aim for
_RATE = 0.3  # change of log angle for each unit of acceptance
# The angle of a whole move, at most: a quarter turn makes the momentum the new
# e, which where q is exact is an independent sample. More would lead back.
_ARC = math.pi / 2


@struct.dataclass
class _Point:
  """A place of a chain.

  Attributes:
    e: float32[B, G, C], zero on padding; z = mean + scale e.
    log_weight: float32[B], log p(y, z|x) - log q(z|x, y).
    gradient: float32[B, G, C], of `log_weight` with respect to `e`.
  """

  e: Latents
  log_weight: Nats
  gradient: Array


@struct.dataclass
class _Posterior:
  """q(z|x, y) and what it is of, named as in `models.LatentModel`."""

  source: Source
  y: Tokens
  mask: Mask
  latent_mask: Mask
  mean: Latents
  scale: Latents
  log_pl: Nats


def annealed(
  model,
  params,
  batch: Batch,
  key: Key,
  temperatures: int = 100,
  chains: int = 16,
  leapfrog: int = 4,
  chunk: int | None = None,
  *,
  reverse_from: Latents | None = None,
) -> AnnealedEstimate:
  """Estimates log p(y|x) of each sentence by annealed importance sampling.

  Takes temperatures x chains x leapfrog gradients of log p(y, z|x), and those
  of a few chains more.

  Args:
    model: with the contract `models.LatentModel`.
    params: its parameters, or what `models.for_inference` made of them.
    batch: sentences; a row that is all padding gets 0 everywhere.
    key: one key or typed keys [B], as for `log_likelihood`.
    temperatures: n, steps from the posterior to the joint density.
    chains: K, for each sentence.
    leapfrog: steps of each Hamiltonian move.
    chunk: chains computed at a time; by default what fits memory.
    reverse_from: float32[B, G, C], one exact sample of p(z|x, y) for each
      sentence, as `simulate` gives: for an upper bound.

  Returns:
    An `AnnealedEstimate` of float32[B].

  Raises:
    InputError: for an exact model, which has no latents; for
      `temperatures` below 2, `chains`, `leapfrog` or `chunk` below 1; for
      latents of another shape than the model's; for a bad key.
  """
  rows = len(batch.y)
  keys = row_keys(key, rows)
  if model.exact:
    raise InputError(
      f"There is nothing to anneal in {type(model).__name__}; its"
      " log_likelihood is exact."
    )
  if temperatures < 2 or min(chains, leapfrog, chunk or 1) < 1 or chunk == 0:
    raise InputError(
      f"temperatures={temperatures} should be 2 or more, and"
      f" chains={chains}, leapfrog={leapfrog}, chunk={chunk} 1 or more."
    )
  if chunk is None:
    size = model.decoder_size(batch.x.shape[1], batch.y.shape[1])
    chunk = default_chunk(model.config, rows, size, chains, layers=_LAYERS)
  posterior = _posterior(model, params, batch)
  reverse = reverse_from is not None
  start = reverse_from if reverse else posterior.mean  # unused forwards
  if start.shape != posterior.mean.shape:
    raise InputError(
      f"reverse_from: latents {start.shape} where the model has"
      f" {posterior.mean.shape}."
    )
  sizes = temperatures, chains, leapfrog, min(chunk, chains)
  return _annealed(model, params, posterior, keys, start, reverse, sizes)


@functools.partial(jax.jit, static_argnames="model")
def simulate(model, params, batch: Batch, key: Key) -> tuple[Batch, Latents]:
  """Draws sentences from the model, with the latents behind them.

  Given the sentences the latents are exact samples of p(z|x, y), for
  `annealed` to start from.

  Args:
    model: with the contract `models.LatentModel`.
    params: its parameters.
    batch: sources, and targets whose lengths are taken.
    key: one key.

  Returns:
    The batch with targets of the model's own, and float32[B, G, C]. What
    `draw` could not make a sentence of is a row of padding.
  """
  key_z, key_y = jax.random.split(key)
  bound = model.bind(variables(params))
  source = bound.precompute(batch.x)
  _, mask = bound.targets(batch.y)
  z = bound.sample(key_z, mask, source)
  return Batch(batch.x, bound.draw(key_y, z, mask, source)), z


@functools.partial(jax.jit, static_argnames="model")
def _posterior(model, params, batch: Batch) -> _Posterior:
  """Computes the posterior, and all that depends on the sentences alone."""
  bound = model.bind(variables(params))
  source = bound.precompute(batch.x)
  y, mask = bound.targets(batch.y)
  mean, scale = bound.posterior(y, mask, source)
  latent_mask = bound.latent_mask(mask, source)
  log_pl = bound.log_prob_length(mask, source)
  return _Posterior(source, y, mask, latent_mask, mean, scale, log_pl)


@functools.partial(jax.jit, static_argnames=("model", "sizes"))
def _annealed(
  model,
  params,
  posterior: _Posterior,
  keys: Key,
  exact: Latents,
  reverse: Array,
  sizes: tuple[int, ...],
) -> AnnealedEstimate:
  """Runs the chains of a batch."""
  # One program for both directions: compiling takes longer than running. Which
  # one it is, is a value; what the other needs is computed and dropped.
  temperatures, chains, leapfrog, chunk = sizes
  source, y, mask = posterior.source, posterior.y, posterior.mask
  mean, scale, grid = posterior.mean, posterior.scale, posterior.latent_mask

  def log_weight(e):  # z = mean + scale e, whose volume is in log_qz
    bound = model.bind(variables(params))
    log_py, log_pz = bound.log_joint(mean + scale * e, y, mask, source)
    log_qz = masked_sum(standard_normal_log_prob(e) - jnp.log(scale), grid)
    return log_py + log_pz - log_qz

  def point(e):
    # One pass for the weight and its gradient; padding never moves.
    e = jnp.where(grid[..., None], e, 0)
    value, pullback = jax.vjp(log_weight, e)
    return _Point(e, value, pullback(jnp.ones_like(value))[0])

  def noise(roots):
    return normal_each(fold_in_all(roots, 0), mean.shape)

  move = functools.partial(_move, point, grid, leapfrog)
  # Numbered after the chains, so that none shares its noise with one of them.
  pilots = jax.vmap(lambda k: fold_in_all(keys, chains + k))(
    jnp.arange(_PILOTS)
  )
  starts = jax.vmap(lambda roots: point(noise(roots)))(pilots)  # [P, ...]
  angles = _angles(move, starts, pilots, temperatures, _ARC / leapfrog)
  path = jax.tree.map(
    lambda v: jnp.where(reverse, v[::-1], v),  # from t = 1 down
    (jnp.arange(1, temperatures), angles),
  )

  def chain(k):
    roots = fold_in_all(keys, k)
    start = jnp.where(reverse, (exact - mean) / scale, noise(roots))
    return _chain(move, point(start), roots, path, temperatures)

  log_weights, acceptance = in_chunks(chain, chains, chunk)  # [K, B]
  # To the estimators a weight is one number, whatever it is a product of.
  zero = jnp.zeros_like(log_weights)
  # Backwards the inverse weights are averaged, for a bound from above.
  sign = jnp.where(reverse, -1.0, 1.0)
  weights = sign * log_weights, zero, zero
  given_length = sign * estimators.iwae(*weights)
  estimate = AnnealedEstimate(
    log_likelihood=given_length + posterior.log_pl,
    given_length=given_length,
    ess=estimators.effective_sample_size(*weights),
    standard_error=estimators.standard_error(*weights),
    acceptance=jnp.mean(acceptance, axis=0),
    log_pl=posterior.log_pl,
    num_tokens=lengths(real_mask(y)).astype(jnp.float32),
    num_positions=lengths(grid).astype(jnp.float32),
  )
  return zero_empty(estimate, mask)


def _chain(move, point: _Point, roots: Key, path, temperatures: int):
  """Returns a chain's log weight and its mean acceptance, two float32[B].

  Its path is int32[n-1] and float32[n-1, B]: n t and the angle of each move.
  """

  def step(carry, each):
    point, total = carry
    i, angle = each
    total += point.log_weight  # at z_0 ... z_{n-2}, the last below
    keys = fold_in_all(roots, i)
    point, acceptance = move(point, i / temperatures, angle, keys)
    return (point, total), acceptance

  start = point, jnp.zeros_like(point.log_weight)
  (point, total), acceptance = lax.scan(step, start, path)
  total = (total + point.log_weight) / temperatures
  return total, jnp.mean(acceptance, axis=0)


def _angles(
  move, points: _Point, roots: Key, temperatures: int, most: float
) -> Array:
  """Finds angles at which enough moves are accepted, float32[n-1, B].

  P pilot chains start from `points`, with keys [P, B], at the largest angle.
  """

  def step(carry, i):
    points, angle = carry
    points, acceptance = jax.vmap(
      lambda point, roots: move(
        point, i / temperatures, angle, fold_in_all(roots, i)
      )
    )(points, roots)
    # On the way: densities that follow each other take similar angles.
    error = jnp.mean(acceptance, axis=0) - _ACCEPTANCE
    following = jnp.minimum(angle * jnp.exp(_RATE * error), most)
    return (points, following), angle

  start = jnp.full(roots.shape[1:], most)  # [B]
  _, angles = lax.scan(step, (points, start), jnp.arange(1, temperatures))
  return angles


def _move(
  point_at: Callable[[Latents], _Point],
  mask: Mask,
  leapfrog: int,
  point: _Point,
  t: Array,
  angle: Array,
  keys: Key,
) -> tuple[_Point, Array]:
  """Makes one Hamiltonian move, which leaves f_t as it is.

  Args:
    point_at: from e to a point.
    mask: bool[B, G].
    leapfrog: steps, each by float32[B] of `angle`.
    point: where to start.
    t: scalar.
    angle: float32[B].
    keys: typed keys [B].

  Returns:
    The point after it and float32[B], the probability of accepting it.
  """
  keys = jax.vmap(jax.random.split)(keys)  # [B, 2]
  momentum = normal_each(keys[:, 0], point.e.shape)
  momentum = jnp.where(mask[..., None], momentum, 0)
  cos, sin, kick = (
    value[:, None, None]
    for value in (jnp.cos(angle), jnp.sin(angle), t * angle / 2)
  )

  def leap(carry, _):  # half a kick, the turn, half a kick: reversible
    point, momentum = carry
    momentum = momentum + kick * point.gradient
    turned = point_at(cos * point.e + sin * momentum)
    momentum = cos * momentum - sin * point.e
    return (turned, momentum + kick * turned.gradient), None

  (end, final), _ = lax.scan(leap, (point, momentum), length=leapfrog)
  # Metropolis: the larger the error of the steps, the less likely the move.
  gain = _log_density(end, final, t) - _log_density(point, momentum, t)
  # A trajectory that has diverged is not accepted.
  probability = jnp.where(jnp.isnan(gain), 0, jnp.exp(jnp.minimum(gain, 0)))
  accepted = jax.vmap(jax.random.uniform)(keys[:, 1]) < probability

  def choose(new, old):
    return jnp.where(accepted.reshape((-1,) + (1,) * (old.ndim - 1)), new, old)

  return jax.tree.map(choose, end, point), probability


def _log_density(point: _Point, momentum: Array, t: Array) -> Nats:
  """Computes log f_t and that of the momentum, up to a constant."""
  squares = jnp.sum(point.e**2 + momentum**2, axis=(1, 2))
  return t * point.log_weight - squares / 2  # padding is zero in both
