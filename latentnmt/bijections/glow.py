"""Glow for sequences (Ma et al. 2019), as the paper uses it."""

import functools

from flax import linen as nn

from latentnmt import config as cfg
from latentnmt.bijections.compose import Chain, MultiScale, Repeat
from latentnmt.bijections.coupling import Coupling
from latentnmt.bijections.linear import ActNorm, Invertible1x1

# The layout of the convolution before each split: its heads run across the
# halves of the coupling after it, which it would not mix otherwise.
_LAYOUTS = {"c": "a", "a": "c"}


def glow(
  config: cfg.FlowPriorConfig, channels: int, matmul_dtype: str = "float32"
) -> MultiScale:
  """Returns the multi-scale flow of [B, T, C] that a configuration describes.

  Each level repeats a step. In the order of `inverse`, a step is an ActNorm, a
  convolution (not before a "t") and a coupling for each letter of the plan. All
  levels but the last end with one more coupling "c", which makes the half that
  is split off a conditional Gaussian given the other.

  Args:
    config: steps and plans.
    channels: C, a multiple of 4.
    matmul_dtype: what couplings multiply, as in `TransformerConfig`.

  Raises:
    InputError: for other `channels`.
  """
  coupling = functools.partial(
    Coupling,
    channels,
    hidden=config.hidden,
    heads=config.heads,
    affine=config.coupling == "affine",
    matmul_dtype=matmul_dtype,
  )
  *outer, last = (  # the last level has nothing to split off
    Repeat(_step(plan, coupling), times, config.remat)
    for times, plan in zip(config.steps, config.plans, strict=True)
  )
  return MultiScale((*(Chain((coupling("c"), o)) for o in outer), last))


def _step(plan: str, coupling) -> Chain:
  """Returns one step of a plan; plans go from data to noise, chains back."""
  inverse_order: list[nn.Module] = []
  for split in plan:
    inverse_order.append(ActNorm())
    if split in _LAYOUTS:  # "t" has none
      inverse_order.append(Invertible1x1(_LAYOUTS[split]))
    inverse_order.append(coupling(split))
  return Chain(tuple(reversed(inverse_order)))
