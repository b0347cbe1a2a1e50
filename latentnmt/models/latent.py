"""A latent-variable model with a non-autoregressive decoder."""

import functools
import math
from typing import ClassVar

from flax import linen as nn
import jax
import jax.numpy as jnp

from latentnmt import config as cfg
from latentnmt.bijections import cache_of, precompute
from latentnmt.decode import Delta, Sample
from latentnmt.embedding import Embedding
from latentnmt.errors import InputError
from latentnmt.masks import (
  append_eos,
  lengths,
  masked_sum,
  real_mask,
  token_mask,
)
from latentnmt.models import glancing as glance
from latentnmt.models.encoder import Encoder
from latentnmt.models.latent_terms import latent_terms, mean_gain
from latentnmt.models.length import LengthPredictor
from latentnmt.models.protocol import TargetLatents, check_dropout
from latentnmt.priors import build_prior
from latentnmt.transformer import (
  DecoderStack,
  Dropout,
  WeightNormDense,
  add_positions,
)
from latentnmt.types import (
  PAD,
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


class LatentTransformer(TargetLatents, nn.Module):
  """p(y|x, T) = E over p(z|x) of prod over t of p(y_t|z, x).

  One latent vector of C channels for each target position; see Eq. 1 and 2 of
  the paper. Targets are filled up with EOS to a multiple of `length_multiple`.

  Attributes:
    config: sizes.
    prior: any module with the `Prior` contract; by default the one that
      `config.prior` describes.

  Raises:
    InputError: for a prior of other channels than the configuration's, or
      too small a `max_length_difference` for `length_multiple`.
  """

  exact: ClassVar = False
  methods: ClassVar = Delta, Sample
  glances: ClassVar = True
  smooths: ClassVar = True

  config: cfg.LatentConfig
  prior: nn.Module | None = None

  def __post_init__(self):
    if self.prior is None:
      # Set before `super().__post_init__`, which freezes the module.
      object.__setattr__(self, "prior", build_prior(self.config))
    super().__post_init__()
    self._check()

  def _check(self):
    channels, prior = self.config.channels, self.prior.channels
    if prior != channels:
      raise InputError(
        f"The prior has channels={prior} and the model channels={channels};"
        " make them equal."
      )
    if self.most_lengths < 2:
      bound, multiple = self.config.max_length_difference, self.length_multiple
      raise InputError(
        f"max_length_difference={bound} leaves no choice between target lengths"
        f" that are multiples of {multiple}; set it to {multiple} or more."
      )

  @property
  def length_multiple(self) -> int:
    """Least common multiple of the configuration's and the prior's."""
    return math.lcm(self.config.length_multiple, self.prior.length_multiple)

  @property
  def most_lengths(self) -> int:
    """Number of target lengths that `best_lengths` can tell apart."""
    classes = 2 * self.config.max_length_difference + 1
    return classes // self.length_multiple

  def setup(self):
    c = self.config
    transformer = c.transformer
    self.embedding = Embedding(transformer)
    self.encoder = Encoder(transformer, c.encoder_layers)
    self.length = LengthPredictor(
      transformer.width,
      c.max_length_difference,
      self.length_multiple,
      c.length_gradient,
    )
    # A posterior that saw every word would copy them into the latents, and
    # leave the source to nobody.
    self.word_dropout = Dropout(c.posterior_word_dropout, shared=(-1,))
    self.posterior_stack = DecoderStack(transformer, c.posterior_layers)
    self.posterior_out = WeightNormDense(
      2 * c.channels, functools.partial(mean_gain, c.posterior_gain)
    )
    self.decoder = DecoderStack(transformer, c.decoder_layers)
    # Only where it is needed: a module that is made has parameters.
    if c.channels != transformer.width:
      self.from_latents = nn.Dense(transformer.width, dtype=transformer.dtype)

  def __call__(
    self,
    batch: Batch,
    key: Key,
    train: bool = False,
    glancing: Array | None = None,
  ) -> Terms:
    """Returns the terms at one posterior sample; see `Model`.

    Raises:
      ValueError: for a "dropout" rng without `train`.
    """
    check_dropout(self, train)
    source = self.encode(batch.x)
    y, mask = self.targets(batch.y)
    mean, scale = self.posterior(y, mask, source)
    z = mean + scale * jax.random.normal(key, mean.shape)
    states = self._states(z, mask, source)
    if glancing is not None:
      # A key of its own: without glancing a sample is what it always was.
      key = jax.random.fold_in(key, 1)
      guess, _ = self.embedding.likeliest(jax.lax.stop_gradient(states))
      words = glance.choose(y, guess, key, glancing)
      states = self._states(z, mask, source, words)
    log_py, uniform = self.embedding.log_probs(states, y)
    return Terms(
      log_py=masked_sum(log_py, mask),
      log_py_uniform=masked_sum(uniform, mask),
      # The tails are a constant factor that nothing learns from.
      log_pl=self.log_prob_length(mask, source, tails=not train),
      num_tokens=lengths(real_mask(y)).astype(jnp.float32),
      escaped=jnp.zeros(len(y)),
      **latent_terms(self.prior, z, mean, scale, mask, source),
    )

  def encode(self, x: Tokens) -> Source:
    """Encodes int32[B, S]."""
    return self.encoder(self.embedding, x)

  def precompute(self, x: Tokens) -> Source:
    """Encodes int32[B, S], with what all parts compute from the source alone.

    For whoever goes on to call the model's methods often, but not its parts:
    `cache` is that of each part by its name, keys and values of layers.
    """
    source = self.encode(x)
    cache = {
      "posterior": self.posterior_stack.precompute(source),
      "decoder": self.decoder.precompute(source),
      "prior": precompute(self.prior, source),
    }
    return source.replace(cache=cache)

  def targets(self, y: Tokens) -> tuple[Tokens, Mask]:
    """Appends EOS up to the length multiple; returns the mask, too."""
    y = append_eos(y, self.length_multiple)
    return y, token_mask(y)

  def posterior(
    self, y: Tokens, mask: Mask, source: Source
  ) -> tuple[Latents, Latents]:
    """Returns mean and standard deviation of q(z|x, y), float32[B, T, C]."""
    x = add_positions(self.word_dropout(self.embedding(y)))
    cache = cache_of(self.posterior_stack, source.of("posterior"))
    states = self.posterior_stack(x, mask, cache)
    mean, log_scale = jnp.split(self.posterior_out(states), 2, axis=-1)
    return mean, jnp.exp(log_scale)

  def decode(self, z: Latents, mask: Mask, source: Source) -> Array:
    """Returns the logits of p(y_t|z, x), float32[B, T, V]."""
    return self.embedding.logits(self._states(z, mask, source))

  def read(self, z: Latents, mask: Mask, source: Source) -> tuple[Tokens, Nats]:
    """Returns argmax p(y|z, x), int32[B, T] without PAD, and log p of it."""
    states = self._states(z, mask, source)
    tokens, log_prob = self.embedding.likeliest(states)
    return jnp.where(mask, tokens, PAD), masked_sum(log_prob, mask)

  def draw(self, key: Key, z: Latents, mask: Mask, source: Source) -> Tokens:
    """Draws from p(y|z, x), int32[B, T]: each position by itself.

    A row in which PAD was drawn is all padding.
    """
    logits = self.decode(z, mask, source)
    y = jax.random.categorical(key, logits).astype(jnp.int32)
    # PAD has a probability like any token, of some 1/V in a model that was
    # never trained. No sentence contains it, but excluding it would change the
    # density.
    whole = jnp.all((y != PAD) | ~mask, axis=1)
    return jnp.where(mask & whole[:, None], y, PAD)

  def log_joint(
    self, z: Latents, y: Tokens, mask: Mask, source: Source
  ) -> tuple[Nats, Nats]:
    """Returns log p(y|z, x) and log p(z|x), float32[B] nats per sentence."""
    log_py, _ = self.embedding.log_probs(self._states(z, mask, source), y)
    log_py = masked_sum(log_py, mask)
    return log_py, self.prior.log_prob(z, mask, source.of("prior"))

  def log_prob_length(
    self, mask: Mask, source: Source, tails: bool = True
  ) -> Nats:
    """Returns log p(T|x) of the lengths in `mask`, zero for empty rows."""
    return self.length.log_prob(lengths(mask), source, tails)

  def best_lengths(self, source: Source, count: int) -> tuple[Array, Nats]:
    """Returns the likeliest lengths, int32[B, count], and log p of each."""
    return self.length.best(source, count)

  def sample_lengths(self, keys: Key, source: Source) -> tuple[Array, Nats]:
    """Draws lengths int32[B] from p(T|x), and returns log p of each."""
    return self.length.sample(keys, source)

  def center(self, mask: Mask, source: Source) -> Latents:
    """Returns the latents at which refinement starts, float[B, T, C]."""
    return self.prior.center(mask, source.of("prior"))

  def sample(
    self, key: Key, mask: Mask, source: Source, temperature: float = 1.0
  ) -> Latents:
    """Draws from the prior, float[B, T, C]."""
    source = source.of("prior")
    return self.prior.sample(key, mask, source, temperature=temperature)

  def _states(
    self, z: Latents, mask: Mask, source: Source, shown: Tokens | None = None
  ) -> Array:
    z = z.astype(self.config.transformer.dtype)
    if self.config.channels != self.config.transformer.width:
      z = self.from_latents(z)
    if shown is not None:
      z = glance.show(z, shown, self.embedding)
    cache = cache_of(self.decoder, source.of("decoder"))
    return self.decoder(add_positions(z), mask, cache)
