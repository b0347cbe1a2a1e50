"""Terms that latents add to a bound, wherever the latents are."""

from flax import linen as nn
import jax.numpy as jnp

from latentnmt import distributions
from latentnmt.masks import lengths, masked_sum
from latentnmt.types import Array, Latents, Mask, Nats, Source


def latent_terms(
  prior: nn.Module,
  z: Latents,
  mean: Latents,
  scale: Latents,
  mask: Mask,
  source: Source,
) -> dict[str, Nats]:
  """Returns the fields of `Terms` that are of the latents alone.

  Args:
    prior: of a model that is being applied.
    z: float32[B, G, C], a sample of the posterior.
    mean: float32[B, G, C], of the posterior.
    scale: float32[B, G, C], of the posterior.
    mask: bool[B, G], positions of latents.
    source: B sentences, as the prior takes them.
  """
  # The batch that `init` sees is made up. To a prior that starts from data, an
  # empty mask says so: it starts as the identity and waits for
  # `initialise_prior`.
  seen = mask & (not prior.is_initializing())
  log_pz = prior.log_prob(z, seen, source)
  log_qz = masked_sum(distributions.normal_log_prob(z, mean, scale), mask)
  # A closed form has less noise than one sample of the same quantity.
  if hasattr(prior, "kl"):
    kl = prior.kl(mean, scale, mask, source)
  else:
    kl = log_qz - log_pz
  kl_standard = distributions.kl_standard_normal(mean, scale)
  return {
    "log_pz": log_pz,
    "log_qz": log_qz,
    "kl": kl,
    "kl_standard": masked_sum(kl_standard, mask),
    "num_positions": lengths(mask).astype(jnp.float32),
  }


def mean_gain(gain: float, key, shape, dtype=jnp.float32) -> Array:
  """Returns a posterior's first gains: `gain` for means, 0 for log scales."""
  del key
  return jnp.where(jnp.arange(shape[0]) < shape[0] // 2, gain, 0).astype(dtype)
