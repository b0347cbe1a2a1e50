"""The subject of a measurement: a model, and sentences of a given length.

Presets decode and score with what `models.for_inference` prepares, trained runs
with their parameters as they are, as `translate` does. Of a model with random
weights the decoder cannot end a translation earlier or later than it is asked
to. A trained model decodes as it does.
"""

from collections.abc import Mapping
import dataclasses
import functools

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from latentnmt import decode, models
from latentnmt.config import ExperimentConfig
from latentnmt.data import TokenStore
from latentnmt.masks import round_up
from latentnmt.models import AutoregressiveTransformer, LatentTransformer
from latentnmt.types import EOS, Batch, Params, Variables

_STEP = 8  # lengths of sources are rounded up to a multiple


@dataclasses.dataclass(frozen=True)
class Subject:
  """A model with sentences to measure it on.

  Attributes:
    config: of the model and its training.
    batch: int32[n, S] and int32[n, T], n pairs of about the same length.
    source: where they are from, a split or "random".
    length: tokens of each translation; None for as many as the model wants.
    trained: parameters; None for random ones.
    scores: what ranks the candidates of methods that a teacher judges.
  """

  config: ExperimentConfig
  batch: Batch
  source: str
  length: int | None = None
  trained: Params | None = None
  scores: Mapping[decode.Method, decode.Score | None] = dataclasses.field(
    default_factory=dict
  )

  @functools.cached_property
  def params(self) -> Params | Variables:
    """Variables to decode and score with; training has its own."""
    if self.trained is not None:
      return self.trained
    init = jax.jit(models.init_params, static_argnums=0)
    params = init(self.model, jax.random.key(self.config.train.seed))
    return jax.block_until_ready(models.for_inference(self.model, params))

  @property
  def layers(self) -> str:
    """Layout of layers in decoding and scoring; see `models.for_inference`."""
    return "stacked" if self.length is None else "unstacked"

  @functools.cached_property
  def model(self) -> nn.Module:
    """The model."""
    return models.build(self.config.model)

  @functools.cached_property
  def decoder(self) -> nn.Module:
    """The model, of fixed length where there is one."""
    if self.length is None:
      return self.model
    predicts = hasattr(self.model, "best_lengths")
    kind = _FixedLengthLatent if predicts else _FixedLength
    return kind(self.config.model, target_length=self.length)

  def rows(self, size: int) -> Batch:
    """Returns the first `size` pairs, again from the first if need be."""
    index = np.arange(size) % len(self.batch.x)
    return Batch(self.batch.x[index], self.batch.y[index])

  def batches(self, number: int, size: int) -> np.ndarray:
    """Returns sources int32[number, size, S], as `rows` does."""
    return self.rows(number * size).x.reshape(number, size, -1)


class _FixedLength(AutoregressiveTransformer):
  """EOS is what comes at the last position, and nowhere before."""

  target_length: int = 0

  def step(self, tokens, t, *args):
    logits, cache = super().step(tokens, t, *args)
    # No larger: scores are added to it, and should not be lost in rounding.
    end = jnp.where(t == self.target_length - 1, 1e3, -1e3)
    return logits.at[..., EOS].set(end), cache


class _FixedLengthLatent(LatentTransformer):
  """Every target is predicted to be of the same length."""

  target_length: int = 0

  def best_lengths(self, source, count):
    length, log_prob = super().best_lengths(source, count)
    return jnp.full_like(length, self.positions), log_prob

  @property
  def positions(self) -> int:
    """The length that the model can have."""
    return round_up(self.target_length, self.length_multiple)


def random_subject(
  config: ExperimentConfig, pairs: int, source_length: int, target_length: int
) -> Subject:
  """Draws sentences, both sides ending in EOS, for random weights."""
  rng = np.random.default_rng(config.train.seed)

  def tokens(length):
    vocab = config.model.transformer.vocab_size
    sentences = rng.integers(EOS + 2, vocab, (pairs, length), np.int32)
    sentences[:, -1] = EOS
    return sentences

  batch = Batch(tokens(source_length), tokens(target_length))
  return Subject(config, batch, "random", target_length)


def of_median_length(x: list[list[int]], y: list[list[int]]) -> Batch:
  """Returns the pairs whose source length rounds up as the median does."""
  store = TokenStore.from_sequences(x, y)
  rounded = round_up(store.lengths[:, 0], _STEP)
  size = np.quantile(rounded, 0.5, method="inverted_cdf")
  chosen = np.flatnonzero(rounded == size)
  return store.gather(chosen, size, store.lengths[chosen, 1].max())
