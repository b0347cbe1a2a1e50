"""Greedy search, whatever a model decides about one after the other."""

import dataclasses
import re
from typing import ClassVar

from latentnmt.decode.beam import Beam, beam_search
from latentnmt.decode.one_pass import one_pass
from latentnmt.decode.protocol import NUMBER
from latentnmt.errors import InputError
from latentnmt.types import Array, Hypotheses


@dataclasses.dataclass(frozen=True)
class Greedy:
  """Takes what is likeliest, each time.

  The next token of an autoregressive model; the word or blank of each slot of a
  CTC; the next link of a graph, and the word behind it; the word of each
  position at the likeliest length. Scores: log-probability of what was taken,
  which of an autoregressive model is log p(y|x).

  Attributes:
    blank_penalty: of a CTC: taken off the log-probability of blanks in the
      comparison, which makes for longer strings.
  """

  examples: ClassVar = ("greedy",)
  _name: ClassVar = re.compile(rf"greedy(?:-b{NUMBER})?")

  blank_penalty: float = 0.0

  def __str__(self):
    penalty = self.blank_penalty
    return "greedy" + (f"-b{penalty:g}" if penalty else "")

  @classmethod
  def parse(cls, name: str) -> "Greedy | None":
    """Reads `str(greedy)` back, None for a name of another method."""
    if not (match := cls._name.fullmatch(name)):
      return None
    return cls(*(float(penalty) for penalty in match.groups() if penalty))

  def decode(self, model, params, x, score, keys) -> Hypotheses:
    """Translates int32[B, S]; see `Method.decode`."""
    del score, keys
    if hasattr(model, "step"):  # it goes from left to right
      self._check_blanks(False)
      return beam_search(model, Beam(1, 0.0), params, x)
    return one_pass(model, self, params, x)

  def search(self, output, embedding, states, mask) -> tuple[Array, Array]:
    """Returns int32[B, 1, T] and float32[B, 1]."""
    has_blanks = hasattr(output, "prefix_beam")
    self._check_blanks(has_blanks)
    penalty = {"blank_penalty": self.blank_penalty} if has_blanks else {}
    tokens, scores = output.best(embedding, states, mask, **penalty)
    return tokens[:, None], scores[:, None]

  def _check_blanks(self, has_blanks: bool) -> None:
    if self.blank_penalty and not has_blanks:
      raise InputError(f"{self}: the model has no blanks.")
