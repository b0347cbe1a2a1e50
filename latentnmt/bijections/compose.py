"""Bijections made of bijections."""

from collections.abc import Callable
import math
from typing import Any

from flax import linen as nn
import jax.numpy as jnp

from latentnmt.bijections.protocol import (
  Mapped,
  cache_of,
  length_multiple,
  precompute,
)
from latentnmt.types import Array, Latents, Mask, Nats, Source


class Chain(nn.Module):
  """One bijection after the other: `forward` runs from first to last.

  Attributes:
    bijections: in the order of `forward`, from base to latent space.
  """

  bijections: tuple[nn.Module, ...]

  @property
  def length_multiple(self) -> int:
    """Returns the least common multiple of the bijections' own."""
    return math.lcm(*map(length_multiple, self.bijections))

  def precompute(self, source: Source) -> tuple:
    """Returns that of each bijection."""
    return tuple(precompute(each, source) for each in self.bijections)

  def forward(self, e: Latents, mask: Mask, source: Source) -> Mapped:
    """Returns z, float32[B, T, C], and log |det dz/de|, float32[B]."""
    x, total = e, _zero(e)
    steps = zip(self.bijections, cache_of(self, source), strict=True)
    for each, cache in steps:
      x, log_det = each.forward(x, mask, source.replace(cache=cache))
      total += log_det
    return x, total

  def inverse(self, z: Latents, mask: Mask, source: Source) -> Mapped:
    """Returns e, float32[B, T, C], and log |det de/dz|, float32[B]."""
    x, total = z, _zero(z)
    steps = zip(self.bijections, cache_of(self, source), strict=True)
    for each, cache in reversed(list(steps)):
      x, log_det = each.inverse(x, mask, source.replace(cache=cache))
      total += log_det
    return x, total


class Repeat(nn.Module):
  """`times` bijections of one kind, each with parameters of its own.

  One is compiled, and scanned over the stacked parameters of all.

  Attributes:
    inner: one of them.
    times: how many.
    remat: computes activations again in the backward pass, to save memory.
  """

  inner: nn.Module
  times: int
  remat: bool = False

  @property
  def length_multiple(self) -> int:
    """Returns the inner one's."""
    return length_multiple(self.inner)

  def precompute(self, source: Source) -> Any:
    """Returns that of all, stacked."""
    # For all at once, ahead of the scan: their products with the source are
    # then one large one instead of a small one in each step.
    each = nn.vmap(
      precompute,
      variable_axes={"params": 0, "inference": 0},  # stacked over times
      split_rngs={"params": True},
      in_axes=None,
      axis_size=self.times,
    )
    return each(self.inner, source.replace(cache=None))

  def forward(self, e: Latents, mask: Mask, source: Source) -> Mapped:
    """Returns z, float32[B, T, C], and log |det dz/de|, float32[B]."""
    return self._scan(lambda inner: inner.forward, False, e, mask, source)

  def inverse(self, z: Latents, mask: Mask, source: Source) -> Mapped:
    """Returns e, float32[B, T, C], and log |det de/dz|, float32[B]."""
    return self._scan(lambda inner: inner.inverse, True, z, mask, source)

  def _scan(self, direction: Callable, reverse: bool, x, mask, source):
    def step(inner, carry, cache, mask, source):
      x, total = carry
      source = source.replace(cache=cache)
      x, log_det = direction(inner)(x, mask, source)
      return (x, total + log_det), None

    cache, source = cache_of(self, source), source.replace(cache=None)
    over_steps = nn.scan(
      # Inside a scan XLA cannot undo it: CSE need not be prevented.
      nn.remat(step, prevent_cse=False) if self.remat else step,
      variable_axes={"params": 0, "inference": 0},  # stacked over times
      split_rngs={"params": True, "dropout": True},
      in_axes=(0, nn.broadcast, nn.broadcast),
      length=self.times,
      reverse=reverse,
    )
    carry, _ = over_steps(self.inner, (x, _zero(x)), cache, mask, source)
    return carry


