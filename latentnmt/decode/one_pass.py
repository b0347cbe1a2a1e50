"""Decoding of models whose one pass gives an output's states.

A method is one compiled program for each shape: encoder, decoder, and a search
that the output has. They ask of a model `output`, `embedding`, `precompute` and
`states`, as `OnePassTransformer` has them.
"""

import dataclasses
import functools
import re
from typing import ClassVar

from flax import linen as nn
import jax

from latentnmt.decode.propose import grid_size, propose_lengths
from latentnmt.decode.protocol import NUMBER
from latentnmt.errors import InputError
from latentnmt.inference import variables
from latentnmt.masks import length_mask
from latentnmt.outputs import output_mask
from latentnmt.types import (
  Array,
  Hypotheses,
  Mask,
  Nats,
  Params,
  Source,
  Tokens,
)


@dataclasses.dataclass(frozen=True)
class Lookahead:
  """Follows the likeliest link of a graph together with the word behind it.

  One walk over the vertices (Huang et al. 2022). Scores: log-probability of
  the walk.

  Attributes:
    weight: of the word's log-probability, added to the link's.
  """

  examples: ClassVar = ("lookahead",)
  _name: ClassVar = re.compile(rf"lookahead(?:-w{NUMBER})?")

  weight: float = 1.0

  def __str__(self):
    return "lookahead" + (f"-w{self.weight:g}" if self.weight != 1 else "")

  @classmethod
  def parse(cls, name: str) -> "Lookahead | None":
    """Reads `str(lookahead)` back, None for a name of another method."""
    if not (match := cls._name.fullmatch(name)):
      return None
    return cls(*(float(weight) for weight in match.groups() if weight))

  def decode(self, model, params, x, score, keys) -> Hypotheses:
    """Translates int32[B, S]; see `Method.decode`."""
    del score, keys
    return one_pass(model, self, params, x)

  def search(self, output, embedding, states, mask) -> tuple[Array, Array]:
    """Returns int32[B, 1, T] and float32[B, 1]."""
    return _one(output.lookahead(embedding, states, mask, self.weight))


@dataclasses.dataclass(frozen=True)
class Viterbi:
  """Finds the likeliest walk of a graph, each vertex with its likeliest word.

  Joint Viterbi (Shao et al. 2022): the best walk of each length, and of these
  the one with the highest log-probability over length^`length_penalty`, EOS
  counted. Scores: log-probability of the walk.

  Attributes:
    length_penalty: 0 for the likeliest walk; more for longer strings.
  """

  examples: ClassVar = ("viterbi", "viterbi-p1.25")
  _name: ClassVar = re.compile(rf"viterbi(?:-p{NUMBER})?")

  length_penalty: float = 1.0

  def __str__(self):
    penalty = self.length_penalty
    return "viterbi" + (f"-p{penalty:g}" if penalty != 1 else "")

  @classmethod
  def parse(cls, name: str) -> "Viterbi | None":
    """Reads `str(viterbi)` back, None for a name of another method."""
    if not (match := cls._name.fullmatch(name)):
      return None
    return cls(*(float(penalty) for penalty in match.groups() if penalty))

  def decode(self, model, params, x, score, keys) -> Hypotheses:
    """Translates int32[B, S]; see `Method.decode`."""
    del score, keys
    return one_pass(model, self, params, x)

  def search(self, output, embedding, states, mask) -> tuple[Array, Array]:
    """Returns int32[B, 1, T] and float32[B, 1]."""
    return _one(output.viterbi(embedding, states, mask, self.length_penalty))


@dataclasses.dataclass(frozen=True)
class PrefixBeam:
  """Searches likely strings of a CTC, where greedy search finds a path.

  See `outputs.prefix_beam`. Scores: log-probability of the paths of a string
  that the search saw, over length^`length_penalty`, EOS counted.

  Attributes:
    size: prefixes kept, and candidates returned.
    length_penalty: 0 for the likeliest string; more for longer ones.
  """

  examples: ClassVar = ("prefix8", "prefix8-p1")
  _name: ClassVar = re.compile(rf"prefix(\d+)(?:-p{NUMBER})?")

  size: int = 8
  length_penalty: float = 0.0

  def __post_init__(self):
    if self.size < 1:
      raise InputError(f"prefix beam size {self.size} is less than 1.")

  def __str__(self):
    penalty = f"-p{self.length_penalty:g}" if self.length_penalty else ""
    return f"prefix{self.size}{penalty}"

  @classmethod
  def parse(cls, name: str) -> "PrefixBeam | None":
    """Reads `str(prefix_beam)` back, None for a name of another method."""
    if not (match := cls._name.fullmatch(name)):
      return None
    size, penalty = match.groups()
    return cls(int(size), *([float(penalty)] if penalty else []))

  def decode(self, model, params, x, score, keys) -> Hypotheses:
    """Translates int32[B, S]; see `Method.decode`."""
    del score, keys
    return one_pass(model, self, params, x)

  def search(self, output, embedding, states, mask) -> tuple[Array, Array]:
    """Returns int32[B, N, T], best first, and float32[B, N]."""
    return output.prefix_beam(
      embedding, states, mask, self.size, length_penalty=self.length_penalty
    )


def one_pass(model: nn.Module, method, params: Params, x: Tokens) -> Hypotheses:
  """Translates int32[B, S] by a method's `search` of an output's states.

  Args:
    model: with the methods of `OnePassTransformer`.
    method: whose `search(output, embedding, states, mask)` returns int32[B, N,
      T] and float32[B, N].
    params: of the model.
    x: int32[B, S].
  """
  if not model.output.given_length:
    return _encode_and_search(model, method, params, x)
  source, length, log_pl = propose_lengths(model, 1, params, x)
  size = grid_size(length, x)
  found = _search(model, method, size, params, source, length[:, 0])
  return found.replace(scores=found.scores + log_pl)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _encode_and_search(model, method, params, x) -> Hypotheses:
  bound = model.bind(variables(params))
  source = bound.precompute(x)
  return _searched(bound, method, source, output_mask(bound.output, source))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _search(model, method, size, params, source, length) -> Hypotheses:
  bound = model.bind(variables(params))
  return _searched(bound, method, source, length_mask(length, size))


def _searched(bound, method, source: Source, mask: Mask) -> Hypotheses:
  states = bound.states(mask, source)
  return Hypotheses(*method.search(bound.output, bound.embedding, states, mask))


def _one(found: tuple[Tokens, Nats]) -> tuple[Array, Array]:
  """Returns tokens [B, T] and their scores as one hypothesis of each row."""
  tokens, scores = found
  return tokens[:, None], scores[:, None]
