"""Reading the names of decoding methods."""

from collections.abc import Sequence

from latentnmt.decode.beam import Beam
from latentnmt.decode.delta import Delta
from latentnmt.decode.greedy import Greedy
from latentnmt.decode.one_pass import Lookahead, PrefixBeam, Viterbi
from latentnmt.decode.protocol import Method
from latentnmt.decode.sample import Sample
from latentnmt.errors import InputError

METHODS = Greedy, Beam, Lookahead, Viterbi, PrefixBeam, Sample, Delta


def parse_method(name: str, among: Sequence[type[Method]] = METHODS) -> Method:
  """Reads `str(method)` back.

  Args:
    name: of the method.
    among: classes that it may be of, for example `model.methods`.

  Raises:
    InputError: for a name of none of these.
  """
  for cls in among:
    if (found := cls.parse(name)) is not None:
      return found
  examples = ", ".join(example for cls in among for example in cls.examples)
  raise InputError(
    f"Unknown decoding method {name!r}; valid are for example {examples}."
  )


def methods_of(output) -> tuple[type[Method], ...]:
  """Returns the classes that decode by an output; the first one is quick.

  Args:
    output: with the contract `latentnmt.outputs.Output`.
  """
  searches = {
    "lookahead": Lookahead,
    "best": Greedy,
    "viterbi": Viterbi,
    "prefix_beam": PrefixBeam,
    "sample": Sample,
  }
  return tuple(cls for name, cls in searches.items() if hasattr(output, name))
