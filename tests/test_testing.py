"""What `testing.check_model` accepts, and what it says of broken models.

Priors and bijections are checked in their own tests.
"""

import dataclasses
from typing import ClassVar

from flax import linen as nn
import jax
import jax.numpy as jnp
import pytest

from latentnmt import config as cfg
from latentnmt import models, testing
from latentnmt.decode import Greedy
from latentnmt.masks import lengths, masked_sum, token_mask
from latentnmt.types import Hypotheses, Terms

KEY = jax.random.key(0)
TRANSFORMER = cfg.TransformerConfig(5, width=8, hidden=8, heads=2)
LARGE = dataclasses.replace(TRANSFORMER, vocab_size=5000)
AUTOREGRESSIVE = cfg.AutoregressiveConfig(TRANSFORMER, 1, 1)
GAUSS = cfg.LatentConfig(
  TRANSFORMER, 1, 1, 1, channels=4, prior=cfg.GaussianPriorConfig(1)
)
FLOW = dataclasses.replace(
  GAUSS, prior=cfg.FlowPriorConfig((1,), ("c",), hidden=8, heads=1)
)


MODELS = dict(
  autoregressive=models.AutoregressiveTransformer(AUTOREGRESSIVE),
  gauss=models.LatentTransformer(GAUSS),
  flow=models.LatentTransformer(FLOW),
)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_models_of_the_library_keep_the_contract(name):
  testing.check_model(MODELS[name], KEY)


class Unigram(nn.Module):
  """Each token from one distribution, whatever the source: exact."""

  exact: ClassVar = True
  methods: ClassVar = (Greedy,)
  config: cfg.AutoregressiveConfig = AUTOREGRESSIVE

  @nn.compact
  def __call__(self, batch, key, train=False):
    vocab_size = self.config.transformer.vocab_size
    logits = self.param("logits", nn.initializers.zeros, (vocab_size,))
    log_py = self.sums(self.log_probs(logits)[batch.y], token_mask(batch.y))
    zero = jnp.zeros(len(batch.y))
    count = lengths(token_mask(batch.y)).astype(jnp.float32)
    return Terms(log_py, log_py, *[zero] * 5, count, count, zero)

  def log_probs(self, logits):
    return nn.log_softmax(logits)

  def sums(self, log_probs, mask):
    return masked_sum(log_probs, mask)


class SeesPadding(Unigram):
  def sums(self, log_probs, mask):
    every = jnp.sum(log_probs, axis=1)
    return jnp.where(jnp.any(mask, axis=1), every, 0)


class NotNormalised(Unigram):
  def log_probs(self, logits):
    return nn.log_softmax(logits) * 0.5


class OfTheBatch(Unigram):
  def sums(self, log_probs, mask):
    return jnp.sum(masked_sum(log_probs, mask))


class OfTokens(Unigram):
  def log_probs(self, logits):
    return nn.log_softmax(logits).astype(jnp.bfloat16)

  def sums(self, log_probs, mask):
    return jnp.sum(jnp.where(mask, log_probs, 0), axis=1)


class Paddings(Greedy):
  """Translates everything as nothing, not even EOS."""

  def decode(self, model, params, x, score, keys):
    return Hypotheses(
      jnp.zeros((len(x), 1, 2), jnp.int32), jnp.zeros((len(x), 1))
    )


BROKEN = [
  (SeesPadding(), "log_py of a sentence depends on its batch or on padding"),
  (NotNormalised(), "short strings have probability"),
  (OfTheBatch(), r"log_py: float32\[\], not float32\[4\]"),
  (OfTokens(), r"log_py: bfloat16\[4\], not float32\[4\]"),
  (Unigram(TRANSFORMER), "config.family: None"),
  (Unigram(cfg.AutoregressiveConfig(LARGE)), "vocab_size: 5000, not 3 to 20"),
]


@pytest.mark.parametrize(
  ("model", "message"),
  BROKEN,
  ids=[message.split()[0] for _, message in BROKEN],
)
def test_the_property_that_fails_is_named(model, message):
  with pytest.raises(AssertionError, match=message):
    testing.check_model(model, KEY)


@pytest.mark.parametrize(
  ("name", "value", "message"),
  [
    ("exact", False, "not exact, and without precompute, targets, latent_mask"),
    ("exact", None, "exact: None, not True or False"),
    ("methods", (), r"methods: \(\), not a tuple of classes"),
    ("methods", (Paddings,), "a translation that is not tokens, EOS, then"),
  ],
)
def test_what_a_model_says_of_itself_is_checked(
  monkeypatch, name, value, message
):
  monkeypatch.setattr(Unigram, name, value)
  with pytest.raises(AssertionError, match=message):
    testing.check_model(Unigram(), KEY)
