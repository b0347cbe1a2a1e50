"""One step of training, as a pure function of state and batch.

The state is data only. The randomness of a step is a pure function of (seed,
step).
"""

from collections.abc import Callable, Sequence
import concurrent.futures
import math
import os
import time
from typing import Any

from flax import linen as nn
from flax import struct
import jax
from jax.flatten_util import ravel_pytree
import jax.numpy as jnp
from jax.sharding import Mesh
import numpy as np
import optax

from latentnmt import objectives, schedules, sharding
from latentnmt.config import ExperimentConfig, TrainConfig
from latentnmt.models import init_params, initialise_prior
from latentnmt.types import Array, Batch, Key, Params

# Purposes of the random numbers of one step.
INIT, LATENTS, DROPOUT, DEV = range(4)


@struct.dataclass
class TrainState:
  """State of a training: all that it changes.

  Attributes:
    step: int32 scalar, optimiser steps taken.
    params: of the model.
    opt_state: of `make_optimizer`, which counts non-finite gradients too, for
      all parameters as one vector: one program for Adam instead of one for
      each of hundreds of arrays, which would take three times to compile.
  """

  step: Array
  params: Params
  opt_state: Any


def step_key(seed: int, step: Array | int, purpose: int) -> Key:
  """Returns the key of one purpose in one step."""
  # From seed and step alone: a run that was killed draws what it would have.
  key = jax.random.fold_in(jax.random.key(seed), step)
  return jax.random.fold_in(key, purpose)


