"""A prior from outside the library, as `train --prior` takes it."""

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
