"""Priors from outside the library, as `train --prior` takes them."""

from flax import linen as nn
import jax
import jax.numpy as jnp


class Shifted(nn.Module):
  """p(z|x) = N(m, I) at every position, m learnt."""

  channels: int
  length_multiple: int = 2

  def setup(self):
    shape = (self.channels,)
    self.m = self.param("m", nn.initializers.normal(), shape)

  def log_prob(self, z, mask, source):
    each = jax.scipy.stats.norm.logpdf(z - self.m[None, None])
    return jnp.sum(each * mask[..., None], axis=(1, 2))

  def sample(self, key, mask, source, *, temperature=1.0):
    noise = jax.random.normal(key, (*mask.shape, self.channels))
    z = self.m[None, None] + temperature * noise
    return jnp.where(mask[..., None], z, 0)

  def center(self, mask, source):
    m = jnp.broadcast_to(self.m[None, None], (*mask.shape, self.channels))
    return jnp.where(mask[..., None], m, 0)


class Fitted(nn.Module):
  """p(z|x) = N(m, s^2) at every position; m and s start from data."""

  channels: int
  length_multiple: int = 1
  data_dependent = True

  def log_prob(self, z, mask, source):
    real = mask[..., None]
    count = jnp.maximum(jnp.sum(real), 1)
    mean = jnp.sum(z * real, axis=(0, 1)) / count
    square = jnp.square((z - mean[None, None]) * real)
    variance = jnp.sum(square, axis=(0, 1)) / count
    m, s = self._parameters(mean, jnp.where(count > 1, variance, 1.0))
    each = jax.scipy.stats.norm.logpdf(z, m[None, None], s[None, None])
    return jnp.sum(each * real, axis=(1, 2))

  def sample(self, key, mask, source, *, temperature=1.0):
    m, s = self._parameters()
    noise = jax.random.normal(key, (*mask.shape, self.channels))
    z = m[None, None] + temperature * s[None, None] * noise
    return jnp.where(mask[..., None], z, 0)

  def center(self, mask, source):
    m = jnp.broadcast_to(self._parameters()[0], (*mask.shape, self.channels))
    return jnp.where(mask[..., None], m, 0)

  @nn.compact
  def _parameters(self, mean=None, variance=None):
    m = self.param("m", lambda key: mean)
    return m, jnp.exp(self.param("log_s", lambda key: jnp.log(variance) / 2))
