"""The contract of every model, and of those with latents."""

from typing import Any, ClassVar, Protocol

from flax import linen as nn
import jax.numpy as jnp

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

  Two more are taken as false and true of a model that does not have them:

    glances     whether its call takes `glancing`, a share, in training
    smooths     whether `Terms.log_py_uniform` is more than a zero, so that
                label smoothing has a meaning
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

    Raises:
      ValueError: for a "dropout" rng without `train`.
    """


class LatentModel(Model, Protocol):
  """A model with latents z, whose p(y|x) is known by bounds: `exact` is false.

  Likelihood estimators, refinement and pictures of latents ask for these. A
  model whose prior starts from data also has `encode` and `prior`, see
  `initialise_prior`.

  Latents are at G positions, those of `latent_mask`: the target's, where a
  model has p(T|x) and decodes at a given length, or for example the source's.

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

  def latent_mask(self, mask: Mask, source: Source) -> Mask:
    """Returns where latents are, bool[B, G], of targets' bool[B, T]."""

  def decoder_size(self, source_size: int, target_size: int) -> int:
    """Returns how many positions the decoder has in a batch of [S] and [T]."""

  def posterior(
    self, y: Tokens, mask: Mask, source: Source
  ) -> tuple[Latents, Latents]:
    """Returns mean and standard deviation of q(z|x, y), float32[B, G, C]."""

  def log_joint(
    self, z: Latents, y: Tokens, mask: Mask, source: Source
  ) -> tuple[Nats, Nats]:
    """Returns log p(y|z, x) and log p(z|x), float32[B] nats."""

  def escaped(self, z: Latents, y: Tokens, mask: Mask, source: Source) -> Array:
    """Returns `Terms.escaped` of p(y|z, x), float32[B]."""

  def log_prob_length(self, mask: Mask, source: Source) -> Nats:
    """Returns log p(T|x), float32[B] nats."""

  def best_lengths(self, source: Source, count: int) -> tuple[Array, Nats]:
    """Returns the likeliest lengths int32[B, count], and log p of each."""

  def sample_lengths(self, keys: Key, source: Source) -> tuple[Array, Nats]:
    """Draws lengths int32[B] by typed keys [B], and returns log p of each."""

  def center(self, mask: Mask, source: Source) -> Latents:
    """Returns where refinement starts, float[B, G, C]."""

  def sample(
    self, key: Key, mask: Mask, source: Source, temperature: float = 1.0
  ) -> Latents:
    """Draws from p(z|x), float[B, G, C]."""

  def read(self, z: Latents, mask: Mask, source: Source) -> tuple[Tokens, Nats]:
    """Returns what z says most likely, int32[B, T'], and float32[B], log p."""

  def draw(self, key: Key, z: Latents, mask: Mask, source: Source) -> Tokens:
    """Draws from p(y|z, x), int32[B, T']."""


class TargetLatents:
  """Answers of `LatentModel` where latents are at the target's positions."""

  def latent_mask(self, mask: Mask, source: Source) -> Mask:
    """Returns where latents are: at the target's positions."""
    del source
    return mask

  def decoder_size(self, source_size: int, target_size: int) -> int:
    """Returns the decoder's positions of a batch of these sizes."""
    del source_size
    return target_size

  def escaped(self, z: Latents, y: Tokens, mask: Mask, source: Source) -> Array:
    """Returns float32[B] of zeros: there is no escape."""
    del z, mask, source
    return jnp.zeros(len(y))


def check_dropout(model: nn.Module, train: bool) -> None:
  """Refuses dropout in an evaluation.

  Raises:
    ValueError: for a "dropout" rng without `train`.
  """
  if model.has_rng("dropout") and not train:
    raise ValueError("A 'dropout' rng was given without train=True.")


def can_glance(model: nn.Module) -> bool:
  """Returns whether a model's call takes `glancing`."""
  return getattr(model, "glances", False)


def can_smooth(model: nn.Module) -> bool:
  """Returns whether label smoothing has a meaning for a model."""
  return getattr(model, "smooths", True)
