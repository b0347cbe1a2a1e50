"""Delta-posterior refinement of one or many candidates a sentence."""

import dataclasses
import functools
import re
from typing import ClassVar

from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp

from latentnmt.decode.bound import bound_given
from latentnmt.decode.propose import grid_size, propose_lengths
from latentnmt.decode.protocol import NUMBER, Score
from latentnmt.decode.rank import check_teacher, ended, rank
from latentnmt.errors import InputError
from latentnmt.inference import variables
from latentnmt.masks import (
  length_mask,
  token_mask,
)
from latentnmt.types import (
  Hypotheses,
  Key,
  Latents,
  Params,
  Source,
  Tokens,
)


@dataclasses.dataclass(frozen=True)
class Delta:
  """Refinement with a delta posterior (Shu et al. 2019; Eq. 3 of the paper).

  y = argmax p(y|z, x), then `steps` times z = E q(z|x, y) and y again, and no
  more once no sentence changes.

  Attributes:
    steps: refinements at most; 0 decodes where the prior says.
    lengths: candidates for the length, the likeliest of the predictor.
    samples: starting points for each length. The first of several is the
      prior's centre, the others are drawn from the prior.
    temperature: factor on the base noise of those draws; 0 for the centre.
    teacher: whether a teacher ranks the candidates, `translate`'s `score`.

  Scores: with several candidates the `Bound.value` of each, comparable across
  lengths, or what `translate`'s `score` says. With one there is nothing to
  rank, and the score is log p(y|z, x) + log p(T|x) at the latents z it was
  read from.
  """

  examples: ClassVar = ("delta1", "delta4-l5-s3-t0.5", "delta1-l5-teacher")
  _name: ClassVar = re.compile(
    rf"delta(\d+)(?:-l(\d+))?(?:-s(\d+))?(?:-t{NUMBER})?(-teacher)?"
  )

  steps: int = 1
  lengths: int = 1
  samples: int = 1
  temperature: float = 0.0
  teacher: bool = False

  def __post_init__(self):
    if self.steps < 0 or self.lengths < 1 or self.samples < 1:
      raise InputError(f"{self!r}: steps >= 0, lengths and samples >= 1.")
    if self.samples > 1 and self.temperature == 0:
      raise InputError(
        f"{self!r}: several samples at temperature 0 are all the same; set a"
        " temperature above 0."
      )
    if self.teacher and self.candidates == 1:
      raise InputError(
        f"{self!r}: a teacher ranks candidates, and this has one; ask for"
        " several lengths or samples."
      )

  @property
  def candidates(self) -> int:
    """Number of candidates of a sentence."""
    return self.lengths * self.samples

  def __str__(self):
    name = f"delta{self.steps}"
    name += f"-l{self.lengths}" if self.lengths > 1 else ""
    name += f"-s{self.samples}" if self.samples > 1 else ""
    name += f"-t{self.temperature:g}" if self.temperature else ""
    return name + ("-teacher" if self.teacher else "")

  @classmethod
  def parse(cls, name: str) -> "Delta | None":
    """Reads `str(delta)` back, None for a name of another method."""
    if not (match := cls._name.fullmatch(name)):
      return None
    steps, length_count, samples, temperature, teacher = match.groups()
    return cls(
      int(steps), int(length_count or 1), int(samples or 1),
      float(temperature or 0), bool(teacher),
    )  # fmt: skip

  def decode(self, model, params, x, score, keys) -> Hypotheses:
    """Translates int32[B, S]; see `Method.decode`."""
    return delta(model, self, params, x, score, keys)


def delta(
  model: nn.Module,
  method: Delta,
  params: Params,
  x: Tokens,
  score: Score | None,
  keys: Key,
) -> Hypotheses:
  """Refines and ranks all candidates of int32[B, S]; see `Delta`."""
  _check(model, method, score)
  source, length, log_pl = propose_lengths(model, method.lengths, params, x)
  t_max = grid_size(length, x, model.length_multiple)
  # One program for any number of steps, whoever ranks the candidates.
  start = dataclasses.replace(method, steps=0, teacher=False)
  tokens, scores = _refine(
    model, start, t_max, params, source, length, log_pl, keys, method.steps
  )  # fmt: skip
  if score is not None:
    return rank(tokens, score(x, tokens))
  if method.candidates > 1:
    return rank(tokens, bound_given(model, params, source, tokens).value)
  return Hypotheses(tokens, scores)


def _check(model: nn.Module, method: Delta, score: Score | None):
  if method.lengths > model.most_lengths:
    raise InputError(
      f"{method} asks for {method.lengths} lengths, and the model's predictor"
      f" tells {model.most_lengths} apart; ask for fewer."
    )
  check_teacher(method, score)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _refine(model, method, t_max, params, source, length, log_pl, keys, steps):
  """Returns candidates int32[B, N, T + 1], and log p(y|z, x) + log p(T|x)."""
  apply = functools.partial(model.apply, variables(params))

  def decode(z, mask):
    return apply(z, mask, source, method="read")

  def mean(y):
    return posterior_mean(apply, y, source)

  def more(carry):
    step, _, _, changed = carry
    return (step < steps) & changed

  def refine(carry):
    step, y, _, _ = carry
    new, log_py = jax.vmap(decode)(jax.vmap(mean)(y), mask)
    return step + 1, new, log_py, jnp.any(new != y)

  # Candidates come first in every array: `vmap` over them leaves keys and
  # values of the source one copy for all.
  lengths_ = jnp.repeat(length.T, method.samples, axis=0)  # [N, B]
  mask = jax.vmap(lambda n: length_mask(n, t_max))(lengths_)
  start = functools.partial(_start, apply, method, source, t_max, keys)
  z = jax.vmap(start)(length.T)  # [lengths, samples, B, G, C]
  z = z.reshape(-1, *z.shape[2:])
  y, log_py = jax.vmap(decode)(z, mask)
  # A fixed point of the whole batch ends the loop: what no longer changes
  # would only be computed again.
  _, y, log_py, _ = lax.while_loop(more, refine, (0, y, log_py, True))
  real = jnp.any(source.mask, axis=1)
  scores = log_py.T + jnp.repeat(log_pl, method.samples, axis=1)
  return jax.vmap(ended, (0, None))(y, real).swapaxes(0, 1), scores


def _start(apply, method, source, t_max, keys, length) -> Latents:
  """Returns starting latents float[samples, B, G, C] of lengths int32[B]."""
  mask = length_mask(length, t_max)
  if method.temperature == 0:
    return apply(mask, source, method="center")[None]

  def draw(key, k, mask, source):  # of one row: [T, C]
    one = jax.tree.map(lambda leaf: leaf[None], (mask, source))
    key = jax.random.fold_in(key, k)
    return apply(key, *one, method.temperature, method="sample")[0]

  each_row = jax.vmap(draw, in_axes=(0, None, 0, 0))
  each_sample = jax.vmap(each_row, in_axes=(None, 0, None, None))
  # Taken apart by sentence, a source has no cache for all of them.
  alone = source.replace(cache=None)
  z = each_sample(keys, jnp.arange(method.samples), mask, alone)
  if method.samples == 1:
    return z
  # One candidate of each length is the one without sampling.
  return z.at[0].set(apply(mask, source, method="center"))


def posterior_mean(apply, y: Tokens, source: Source) -> Latents:
  """Returns the delta posterior, E q(z|x, y): float32[B, G, C]."""
  mean, _ = apply(y, token_mask(y), source, method="posterior")
  return mean
