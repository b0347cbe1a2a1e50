"""Ranking candidates by another model."""

import dataclasses
import functools

from flax import linen as nn
import jax
from jax.sharding import Sharding

from latentnmt.inference import variables
from latentnmt.types import Array, Batch, Params, Tokens


@dataclasses.dataclass(frozen=True, eq=False)
class TeacherScore:
  """The log p(y|x) of candidates by a model that knows it exactly.

  Attributes:
    model: with `exact` true.
    params: its parameters.
  """

  model: nn.Module
  params: Params

  def __call__(self, x: Tokens, tokens: Array) -> Array:
    """Scores int32[B, N, T], given int32[B, S]; returns float32[B, N] nats."""
    return _log_probs(self.model, self.params, x, tokens)

  def on(self, sharding: Sharding) -> "TeacherScore":
    """Returns the same with its parameters on the devices of a sharding."""
    params = jax.device_put(self.params, sharding)
    return dataclasses.replace(self, params=params)


def teacher_score(model: nn.Module, params: Params) -> TeacherScore:
  """Returns a `score` for `translate`: an exact model's log p(y|x)."""
  return TeacherScore(model, params)


@functools.partial(jax.jit, static_argnums=0)
def _log_probs(model, params, x: Tokens, tokens: Array) -> Array:
  """Scores all candidates in one teacher-forced pass."""

  def log_prob(y):
    key = jax.random.key(0)  # drawn from by latent models only
    return model.apply(variables(params), Batch(x, y), key).elbo

  return jax.vmap(log_prob, in_axes=1, out_axes=1)(tokens)
