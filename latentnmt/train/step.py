"""One step of training, as a pure function of state and batch.

The state is data only. The randomness of a step is a pure function of (seed,
step).
"""

from collections.abc import Callable
import time
from typing import Any

from flax import linen as nn
from flax import struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from latentnmt import checkpoint, objectives, sharding
from latentnmt.config import ExperimentConfig, TrainConfig
from latentnmt.types import Array, Batch, Key, Params

# Purposes of the random numbers of one step.
INIT, LATENTS, DROPOUT, DEV = range(4)


@struct.dataclass
class TrainState:
  """All that training changes.

  Attributes:
    step: int32 scalar, optimiser steps taken.
    params: of the model.
    opt_state: of `make_optimizer`, which counts non-finite gradients too.
  """

  step: Array
  params: Params
  opt_state: Any


def step_key(seed: int, step: Array | int, purpose: int) -> Key:
  """The key of one purpose in one step."""
  key = jax.random.fold_in(jax.random.key(seed), step)
  return jax.random.fold_in(key, purpose)


def make_optimizer(train: TrainConfig) -> optax.GradientTransformation:
  """Clipping, then Adam without its learning rate, where gradients are finite.

  A gradient that is not finite changes nothing but the counters
  `notfinite_count` and `total_notfinite` of the state.
  """
  clip = optax.clip_by_global_norm(train.clip) if train.clip else []
  adam = optax.scale_by_adam(train.adam_b1, train.adam_b2, train.adam_eps)
  # Past its limit of consecutive errors, optax would apply one: no limit.
  return optax.apply_if_finite(
    optax.chain(clip or optax.identity(), adam), np.iinfo(np.int32).max
  )


def init_state(model: nn.Module, train: TrainConfig) -> TrainState:
  """The state before the first step; a pure function, to be jitted."""
  key = step_key(train.seed, 0, INIT)
  params = model.init(key, checkpoint.example_batch(), key)["params"]
  opt_state = make_optimizer(train).init(params)
  return TrainState(jnp.zeros((), jnp.int32), params, opt_state)


def make_train_step(
  model: nn.Module, config: ExperimentConfig
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]]:
  """The pure function (state, batch) -> (next state, metrics).

  Metrics are scalars: those of `objectives.negative_elbo`, and `beta`,
  `learning_rate`, `gradient_norm` (before clipping), `finite` (of this step's
  gradient) and `nonfinite` (such steps so far).
  """
  train, width = config.train, config.model.transformer.width
  optimizer = make_optimizer(train)

  def train_step(state, batch):
    beta = objectives.kl_weight(state.step, train)
    rate = objectives.learning_rate(state.step, train, width)

    def loss(params):
      terms = model.apply(
        {"params": params},
        batch,
        step_key(train.seed, state.step, LATENTS),
        train=True,
        rngs={"dropout": step_key(train.seed, state.step, DROPOUT)},
      )
      return objectives.negative_elbo(
        terms,
        beta=beta,
        alpha=train.alpha,
        label_smoothing=train.label_smoothing,
        alpha_mix=train.alpha_mix,
      )

    gradient, sums = jax.grad(loss, has_aux=True)(state.params)
    direction, opt_state = optimizer.update(gradient, state.opt_state)
    params = jax.tree.map(lambda p, d: p - rate * d, state.params, direction)
    values = sums | {
      "beta": beta,
      "learning_rate": rate,
      "gradient_norm": optax.global_norm(gradient),
      "finite": opt_state.last_finite,
      "nonfinite": opt_state.total_notfinite,
    }
    return TrainState(state.step + 1, params, opt_state), values

  return train_step


def jit_train_step(model: nn.Module, config: ExperimentConfig, mesh):
  """`make_train_step` over a mesh; the state passed in is used up."""
  same, rows = sharding.replicated(mesh), sharding.by_rows(mesh)
  return jax.jit(
    make_train_step(model, config),
    in_shardings=(same, rows),
    out_shardings=(same, same),
    donate_argnums=0,
  )


class Programs:
  """A jitted function, compiled once for each shape of batch.

  Attributes:
    seconds: spent compiling so far; nothing else runs meanwhile.
  """

  def __init__(self, function):
    self._function, self._programs, self.seconds = function, {}, 0.0

  def __call__(self, state, batch):
    """Calls the program of this shape of batch."""
    shape = batch.x.shape, batch.y.shape
    if shape not in self._programs:
      jax.block_until_ready(state)  # or its steps would count as compilation
      start = time.perf_counter()
      lowered = self._function.lower(state, batch)
      self._programs[shape] = lowered.compile()
      self.seconds += time.perf_counter() - start
    return self._programs[shape](state, batch)
