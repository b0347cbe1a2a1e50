"""Conditional densities p(z|x) over latent sequences.

A prior is a Linen module that keeps the `Prior` contract; anything that does
can be passed to `LatentTransformer`. Padding is invisible: what `z` holds
where `mask` is false must not change a density, and samples are zero there.
"""

from typing import Any, Protocol

from flax import linen as nn
import jax
import jax.numpy as jnp

from latentnmt import config as cfg
from latentnmt import distributions
from latentnmt.bijections import cache_of, glow, precompute
from latentnmt.custom import build_custom
from latentnmt.masks import masked_sum
from latentnmt.transformer import (
  CrossAttentionCache,
  DecoderStack,
  WeightNormDense,
  add_positions,
)
from latentnmt.types import Key, Latents, Mask, Nats, Source


class Prior(Protocol):
  """The contract of p(z|x).

  A prior may also offer, and then has the advantage of:

    kl(mean, scale, mask, source)   KL(N(mean, scale^2) || prior) in closed
                                    form, float32[B] nats
    precompute(source)              what it computes from the source alone; it
                                    gets that back as `source.cache`
    data_dependent = True           its parameters start from data where `init`
                                    runs through `log_prob`, as
                                    `initialise_prior` does on posterior
                                    samples; a model's own `init` shows it no
                                    real positions

  Attributes:
    channels: C.
    length_multiple: T is always a multiple of this.
  """

  channels: int
  length_multiple: int = 1

  def log_prob(self, z: Latents, mask: Mask, source: Source) -> Nats:
    """Returns log p(z|x) over the real positions, float32[B] nats."""

  def sample(
    self, key: Key, mask: Mask, source: Source, *, temperature: float = 1.0
  ) -> Latents:
    """Draws float[B, T, C], base noise scaled by `temperature`."""

  def center(self, mask: Mask, source: Source) -> Latents:
    """Returns where delta inference starts, float[B, T, C]; E[z] if known."""


class StandardNormalPrior(nn.Module):
  """p(z|x) = N(0, I)."""

  channels: int
  length_multiple: int = 1

  def log_prob(self, z: Latents, mask: Mask, source: Source) -> Nats:
    """Returns log p(z|x), float32[B] nats."""
    return masked_sum(distributions.standard_normal_log_prob(z), mask)

  def sample(
    self, key: Key, mask: Mask, source: Source, *, temperature: float = 1.0
  ) -> Latents:
    """Draws float32[B, T, C]."""
    noise = jax.random.normal(key, (*mask.shape, self.channels))
    return jnp.where(mask[..., None], temperature * noise, 0)

  def center(self, mask: Mask, source: Source) -> Latents:
    """Returns float32[B, T, C] of zeros."""
    return jnp.zeros((*mask.shape, self.channels))

  def kl(self, mean: Latents, scale: Latents, mask: Mask, source: Source):
    """Returns KL(N(mean, scale^2) || N(0, I)), float32[B] nats."""
    return masked_sum(distributions.kl_standard_normal(mean, scale), mask)


