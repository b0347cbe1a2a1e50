"""Schedules along training: KL weight, learning rate, glancing."""

import jax.numpy as jnp

from latentnmt.config import TrainConfig
from latentnmt.types import Array


def kl_weight(step: Array | int, config: TrainConfig) -> Array:
  """Returns beta: 0 up to step `kl_start`, then linear to 1 in `kl_ramp`."""
  after = jnp.asarray(step, jnp.float32) - config.kl_start
  if config.kl_ramp == 0:  # a step, rather than a division by zero
    return jnp.where(after >= 0, 1.0, 0.0)
  return jnp.clip(after / config.kl_ramp, 0.0, 1.0)


def learning_rate(step: Array | int, config: TrainConfig, width: int) -> Array:
  """Returns the Transformer's rate (Vaswani et al. 2017) at step 0, 1, 2 ...

  learning_rate width^-0.5 min(t^-0.5, t warmup^-1.5) with t = step + 1, where
  t starts again at 1 at step `schedule_restart`.
  """
  t = jnp.asarray(step, jnp.float32) + 1
  if config.schedule_restart:
    restart = config.schedule_restart
    t = jnp.where(t > restart, t - restart, t)
  warmup = max(config.warmup, 1)  # of 0 steps: the rate falls from the start
  scale = config.learning_rate * width**-0.5
  return scale * jnp.minimum(t**-0.5, t * warmup**-1.5)


def glancing(step: Array | int, config: TrainConfig) -> Array | None:
  """Returns the share of wrong words to show; None for no glancing.

  `config.glancing` evenly along the training, linear between its values.
  """
  shares = config.glancing
  if not shares:
    return None
  places = jnp.linspace(0.0, max(config.steps - 1, 1), len(shares))
  return jnp.interp(jnp.asarray(step, jnp.float32), places, jnp.array(shares))
