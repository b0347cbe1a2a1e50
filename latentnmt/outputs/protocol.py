"""The contract of outputs, and what a log-likelihood comes with."""

from typing import ClassVar, Protocol

from flax import struct

from latentnmt.embedding import Embedding
from latentnmt.masks import length_mask, lengths
from latentnmt.types import Array, Key, Mask, Nats, Source, Tokens


@struct.dataclass
class Likelihood:
  """Figures of log p(y|x) of B strings, in nats of each.

  Attributes:
    log_prob: float32[B], log p(y|x), never minus infinity: with a small fixed
      weight a string comes from the escape, which reaches every string. This
      is the one to report.
    unmixed: float32[B], the same without the escape. This is the one to train
      on: an untrained model may lie so far below the escape that a mixture of
      the two would have no gradient. Where the model cannot make the string
      it is `log_prob`, a constant.
    escaped: bool[B], whether the escape has more than half of the probability,
      as it has wherever the model cannot make the string.
  """

  log_prob: Nats
  unmixed: Nats
  escaped: Array


class Output(Protocol):
  """A Linen module: p(y | states of U positions), normalised over strings.

  A string is y: int32[B, T], words that are neither PAD nor EOS, EOS, padding.
  Positions are bool[B, U], true on the first U_b of each sentence. Padding, of
  y or of positions, is invisible, and no sentence depends on its batch. A row
  of y that is all padding has zero nats. Several strings of the same states are
  for `jax.vmap` over `y` or `key`: what depends on the states alone is then
  computed once.

  The embedding is that of the model: its table is the softmax.
  `latentnmt.testing.check_output` says whether a module keeps the contract.

  Attributes:
    given_length: whether there are as many positions as the string has tokens.
      The model then has p(T|x) from elsewhere, and does not call `positions`.
    scale: positions for each source token, about: a model makes inputs of so
      many kinds of each source state.
    escape: weight of the escape, see `with_escape`; 0 for none.
  """

  given_length: ClassVar[bool]
  scale: float
  escape: float

  def positions(self, source_lengths: Array) -> Array:
    """Returns U_b, int32[B]: of the sentence alone; 0 where it is empty."""

  def max_positions(self, source_size: int) -> int:
    """Returns the most positions of sources of up to `source_size` tokens."""

  def log_prob(
    self, embedding: Embedding, states: Array, y: Tokens, mask: Mask
  ) -> Likelihood:
    """Returns log p(y|x), exactly.

    Args:
      embedding: of the model.
      states: float[B, U, D].
      y: int32[B, T].
      mask: bool[B, U].
    """

  def best(
    self, embedding: Embedding, states: Array, mask: Mask
  ) -> tuple[Tokens, Nats]:
    """Returns the string of one likely path, quickly found.

    Returns:
      int32[B, U + 1] and float32[B], the log-probability of the path, which
      is at most that of the string.
    """

  def sample(
    self,
    key: Key,
    embedding: Embedding,
    states: Array,
    mask: Mask,
    temperature: float = 1.0,
  ) -> tuple[Tokens, Nats]:
    """Draws strings, exactly, but never by the escape.

    Args:
      key: one key, or typed keys [B], one for each sentence.
      embedding: of the model.
      states: float[B, U, D].
      mask: bool[B, U].
      temperature: divides the log-odds of every choice.

    Returns:
      int32[B, U + 1] and float32[B], the log-probability of the path that was
      drawn, at that temperature.
    """

  def likeliest(
    self, embedding: Embedding, states: Array
  ) -> tuple[Tokens, Array]:
    """Returns what each position emits most likely, and log p of it.

    Returns:
      int32[B, U] and float32[B, U]; PAD where it is nothing.
    """

  def alignment(
    self, embedding: Embedding, states: Array, y: Tokens, mask: Mask
  ) -> tuple[Array, Nats]:
    """Returns the likeliest path among those that make y.

    Returns:
      int32[B, U], the index in y of what each position emits, -1 for nothing,
      and float32[B], the log-probability of the path. Where the model cannot
      make y, all are -1 and it is minus infinity.
    """


def output_mask(output: Output, source: Source) -> Mask:
  """Returns the positions bool[B, U] of an output that says how many.

  Args:
    output: not of a given length.
    source: B sentences.
  """
  count = output.positions(lengths(source.mask))
  return length_mask(count, output.max_positions(source.mask.shape[1]))
