"""Latent models without networks, of which log p(y|x, T) is known.

To try estimators on: they have the methods of `models.LatentModel` that
`likelihood` calls, no parameters, and a posterior that is as bad as you like.

  model = LinearGaussian(channels=64, narrow=0.95)
  estimate = likelihood.log_likelihood(model, {}, batch, key)
  error = estimate.given_length - model.log_evidence(batch.y)
"""

import functools
from typing import ClassVar

from flax import linen as nn
import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
import numpy as np

from latentnmt.config import LatentConfig, TransformerConfig
from latentnmt.distributions import normal_log_prob, standard_normal_log_prob
from latentnmt.masks import lengths, masked_sum, token_mask
from latentnmt.models.protocol import TargetLatents
from latentnmt.types import Key, Latents, Mask, Nats, Source, Tokens

VOCAB_SIZE = 50
_CONFIG = LatentConfig(
  TransformerConfig(vocab_size=VOCAB_SIZE, width=8, heads=2)
)


class _Known(TargetLatents, nn.Module):
  """The common part; subclasses give their densities.

  Attributes:
    channels: C.
    narrow: q's standard deviations are so many times the right ones.
    shift: q's means are off by so many of its right standard deviations.
  """

  exact: ClassVar = False
  methods: ClassVar = ()

  channels: int = 2
  narrow: float = 1.0
  shift: float = 0.0

  @property
  def config(self) -> LatentConfig:
    """Returns that of a small Transformer, for what asks for sizes."""
    return _CONFIG

  def encode(self, x: Tokens) -> Source:
    """Returns a source of which nothing but the length is known."""
    return Source(jnp.zeros((*x.shape, 1)), token_mask(x))

  def targets(self, y: Tokens) -> tuple[Tokens, Mask]:
    """Returns targets as they are, and their mask."""
    return y, token_mask(y)

  def precompute(self, x: Tokens) -> Source:
    """Returns `encode(x)`: nothing else depends on the source alone."""
    return self.encode(x)

  def log_prob_length(self, mask: Mask, source: Source) -> Nats:
    """Returns some log p(T|x), float32[B] nats; it is not normalised."""
    difference = lengths(mask) - lengths(source.mask)
    return -1.0 - jnp.abs(difference).astype(jnp.float32)

  def posterior(self, y: Tokens, mask: Mask, source: Source):
    """Returns mean and standard deviation of q(z|x, y), float32[B, T, C]."""
    mean, scale = self.best_posterior(y)
    # A number that shows where somebody looks at padding.
    mean = jnp.where(mask[:, :, None], mean + self.shift * scale, 1e3)
    return mean, scale * self.narrow


class LinearGaussian(_Known):
  """z ~ N(0, I); p(y|z) is the density N(z_t + coupling z_{t-1}, noise^2 I).

  The y of this density are vectors that stand for the tokens, drawn from
  N(0, I) once for all. With a coupling the posterior is correlated, and no
  diagonal q is exact.

  Attributes:
    noise: standard deviation of an observation.
    coupling: of each observation to the latents before.
  """

  noise: float = 1.0
  coupling: float = 0.0

  def observation(self, y: Tokens) -> Latents:
    """Returns the vectors of the tokens, float32[B, T, C]."""
    return jnp.asarray(_vectors(self.channels))[y]

  def best_posterior(self, y: Tokens) -> tuple[Latents, Latents]:
    """Returns mean and standard deviation of the nearest diagonal q."""
    precision, mean = self._posterior(y)
    # Nearest in KL(q || p): it has the precisions of the diagonal.
    scale = jnp.diagonal(precision, axis1=1, axis2=2) ** -0.5
    return mean, jnp.broadcast_to(scale[:, :, None], mean.shape)

  def posterior_sample(self, key: Key, y: Tokens) -> Latents:
    """Draws an exact sample of p(z|x, y), float32[B, T, C]."""
    precision, mean = self._posterior(y)
    root = jnp.linalg.cholesky(precision)  # P = R R', so R'^-1 e has P^-1
    noise = jax.random.normal(key, mean.shape)
    return mean + solve_triangular(root, noise, lower=True, trans="T")

  def log_joint(self, z: Latents, y: Tokens, mask: Mask, source: Source):
    """Returns log p(y|z, x) and log p(z|x), float32[B] nats."""
    before = jnp.pad(z, ((0, 0), (1, 0), (0, 0)))[:, :-1]  # z_{t-1}; z_0 = 0
    location = z + self.coupling * before
    log_py = normal_log_prob(self.observation(y), location, self.noise)
    log_pz = standard_normal_log_prob(z)
    return masked_sum(log_py, mask), masked_sum(log_pz, mask)

  def log_evidence(self, y: Tokens) -> np.ndarray:
    """Returns log p(y|x, T), float64[B] nats; a channel of y is N(0, AA'+n)."""
    # In float64 and by numpy: what estimators in float32 are measured by.
    return np.array([self._log_evidence(row[row != 0]) for row in np.array(y)])

  def _log_evidence(self, y: np.ndarray) -> float:
    size = len(y)
    matrix = np.eye(size) + self.coupling * np.eye(size, k=-1)  # A, y = A z + e
    covariance = matrix @ matrix.T + self.noise**2 * np.eye(size)
    values = np.float64(_vectors(self.channels)[y])  # [T, C]
    squares = np.sum(values * np.linalg.solve(covariance, values))
    log_volume = np.linalg.slogdet(2 * np.pi * covariance)[1]  # of a channel
    return -0.5 * (squares + self.channels * log_volume)

  def _posterior(self, y: Tokens):
    """Returns precision and mean of p(z|x, y) over positions."""
    size = y.shape[1]
    matrix = np.eye(size) + self.coupling * np.eye(size, k=-1)
    matrix = jnp.where(token_mask(y)[:, :, None], jnp.float32(matrix)[None], 0)
    scaled = matrix.mT / self.noise**2  # rows of padding are zero: prior there
    precision = jnp.eye(size)[None] + scaled @ matrix  # I + A'A / noise^2
    return precision, jnp.linalg.solve(precision, scaled @ self.observation(y))


