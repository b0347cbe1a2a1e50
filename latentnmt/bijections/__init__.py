"""Invertible maps of latent sequences, which make a prior out of noise.

A bijection is a Linen module that keeps the `Bijection` contract. Those here
compose with each other and with one's own:

  layers       ActNorm · Invertible1x1 · Coupling
  composition  Chain · Repeat · Squeeze · MultiScale
  a whole      glow(config, channels)
"""

from latentnmt.bijections.compose import Chain, MultiScale, Repeat, Squeeze
from latentnmt.bijections.coupling import Coupling
from latentnmt.bijections.glow import glow
from latentnmt.bijections.linear import ActNorm, Invertible1x1
from latentnmt.bijections.protocol import Bijection, cache_of, precompute

__all__ = [
  "ActNorm",
  "Bijection",
  "Chain",
  "Coupling",
  "Invertible1x1",
  "MultiScale",
  "Repeat",
  "Squeeze",
  "glow",
  "cache_of",
  "precompute",
]
