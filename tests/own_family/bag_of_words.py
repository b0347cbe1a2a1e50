"""A family that the package does not have, in a file of one's own.

Each target token is drawn by its position and the bag of the source's words:

  p(y|x) = prod over t of p(y_t | mean of the embedded x, t)

up to and including EOS, so p(y|x) is known exactly and the length is paid for.

  latentnmt train --model=bag_of_words:BagOfWords --data=DATA --run=RUN
  latentnmt study --recipe=bag_of_words:RECIPE
"""

import dataclasses
import functools
from typing import ClassVar

from flax import linen as nn
import jax
import jax.numpy as jnp

from latentnmt.config import CustomModelConfig
from latentnmt.embedding import Embedding
from latentnmt.experiments.study.schema import Recipe, Run
from latentnmt.inference import variables
from latentnmt.masks import lengths, masked_sum, token_mask, trim
from latentnmt.transformer import sinusoids
from latentnmt.types import EOS, Hypotheses, Terms

_EXTRA_LENGTH = 10


@dataclasses.dataclass(frozen=True)
class Pointwise:
  """Takes the likeliest token of each position. Scores: log p(y|x)."""

  examples: ClassVar = ("pointwise",)

  def __str__(self):
    return "pointwise"

  @classmethod
  def parse(cls, name):
    """Returns `Pointwise()` for "pointwise"."""
    return cls() if name == "pointwise" else None

  def decode(self, model, params, x, score, keys) -> Hypotheses:
    """Translates int32[B, S]; see `latentnmt.decode.Method`."""
    del score, keys
    return _pointwise(model, params, x)


@functools.partial(jax.jit, static_argnums=0)
def _pointwise(model, params, x) -> Hypotheses:
  bound = model.bind(variables(params))
  tokens, log_probs = bound.likeliest(x, x.shape[1] + _EXTRA_LENGTH)
  # Whatever has not ended by then ends there.
  tokens = trim(tokens.at[:, -1].set(EOS))
  real = jnp.any(token_mask(x), axis=1)[:, None]
  tokens = jnp.where(real, tokens, 0)
  scores = masked_sum(log_probs, token_mask(tokens))
  return Hypotheses(tokens[:, None], scores[:, None])


class BagOfWords(nn.Module):
  """p(y_t|x) of the position t and the bag of the source's words.

  Attributes:
    config: sizes, and the family that a report knows it by.
    hidden: width of the hidden layer.
  """

  exact: ClassVar = True
  methods: ClassVar = (Pointwise,)

  config: CustomModelConfig
  hidden: int = 64

  def setup(self):
    sizes = self.config.transformer
    self.embedding = Embedding(sizes)
    self.layer, self.out = nn.Dense(self.hidden), nn.Dense(sizes.width)

  def __call__(self, batch, key, train=False) -> Terms:
    """Returns the terms of B sentences; `key` is not used."""
    mask = token_mask(batch.y)
    states = self._states(batch.x, batch.y.shape[1])
    log_py, uniform = self.embedding.log_probs(states, batch.y)
    return Terms.without_latents(
      masked_sum(log_py, mask),
      masked_sum(uniform, mask),
      lengths(mask).astype(jnp.float32),
    )

  def likeliest(self, x, length):
    """Returns int32[B, length], never PAD, and log-probabilities."""
    return self.embedding.likeliest(self._states(x, length))

  def _states(self, x, length):
    """float32[B, length, D]."""
    count = jnp.maximum(lengths(token_mask(x)), 1)[:, None]
    bag = jnp.sum(self.embedding(x), axis=1) / count
    positions = sinusoids(length, bag.shape[-1])
    return self.out(nn.relu(self.layer(bag[:, None] + positions[None])))


RECIPE = Recipe(
  summary="A family of one's own on phrase pairs with known log p(y|x).",
  corpus="grammar",
  vocab_size=300,
  prepare={"sizes": "200,8,8"},
  runs={
    "bag": Run(
      model="bag_of_words:BagOfWords",
      settings=(
        "train.steps=6",
        "train.eval_every=3",
        "train.keep_every=3",
        "train.batch_tokens=512",
        "model.transformer.width=16",
        "model.transformer.heads=2",
        "model.transformer.max_length=64",
        "model.family=bag of words",
        "model.fields=(('hidden', 8),)",
      ),
      methods=("pointwise",),
      quick_method="pointwise",
    ),
  },
  seconds={"preprocess": 5, "train": 10},
  expected="a table",
  samples=4,
  checkpoint_samples=2,
  batch_sizes=(1, 2),
)
