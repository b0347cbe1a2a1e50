"""The contract of invertible maps between latent sequences."""

from typing import Any, Protocol

from flax import linen as nn

from latentnmt.types import Latents, Mask, Nats, Source

# What f returns: f(x), and log |det df/dx| over the real positions, in nats.
Mapped = tuple[Latents, Nats]


class Bijection(Protocol):
  """A Linen module: an invertible map of [B, T, C], conditional on a source.

  `forward` goes from base to latent space and `inverse` back. Padding is
  invisible: what stands where `mask` is false changes nothing elsewhere.

  A bijection may also offer `precompute(source)`, whatever it computes from the
  source alone. Whoever calls it often (a scan over layers, `jax.vmap` over
  samples) then computes that once and hands it over as `source.cache`.

  Attributes:
    length_multiple: T, and the length of every sentence, is a multiple of it.
  """

  length_multiple: int = 1

  def forward(self, e: Latents, mask: Mask, source: Source) -> Mapped:
    """Returns z(e), float32[B, T, C], and log |det dz/de|, float32[B]."""

  def inverse(self, z: Latents, mask: Mask, source: Source) -> Mapped:
    """Returns e(z), float32[B, T, C], and log |det de/dz|, float32[B]."""


def length_multiple(bijection: nn.Module) -> int:
  """Returns a bijection's own, or 1 where it names none."""
  return getattr(bijection, "length_multiple", 1)


def precompute(module: nn.Module, source: Source) -> Any:
  """Returns what a module computes from the source alone, or None."""
  if hasattr(module, "precompute"):
    return module.precompute(source.replace(cache=None))
  return None


def cache_of(module: nn.Module, source: Source) -> Any:
  """Returns the cache that a module was handed, else a new one."""
  return module.precompute(source) if source.cache is None else source.cache