def make_optimizer(train: TrainConfig) -> optax.GradientTransformation:
  """Returns clipping, then Adam without its rate, of finite gradients.

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
  """Returns the state before the first step; pure, to be jitted."""
  key = step_key(train.seed, 0, INIT)
  params = init_params(model, key)
  opt_state = make_optimizer(train).init(ravel_pytree(params)[0])
  return TrainState(jnp.zeros((), jnp.int32), params, opt_state)


def make_initialise(
  model: nn.Module, config: ExperimentConfig
) -> Callable[[TrainState, Batch], TrainState]:
  """Returns the pure (state, batch) -> state that initialises the prior.

  For priors that start from data, see `initialise_prior`. To be applied once:
  at step `kl_start`, to the batch of that step and before its gradient.
  """

  def initialise(state, batch):
    key = step_key(config.train.seed, state.step, LATENTS)
    params = initialise_prior(model, state.params, batch, key)
    # Adam's moments of the prior are zero, as they should be: until this step
    # the only term that it is in had no weight.
    return state.replace(params=params)

  return initialise


def make_gradient(
  model: nn.Module, config: ExperimentConfig
) -> Callable[
  [Params, Array, tuple[Batch, ...]], tuple[Params, dict[str, Array]]
]:
  """Returns the pure (params, step, parts) -> (gradient, metrics).

  The parts of a batch count as one batch of all their sentences. Metrics are
  those of `objectives.negative_elbo`.
  """
  train = config.train

  def terms_of(params, step, part, batch):
    latents, dropout = (
      # A first part draws as a batch of one part does.
      jax.random.fold_in(key, part) if part else key
      for key in (
        step_key(train.seed, step, LATENTS),
        step_key(train.seed, step, DROPOUT),
      )
    )
    # Only where it is asked for: not every model's call takes it.
    share = schedules.glancing(step, train)
    glancing = {} if share is None else {"glancing": share}
    return model.apply(
      {"params": params}, batch, latents, train=True,
      rngs={"dropout": dropout}, **glancing,
    )  # fmt: skip

  def gradient(params, step, parts):
    def loss(params):
      terms = [terms_of(params, step, k, part) for k, part in enumerate(parts)]
      terms = jax.tree.map(lambda *rows: jnp.concatenate(rows), *terms)
      return objectives.negative_elbo(
        terms,
        beta=schedules.kl_weight(step, train),
        alpha=train.alpha,
        free_nats=train.free_nats,
        label_smoothing=train.label_smoothing,
        alpha_mix=train.alpha_mix,
      )

    return jax.grad(loss, has_aux=True)(params)

  return gradient


def make_update(
  config: ExperimentConfig,
) -> Callable[[TrainState, Params], tuple[TrainState, dict[str, Array]]]:
  """Returns the pure (state, gradient) -> (next state, metrics).

  Metrics are scalars: `beta`, `learning_rate`, `gradient_norm` (before
  clipping), `finite` (this gradient) and `nonfinite` (how many were not).
  """
  train, width = config.train, config.model.transformer.width
  optimizer = make_optimizer(train)

  def update(state, gradient):
    rate = schedules.learning_rate(state.step, train, width)
    # All parameters as one vector: see `TrainState`.
    vector, unravel = ravel_pytree(gradient)
    direction, opt_state = optimizer.update(vector, state.opt_state)
    change = unravel(-rate * direction)
    params = jax.tree.map(jnp.add, state.params, change)
    return TrainState(state.step + 1, params, opt_state), {
      "beta": schedules.kl_weight(state.step, train),
      "learning_rate": rate,
      "gradient_norm": jnp.linalg.norm(vector),
      "finite": opt_state.last_finite,
      "nonfinite": opt_state.total_notfinite,
    }

  return update


def make_train_step(
  model: nn.Module, config: ExperimentConfig
) -> Callable[
  [TrainState, tuple[Batch, ...]], tuple[TrainState, dict[str, Array]]
]:
  """Returns the pure (state, parts) -> (next state, metrics).

  Metrics are scalars, those of `make_gradient` and of `make_update`. A
  prior that starts from data needs `make_initialise`, too.
  """
  gradient, update = make_gradient(model, config), make_update(config)

  def train_step(state, parts):
    direction, sums = gradient(state.params, state.step, parts)
    state, values = update(state, direction)
    return state, sums | values

  return train_step


class Programs:
  """`make_train_step` over a mesh, in compiled programs; a state is used up.

  The gradient is compiled for each kind of batch and the update, a third of
  the whole to compile, once. So is `make_initialise`, for models that want it.

  Args:
    model: to be trained.
    config: of model and training.
    mesh: of the devices.
    announce: told how far compilation is.

  Attributes:
    seconds: spent compiling.
  """

  def __init__(
    self,
    model: nn.Module,
    config: ExperimentConfig,
    mesh: Mesh,
    announce: Callable[[str], None] = lambda what: None,
  ):
    same, self._rows = sharding.replicated(mesh), sharding.by_rows(mesh)
    self._gradient = jax.jit(
      make_gradient(model, config),
      in_shardings=(same, same, self._rows),
      out_shardings=same,
    )
    self._initialise = jax.jit(
      make_initialise(model, config),
      in_shardings=(same, self._rows),
      out_shardings=same,
      donate_argnums=0,
    )
    self._update = jax.jit(
      make_update(config),
      in_shardings=same,
      out_shardings=same,
      donate_argnums=0,
    )
    self._compiled, self._announce, self.seconds = {}, announce, 0.0

  def compile(
    self,
    state: TrainState,
    kinds: Sequence[tuple[tuple[int, int, int], ...]],
    first: tuple[Batch, ...] | None = None,
  ) -> None:
    """Compiles all that batches of parts of the shapes (rows, S, T) need.

    And `initialise`, for a batch like `first`.

    Tracing is Python's and takes turns; compilation runs beside it, on one
    core a program. Processes that train together compile in the same order.
    """
    start = time.perf_counter()
    # XLA releases the interpreter's lock, so threads are enough.
    threads = 1 if jax.process_count() > 1 else os.cpu_count()
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
      update = self._update.lower(state, state.params)
      jobs = {"update": pool.submit(update.compile)}
      if first is not None:
        initialise = self._initialise.lower(state, _largest(first))
        jobs["initialise"] = pool.submit(initialise.compile)
      for shapes in kinds:
        parts = tuple(
          Batch(self._tokens(rows, source), self._tokens(rows, target))
          for rows, source, target in shapes
        )
        gradient = self._gradient.lower(state.params, state.step, parts)
        jobs[_kind(parts)] = pool.submit(gradient.compile)
      for name, job in jobs.items():
        done = f"{len(self._compiled)} of {len(jobs)} programs"
        self._announce(f"compiled {done}")
        self._compiled[name] = job.result()
    self.seconds += time.perf_counter() - start

  def _tokens(self, rows: int, length: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((rows, length), jnp.int32, sharding=self._rows)

  def initialise(
    self, state: TrainState, parts: tuple[Batch, ...]
  ) -> TrainState:
    """Returns the state with its prior initialised from a batch."""
    return self._compiled["initialise"](state, _largest(parts))

  def __call__(
    self, state: TrainState, parts: tuple[Batch, ...]
  ) -> tuple[TrainState, dict[str, Array]]:
    """Returns the next state and the metrics of the step."""
    gradient = self._compiled[_kind(parts)]
    direction, sums = gradient(state.params, state.step, parts)
    state, values = self._compiled["update"](state, direction)
    return state, sums | values


def _kind(parts: tuple[Batch, ...]) -> tuple[tuple[int, int], ...]:
  """Returns the lengths (S, T) of the parts, which say the program."""
  return tuple((part.x.shape[1], part.y.shape[1]) for part in parts)


def _largest(parts: tuple[Batch, ...]) -> Batch:
  """Returns the part with the most target positions."""
  return max(parts, key=lambda part: math.prod(part.y.shape))
