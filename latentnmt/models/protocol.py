"""The contract of every model, and of those with latents."""

from typing import Any, ClassVar, Protocol

from flax import linen as nn

from latentnmt.types import (
  Array,
  Batch,
  Key,
  Latents,
  Mask,
  Nats,
  Source,
  Terms,
  Tokens,
)


class Model(Protocol):
  """A Linen module: a conditional density p(y|x) over token sequences.

  What the library asks of a model is here, and families are told apart by it
  alone. `latentnmt.testing.check_model` says whether a module keeps it.

  Attributes:
    exact: whether `Terms.elbo` is log p(y|x) itself rather than a bound.
    methods: the classes of `latentnmt.decode.Method` that it decodes by. The
      first one's default is quick: dev BLEU is measured with it.
    config: its configuration, with the sizes `transformer` and the `family`
      that a report groups models by.
  """

  exact: ClassVar[bool]
  methods: ClassVar[tuple[type, ...]]
  config: Any

  def __call__(self, batch: Batch, key: Key, train: bool = False) -> Terms:
    """Returns the terms of B sentences, nats of each.

    Args:
      batch: padded with PAD; a row that is all padding has zero everywhere.
      key: of samples, where there are any.
      train: whether this is for a gradient; dropout takes a "dropout" rng.
    """


class LatentModel(Model, Protocol):
  """A model with latents z, whose p(y|x) is known by bounds: `exact` is false.

  Likelihood estimators, refinement and pictures of latents ask for these. A
  model whose prior starts from data also has `encode` and `prior`, see
  `initialise_prior`.

  Attributes:
    length_multiple: divides every target length.
    most_lengths: number of target lengths that `best_lengths` can tell apart.
  """

  length_multiple: int
  most_lengths: int

  def precompute(self, x: Tokens) -> Source:
    """Encodes int32[B, S], with all that depends on the source alone."""

  def targets(self, y: Tokens) -> tuple[Tokens, Mask]:
    """Returns targets as the model scores them, and their positions."""

  def posterior(
    self, y: Tokens, mask: Mask, source: Source
  ) -> tuple[Latents, Latents]:
    """Returns mean and standard deviation of q(z|x, y), float32[B, T, C]."""

  def log_joint(
    self, z: Latents, y: Tokens, mask: Mask, source: Source
  ) -> tuple[Nats, Nats]:
    """Returns log p(y|z, x) and log p(z|x), float32[B] nats."""

  def log_prob_length(self, mask: Mask, source: Source) -> Nats:
    """Returns log p(T|x), float32[B] nats."""

  def best_lengths(self, source: Source, count: int) -> tuple[Array, Nats]:
    """Returns the likeliest lengths int32[B, count], and log p of each."""

  def center(self, mask: Mask, source: Source) -> Latents:
    """Returns where refinement starts, float[B, T, C]."""

  def sample(
    self, key: Key, mask: Mask, source: Source, temperature: float = 1.0
  ) -> Latents:
    """Draws from p(z|x), float[B, T, C]."""

  def likeliest(
    self, z: Latents, mask: Mask, source: Source
  ) -> tuple[Tokens, Array]:
    """Returns argmax p(y_t|z, x), int32[B, T], and its log-probability."""


def check_dropout(model: nn.Module, train: bool) -> None:
  """Refuses dropout in an evaluation.

  Raises:
    ValueError: for a "dropout" rng without `train`.
  """
  if model.has_rng("dropout") and not train:
    raise ValueError("A 'dropout' rng was given without train=True.")
