"""The contract of decoding methods."""

from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol

from flax import linen as nn

from latentnmt.types import Array, Hypotheses, Key, Params, Tokens

# A number in the name of a method, as "%g" writes it.
NUMBER = r"(\d+(?:\.\d+)?(?:e-?\d+)?)"

# float32[B, N] of source int32[B, S] and candidates int32[B, N, T].
Score = Callable[[Tokens, Array], Array]


class Method(Protocol):
  """A way to translate: a frozen dataclass that decodes by itself.

  `str(method)` is a file name that tells every setting that is not a default,
  and `parse` reads it back. A model says in its `methods` which classes it
  takes; what a method asks of a model is for the two to agree on.

  A method may also have `choose`, a function from the N strings of a sentence
  to the index of the best, or None: where text is translated, it decides
  instead of the order of the hypotheses.

  Attributes:
    examples: names of the method in some settings, to show to people.
  """

  examples: ClassVar[Sequence[str]]

  @classmethod
  def parse(cls, name: str) -> "Method | None":
    """Returns the method of a name, None for a name of another class."""

  def decode(
    self,
    model: nn.Module,
    params: Params,
    x: Tokens,
    score: Score | None,
    keys: Key,
  ) -> Hypotheses:
    """Translates int32[B, S]; arguments are those of `translate`.

    `keys` are typed keys [B], one for each sentence.
    """