class Mixture(_Known):
  """Zipf tokens v; z_t ~ N(separation c_v, I) where y_t = v.

  So p(z|x) is a mixture, p(y|z, x) the responsibilities of its components and
  log p(y|x, T) that of the tokens, whatever the separation. The centres c_v are
  drawn from N(0, I / C) once for all.

  Attributes:
    separation: how far apart the components are.
  """

  separation: float = 1.0

  def best_posterior(self, y: Tokens) -> tuple[Latents, Latents]:
    """Returns mean and standard deviation of the exact posterior."""
    mean = self._centers[y]
    return mean, jnp.ones_like(mean)

  def posterior_sample(self, key: Key, y: Tokens) -> Latents:
    """Draws an exact sample of p(z|x, y), float32[B, T, C]."""
    mean, _ = self.best_posterior(y)  # independent, of variance 1
    return mean + jax.random.normal(key, mean.shape)

  def log_joint(self, z: Latents, y: Tokens, mask: Mask, source: Source):
    """Returns log p(y|z, x) and log p(z|x), float32[B] nats."""
    centers = self._centers
    # The part of log N(z; c_v, I) that depends on v.
    logits = z @ centers.T - jnp.sum(centers**2, axis=1)[None, None] / 2
    logits = logits + _log_zipf()[None, None]  # [B, T, V]
    total = jax.nn.logsumexp(logits, axis=2)  # log p(z_t) - log N(z_t; 0, I)
    chosen = jnp.take_along_axis(logits, y[:, :, None], axis=2)[:, :, 0]
    standard = jnp.sum(standard_normal_log_prob(z), axis=2)
    return masked_sum(chosen - total, mask), masked_sum(standard + total, mask)

  def log_evidence(self, y: Tokens) -> np.ndarray:
    """Returns log p(y|x, T), float64[B] nats."""
    y = np.array(y)  # the latents add nothing: p(y) is that of the tokens
    log_probs = np.where(y != 0, np.float64(_log_zipf())[y], 0.0)
    return np.sum(log_probs, axis=1)

  @property
  def _centers(self):
    scale = np.float32(self.separation * self.channels**-0.5)
    return jnp.asarray(scale * _vectors(self.channels))


@functools.cache
def _vectors(channels: int) -> np.ndarray:
  """Draws float32[V, C] of N(0, 1), a vector for each token."""
  shape = VOCAB_SIZE, channels
  return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@functools.cache
def _log_zipf() -> np.ndarray:
  """Returns log 1/v, normalised, float32[V]; -inf for padding."""
  weights = np.concatenate([[0.0], 1 / np.arange(1, VOCAB_SIZE)])
  with np.errstate(divide="ignore"):  # log 0 of padding is meant
    return np.log(weights / weights.sum()).astype(np.float32)