class GaussianPrior(nn.Module):
  """Diagonal Gaussian of a Transformer decoder over position signals."""

  channels: int
  layers: int
  transformer: cfg.TransformerConfig
  length_multiple: int = 1

  def setup(self):
    self.stack = DecoderStack(self.transformer, self.layers)
    self.out = WeightNormDense(2 * self.channels)  # mean and log-scale

  def precompute(self, source: Source) -> CrossAttentionCache:
    """Returns keys and values of the layers."""
    return self.stack.precompute(source)

  def mean_scale(self, mask: Mask, source: Source) -> tuple[Latents, Latents]:
    """Returns mean and standard deviation, two float32[B, T, C]."""
    width = self.transformer.width
    # There is nothing to read but positions: what z may be, the source says.
    x = add_positions(jnp.zeros((*mask.shape, width), source.states.dtype))
    states = self.stack(x, mask, cache_of(self, source))  # [B, T, D]
    mean, log_scale = jnp.split(self.out(states), 2, axis=-1)
    return mean, jnp.exp(log_scale)  # positive whatever the parameters

  def log_prob(self, z: Latents, mask: Mask, source: Source) -> Nats:
    """Returns log p(z|x), float32[B] nats."""
    mean, scale = self.mean_scale(mask, source)
    return masked_sum(distributions.normal_log_prob(z, mean, scale), mask)

  def sample(
    self, key: Key, mask: Mask, source: Source, *, temperature: float = 1.0
  ) -> Latents:
    """Draws float32[B, T, C]."""
    mean, scale = self.mean_scale(mask, source)
    noise = jax.random.normal(key, mean.shape)
    return jnp.where(mask[..., None], mean + temperature * scale * noise, 0)

  def center(self, mask: Mask, source: Source) -> Latents:
    """Returns E[z], float32[B, T, C]."""
    mean, _ = self.mean_scale(mask, source)
    return jnp.where(mask[..., None], mean, 0)

  def kl(self, mean: Latents, scale: Latents, mask: Mask, source: Source):
    """Returns KL(N(mean, scale^2) || p(z|x)), float32[B] nats."""
    own_mean, own_scale = self.mean_scale(mask, source)
    kl = distributions.kl_normal(mean, scale, own_mean, own_scale)
    return masked_sum(kl, mask)


class FlowPrior(nn.Module):
  """p(z|x) of z = f(e; x), e ~ N(0, I), for any bijection f.

  log p(z|x) = log N(f^-1(z); 0, I) + log |det df^-1/dz|.

  Attributes:
    bijection: f, see `latentnmt.bijections`.
    channels: C.
  """

  bijection: nn.Module
  channels: int
  data_dependent = True  # ActNorm is

  @property
  def length_multiple(self) -> int:
    """Returns the bijection's."""
    return getattr(self.bijection, "length_multiple", 1)

  def precompute(self, source: Source) -> Any:
    """Returns the bijection's."""
    return precompute(self.bijection, source)

  def log_prob(self, z: Latents, mask: Mask, source: Source) -> Nats:
    """Returns log p(z|x), float32[B] nats."""
    # The change of variables: density of the noise, volume of the map.
    e, log_det = self.bijection.inverse(_real(z, mask), mask, source)
    return masked_sum(distributions.standard_normal_log_prob(e), mask) + log_det

  def sample(
    self, key: Key, mask: Mask, source: Source, *, temperature: float = 1.0
  ) -> Latents:
    """Draws float32[B, T, C]."""
    noise = jax.random.normal(key, (*mask.shape, self.channels))
    return self._forward(temperature * noise, mask, source)

  def center(self, mask: Mask, source: Source) -> Latents:
    """Returns f(0), the image of the noise's mode, float32[B, T, C]."""
    # Not E[z], which has no closed form.
    return self._forward(jnp.zeros((*mask.shape, self.channels)), mask, source)

  def _forward(self, e: Latents, mask: Mask, source: Source) -> Latents:
    z, _ = self.bijection.forward(_real(e, mask), mask, source)
    return _real(z, mask)


def _real(z: Latents, mask: Mask) -> Latents:
  """Returns float32[B, T, C], zero on padding and in full precision."""
  # In float32: a map that rounds z has no inverse.
  return jnp.where(mask[..., None], z.astype(jnp.float32), 0)


def build_prior(config: cfg.LatentConfig) -> nn.Module:
  """Returns the prior that a model's configuration asks for.

  Raises:
    InputError: for a custom prior that cannot be imported or built.
  """
  match config.prior:  # nothing else tells priors' configurations apart
    case cfg.StandardNormalPriorConfig():
      return StandardNormalPrior(config.channels)
    case cfg.GaussianPriorConfig(layers):
      return GaussianPrior(config.channels, layers, config.transformer)
    case cfg.FlowPriorConfig():
      matmul_dtype = config.transformer.matmul_dtype
      bijection = glow(config.prior, config.channels, matmul_dtype)
      return FlowPrior(bijection, config.channels)
    case cfg.CustomPriorConfig(target, fields):
      return build_custom(
        "prior", target, channels=config.channels, **dict(fields)
      )
