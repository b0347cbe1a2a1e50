"""Configuration of outputs: how decoder positions become a string."""

import dataclasses

from latentnmt.config.ranges import check_ranges
from latentnmt.errors import InputError


@dataclasses.dataclass(frozen=True)
class FactorisedConfig:
  """A word at each of T positions, independently; T has p(T|x) of its own.

  Attributes:
    family: what models with this output are grouped by in a report.
  """

  family: str = "factorised"


@dataclasses.dataclass(frozen=True)
class CtcConfig:
  """Connectionist temporal classification (Graves et al. 2006).

  Attributes:
    scale: slots for each source token, EOS counted.
    extra: slots on top.
    merge: whether equal neighbours are one word.
    escape: weight of the mixture that gives every string a probability.
    family: what models with this output are grouped by in a report.
  """

  scale: float = 2.0
  extra: int = 2
  merge: bool = True
  escape: float = 1e-4
  family: str = "CTC"

  def __post_init__(self):
    check_ranges(self)


@dataclasses.dataclass(frozen=True)
class DagConfig:
  """A directed acyclic graph of vertices (Huang et al. 2022).

  Attributes:
    scale: vertices for each source token, EOS counted.
    extra: vertices on top; two are the start and the end.
    heads: softmaxes that a vertex's links are a mixture of.
    escape: weight of the mixture that gives every string a probability.
    family: what models with this output are grouped by in a report.
  """

  scale: float = 4.0
  extra: int = 2
  heads: int = 4
  escape: float = 1e-4
  family: str = "DAG"

  def __post_init__(self):
    check_ranges(self)


@dataclasses.dataclass(frozen=True)
class CustomOutputConfig:
  """An output from the user's own code.

  Attributes:
    target: "package.module:Class", built as `Class(**fields)`.
    fields: constructor arguments as (name, value) pairs.
    family: what models with this output are grouped by in a report.
  """

  target: str
  fields: tuple = ()
  family: str = "custom output"


OutputConfig = FactorisedConfig | CtcConfig | DagConfig | CustomOutputConfig


def check_output_heads(output: OutputConfig, width: int) -> None:
  """Refuses links whose heads do not divide the width of the states.

  Raises:
    InputError: naming both.
  """
  heads = getattr(output, "heads", 1)
  if width % heads:
    raise InputError(f"output.heads={heads} must divide width={width}.")
