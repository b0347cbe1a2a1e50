"""Ranking candidates, by another model too."""

import dataclasses
import functools

from flax import linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Sharding
import numpy as np

from latentnmt.decode.protocol import Method, Score
from latentnmt.errors import InputError
from latentnmt.inference import variables
from latentnmt.masks import lengths, take_rows, token_mask, trim
from latentnmt.types import EOS, Array, Batch, Hypotheses, Params, Tokens


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


def check_teacher(method: Method, score: Score | None) -> None:
  """Refuses a method whose candidates a teacher ranks, where there is none.

  Raises:
    InputError: naming the method.
  """
  if method.teacher and score is None:
    raise InputError(f"{method} needs a teacher to rank its candidates.")


@functools.partial(jax.jit, static_argnums=0)
def _log_probs(model, params, x: Tokens, tokens: Array) -> Array:
  """Scores all candidates in one teacher-forced pass."""

  def log_prob(y):
    key = jax.random.key(0)  # drawn from by latent models only
    return model.apply(variables(params), Batch(x, y), key).elbo

  return jax.vmap(log_prob, in_axes=1, out_axes=1)(tokens)


@jax.jit
def rank(tokens: Array, scores: Array) -> Hypotheses:
  """Sorts best first; a later copy of a translation goes last, at -inf."""
  # Twice sorted: copies can be told only once the better one is known.
  order = jnp.argsort(-scores, axis=1)
  tokens, scores = (
    take_rows(tokens, order),
    jnp.take_along_axis(scores, order, 1),
  )
  same = jnp.all(tokens[:, :, None] == tokens[:, None, :], axis=-1)
  earlier = np.tri(scores.shape[1], k=-1, dtype=bool)[None]
  scores = jnp.where(jnp.any(same & earlier, axis=2), -jnp.inf, scores)
  order = jnp.argsort(-scores, axis=1)
  return Hypotheses(
    take_rows(tokens, order), jnp.take_along_axis(scores, order, 1)
  )


def ended(y: Tokens, real: Array) -> Tokens:
  """Returns int32[B, T + 1] with an EOS after the last token of real rows.

  Args:
    y: int32[B, T], cut after the first EOS.
    real: bool[B].
  """
  y = jnp.pad(trim(y), ((0, 0), (0, 1)))
  length = lengths(token_mask(y))[:, None]
  here = (jnp.arange(y.shape[1])[None] == length) & real[:, None]
  return trim(jnp.where(here, EOS, y))