class Squeeze(nn.Module):
  """The inner bijection on sequences of half the length, twice the channels.

  Attributes:
    inner: a bijection of [B, T/2, 2C].
  """

  inner: nn.Module

  @property
  def length_multiple(self) -> int:
    """Returns twice the inner one's."""
    return 2 * length_multiple(self.inner)

  def precompute(self, source: Source) -> Any:
    """Returns the inner one's."""
    return precompute(self.inner, source)

  def forward(self, e: Latents, mask: Mask, source: Source) -> Mapped:
    """Returns z, float32[B, T, C], and log |det dz/de|, float32[B]."""
    # Lengths are even: a pair of steps is real where its first is.
    z, log_det = self.inner.forward(squeeze(e), mask[:, ::2], source)
    return unsqueeze(z), log_det

  def inverse(self, z: Latents, mask: Mask, source: Source) -> Mapped:
    """Returns e, float32[B, T, C], and log |det de/dz|, float32[B]."""
    e, log_det = self.inner.inverse(squeeze(z), mask[:, ::2], source)
    return unsqueeze(e), log_det


class MultiScale(nn.Module):
  """Levels of which each but the first sees half the length (Glow).

  `inverse` applies the first level, splits off the second half of the channels,
  and squeezes the first half to all channels at half the length; and so on. In
  the end each half that was split off stands again next to what the later
  levels made of the other, so that both sides are [B, T, C].

  Attributes:
    levels: bijections of [B, T / 2^i, C].
  """

  levels: tuple[nn.Module, ...]

  @property
  def length_multiple(self) -> int:
    """Returns the least common multiple of the levels' own, as squeezed."""
    scaled = (
      2**i * length_multiple(level) for i, level in enumerate(self.levels)
    )
    return math.lcm(*scaled)

  def precompute(self, source: Source) -> tuple:
    """Returns that of each level."""
    return tuple(precompute(level, source) for level in self.levels)

  def forward(self, e: Latents, mask: Mask, source: Source) -> Mapped:
    """Returns z, float32[B, T, C], and log |det dz/de|, float32[B]."""
    x, total, rest = e, _zero(e), []
    for _ in self.levels[1:]:
      x, factored = jnp.split(x, 2, axis=-1)
      rest.append(factored)
      x = squeeze(x)
    # Mirrors `inverse`: the last level, of the shortest sequence, comes first.
    levels = zip(self.levels, cache_of(self, source), strict=True)
    for i, (level, cache) in reversed(list(enumerate(levels))):
      here = source.replace(cache=cache)
      x, log_det = level.forward(x, mask[:, :: 2**i], here)
      total += log_det
      if i:  # the first level had nothing split off
        x = jnp.concatenate((unsqueeze(x), rest.pop()), axis=-1)
    return x, total

  def inverse(self, z: Latents, mask: Mask, source: Source) -> Mapped:
    """Returns e, float32[B, T, C], and log |det de/dz|, float32[B]."""
    x, total, rest = z, _zero(z), []
    levels = zip(self.levels, cache_of(self, source), strict=True)
    for i, (level, cache) in enumerate(levels):
      if i:
        x, factored = jnp.split(x, 2, axis=-1)
        rest.append(factored)
        x = squeeze(x)
      here = source.replace(cache=cache)
      x, log_det = level.inverse(x, mask[:, :: 2**i], here)
      total += log_det
    for factored in reversed(rest):
      x = jnp.concatenate((unsqueeze(x), factored), axis=-1)
    return x, total


def squeeze(x: Array) -> Array:
  """Moves channel c of step t to channel 2c + t mod 2: [B, T/2, 2C]."""
  batch, length, channels = x.shape
  pairs = x.reshape(batch, length // 2, 2, channels)  # [B, T/2, step, C]
  return pairs.swapaxes(2, 3).reshape(batch, length // 2, 2 * channels)


def unsqueeze(x: Array) -> Array:
  """Undoes `squeeze`."""
  batch, length, channels = x.shape
  pairs = x.reshape(batch, length, channels // 2, 2)  # [B, T, C/2, step]
  return pairs.swapaxes(2, 3).reshape(batch, 2 * length, channels // 2)


def _zero(x: Latents) -> Nats:
  return jnp.zeros(x.shape[:1], jnp.float32)
