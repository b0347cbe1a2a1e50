"""Decoding methods: frozen dataclasses whose `str` is a file name."""

import dataclasses
import re

from latentnmt.types import InputError


@dataclasses.dataclass(frozen=True)
class Greedy:
  """The likeliest next token, each time. Scores: log p(y|x)."""

  def __str__(self):
    return "greedy"


@dataclasses.dataclass(frozen=True)
class Beam:
  """Beam search for autoregressive models.

  A sentence is done once `size` hypotheses have ended in EOS. Scores:
  log p(y|x) / ((5 + length) / 6)^length_penalty (Wu et al. 2016), the length
  counted with EOS. No hypothesis is longer than its source by more than 30.
  """

  size: int = 4
  length_penalty: float = 0.6

  def __post_init__(self):
    if self.size < 1:
      raise InputError(f"beam size {self.size} is less than 1.")

  def __str__(self):
    name = f"beam{self.size}"
    penalty = self.length_penalty
    return name if penalty == 0.6 else f"{name}-p{penalty:g}"


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
    """How many a sentence has."""
    return self.lengths * self.samples

  def __str__(self):
    name = f"delta{self.steps}"
    name += f"-l{self.lengths}" if self.lengths > 1 else ""
    name += f"-s{self.samples}" if self.samples > 1 else ""
    name += f"-t{self.temperature:g}" if self.temperature else ""
    return name + ("-teacher" if self.teacher else "")


Method = Greedy | Beam | Delta

_NUMBER = r"(\d+(?:\.\d+)?(?:e-?\d+)?)"
_BEAM = re.compile(rf"beam(\d+)(?:-p{_NUMBER})?")
_DELTA = re.compile(
  rf"delta(\d+)(?:-l(\d+))?(?:-s(\d+))?(?:-t{_NUMBER})?(-teacher)?"
)


def parse_method(name: str) -> Method:
  """Reads `str(method)` back.

  Raises:
    InputError: for a name that is none.
  """
  if name == "greedy":
    return Greedy()
  if match := _BEAM.fullmatch(name):
    size, penalty = match.groups()
    return Beam(int(size), *([float(penalty)] if penalty else []))
  if match := _DELTA.fullmatch(name):
    steps, length_count, samples, temperature, teacher = match.groups()
    return Delta(
      int(steps), int(length_count or 1), int(samples or 1),
      float(temperature or 0), bool(teacher),
    )  # fmt: skip
  raise InputError(
    f"Unknown decoding method {name!r}; valid are for example greedy, beam4,"
    " beam4-p1, delta1, delta4-l5-s3-t0.5, delta1-l5-teacher."
  )
