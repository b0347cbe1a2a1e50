"""Estimators of log p(y|x): pure functions of log importance weights.

Each takes three float32[K, B], nats at K samples z_k of the posterior:

  log_py   log p(y|z_k, x)
  log_pz   log p(z_k|x)
  log_qz   log q(z_k|x, y)

All are of a given length; log p(T|x) is added by whoever has it.
"""

from jax.nn import logsumexp, softmax
import jax.numpy as jnp

from latentnmt.errors import InputError
from latentnmt.types import Array, Nats

# The bias of iwae falls off like 1/K at best. Of powers of K below this one no
# limit can be told from K samples.
_LEAST_POWER = 0.1


def iwae(log_py: Array, log_pz: Array, log_qz: Array) -> Nats:
  """Computes the importance-weighted bound on log p(y|x, T), float32[B] nats.

  log 1/K sum_k w_k (Burda et al. 2016). The mean of the weights is an unbiased
  estimate of the likelihood, so its logarithm is a lower bound in expectation.
  It is exact for any K where q is the true posterior.
  """
  log_weights = log_py + log_pz - log_qz
  return logsumexp(log_weights, axis=0) - jnp.log(float(len(log_weights)))


def elbo(log_py: Array, log_pz: Array, log_qz: Array) -> Nats:
  """Computes the evidence lower bound, float32[B] nats."""
  return jnp.mean(log_py + log_pz - log_qz, axis=0)


def reconstruction(log_py: Array, log_pz: Array, log_qz: Array) -> Nats:
  """Computes the mean of log p(y|z, x), float32[B] nats.

  Not a likelihood: the latents are given away for nothing.
  """
  del log_pz, log_qz  # all estimators are called alike
  return jnp.mean(log_py, axis=0)


def lee2020(
  log_py: Array, log_pz: Array, log_qz: Array, num_positions: Array
) -> Nats:
  """Computes what the public code of Lee et al. (2020) reports.

  Not a likelihood. The weights, to the power 1/L of the length and normalised,
  average p(y|z, x)^(1/L). As K grows, the value tends to

    log p(y|x) + D(q || p(z|x)) - D(q || p(z|x, y)),

  D the Renyi divergence of order 1 - 1/L: an overstatement by about the KL
  term. At K = 1 it is `reconstruction`. L is float32[B] of `num_positions`,
  appended EOS included; the value is float32[B], the figure per position times
  L. What is published is the mean over sentences of the figure per position.
  """
  length = jnp.maximum(num_positions, 1.0)[None, :]  # 1 in rows of padding
  log_weights = (log_pz - log_qz) / length
  per_position = logsumexp(log_py / length + log_weights, axis=0) - logsumexp(
    log_weights, axis=0
  )
  return per_position * num_positions


def effective_sample_size(log_py: Array, log_pz: Array, log_qz: Array) -> Array:
  """Computes (sum w)^2 / sum w^2 of the weights of `iwae`, float32[B], 1 to K.

  Near K the estimate is tight. Near 1 a single sample decides it: the bound is
  loose, and its standard error is too small to be believed.
  """
  # Of normalised weights: w itself overflows.
  weights = softmax(log_py + log_pz - log_qz, axis=0)
  size = 1.0 / jnp.sum(weights**2, axis=0)
  return jnp.clip(size, 1.0, float(len(weights)))  # which rounding may leave


def standard_error(log_py: Array, log_pz: Array, log_qz: Array) -> Nats:
  """Computes the standard error of `iwae`, float32[B] nats.

  By the delta method the sampling noise of log mean w is
  sqrt(sum_k (w_k - mean w)^2) / (K mean w). At K = 1 that is 0, and tells
  nothing of the noise.
  """
  weights = softmax(log_py + log_pz - log_qz, axis=0)
  return jnp.sqrt(jnp.sum((weights - 1.0 / len(weights)) ** 2, axis=0))


def sweep(log_py: Array, log_pz: Array, log_qz: Array) -> Array:
  """Computes the bound `iwae` at K, K/2, K/4, ..., 1 of the K samples.

  Each is the mean over disjoint groups of that many samples, and so an unbiased
  estimate of what `iwae` of so few samples gives on average.

  Returns:
    float32[B, n] nats, for the numbers of `sweep_sizes(K)`: the first is
    `iwae`, the last `elbo`.
  """
  log_weights = log_py + log_pz - log_qz
  samples = len(log_weights)
  bounds = []
  for size in sweep_sizes(samples):
    used = log_weights[: samples // size * size]  # the rest fills no group
    groups = used.reshape(-1, size, log_weights.shape[1])  # [K/size, size, B]
    bound = logsumexp(groups, axis=1) - jnp.log(float(size))
    bounds.append(jnp.mean(bound, axis=0))
  return jnp.stack(bounds, axis=1)


def sweep_sizes(samples: int) -> list[int]:
  """Returns K, K/2, K/4, ..., 1, rounded down."""
  # A halving is a shift by one bit, rounded down.
  return [samples >> halvings for halvings in range(samples.bit_length())]


def extrapolate(bounds: Array) -> Nats:
  """Estimates what a sweep tends to as K grows; this is no bound.

  With the power law bound(K) = limit - c / K^a, halving K twice gives

    r = 2^-a = [bound(K) - bound(K/4)] / [bound(K/2) - bound(K/8)]
    limit = bound(K) + [bound(K) - bound(K/2)] r / (1 - r),

  where r is that of sums over sentences: one sentence's differences are mostly
  noise. The power a is kept within 0.1 and 1, the power of the bias once K is
  large; a = 1 is like the jackknife of first order (Nowozin 2018). A power law
  is an assumption. Where the effective sample size is a few, a itself still
  changes with K, and the value is off by a share of the gap.

  Args:
    bounds: float32[B, n], as `sweep` returns, of all the sentences that share
      the power: a corpus rather than a batch.

  Returns:
    float32[B] nats.

  Raises:
    InputError: for sweeps of fewer than 8 samples.
  """
  if bounds.shape[1] < 4:  # K, K/2, K/4 and K/8 make two ratios
    raise InputError("Extrapolation takes a sweep of samples=8 or more.")
  later, earlier = jnp.sum(bounds[:, :2] - bounds[:, 2:4], axis=0)
  # Without a gap there is no power: earlier = 0. Divided by 1 there, as the
  # branch that is not taken is computed too.
  ratio = jnp.where(earlier > 0, later / jnp.where(earlier > 0, earlier, 1), 0)
  ratio = jnp.clip(ratio, 0.5, 2.0**-_LEAST_POWER)  # r = 2^-a of both powers
  return bounds[:, 0] + (bounds[:, 0] - bounds[:, 1]) * ratio / (1 - ratio)
