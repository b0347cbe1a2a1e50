"""Latents on source positions, under an output that models the length."""

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
from latentnmt.masks import length_mask, lengths, round_up, token_mask
from latentnmt.models import glancing as glance
from latentnmt.models.encoder import Encoder
from latentnmt.models.latent_terms import latent_terms, mean_gain
from latentnmt.models.protocol import check_dropout
from latentnmt.models.upsample import Upsample
from latentnmt.outputs import Likelihood, build_output, output_mask
from latentnmt.priors import build_prior
from latentnmt.transformer import (
  DecoderStack,
  Dropout,
  EncoderStack,
  WeightNormDense,
  add_positions,
)
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


class SourceLatentTransformer(nn.Module):
  """p(y|x) = E over p(z|x) of p(y|z, x), z on source positions.

  One latent vector of C channels for each source position is added to the
  encoder's state there, before the states are spread over the positions of an
  output (Gu & Kong 2021). The output has the length in its structure, so that
  there is no length predictor, and p(y|z, x) is exact.

  Sources have positions up to a multiple of the prior's `length_multiple`; what
  is appended has latents that nothing else sees.

  Attributes:
    config: sizes.
    prior: any module with the `Prior` contract; by default the one that
      `config.prior` describes.
    output: any module with the `Output` contract that is not of a given length;
      by default the one that `config.output` describes.

  Raises:
    InputError: for a prior of other channels than the configuration's, or an
      output of a given length.
  """

  exact: ClassVar = False
  methods: ClassVar = Delta, Sample
  glances: ClassVar = True
  smooths: ClassVar = False
  # The length is in the output's structure: nobody asks for one.
  length_multiple: ClassVar = 1
  most_lengths: ClassVar = 1

  config: cfg.SourceLatentConfig
  prior: nn.Module | None = None
  output: nn.Module | None = None

  def __post_init__(self):
    # Set before `super().__post_init__`, which freezes the module.
    if self.prior is None:
      object.__setattr__(self, "prior", build_prior(self.config))
    if self.output is None:
      object.__setattr__(self, "output", build_output(self.config.output))
    super().__post_init__()
    if self.prior.channels != self.config.channels:
      raise InputError(
        f"The prior has channels={self.prior.channels} and the model"
        f" channels={self.config.channels}; make them equal."
      )
    if self.output.given_length:
      raise InputError(
        f"{type(self.output).__name__} is of a given length; latents on source"
        " positions need an output that models the length."
      )

  def setup(self):
    c = self.config
    transformer = c.transformer
    self.embedding = Embedding(transformer)
    self.encoder = Encoder(transformer, c.encoder_layers)
    # A posterior that saw every word would copy them into the latents, and
    # leave the source to nobody.
    self.word_dropout = Dropout(c.posterior_word_dropout, shared=(-1,))
    self.posterior_encoder = EncoderStack(transformer, c.posterior_layers)
    self.posterior_stack = DecoderStack(transformer, c.posterior_layers)
    self.posterior_out = WeightNormDense(
      2 * c.channels, functools.partial(mean_gain, c.posterior_gain)
    )
    self.from_latents = nn.Dense(transformer.width, dtype=transformer.dtype)
    self.upsample = Upsample(transformer, math.ceil(self.output.scale))
    self.decoder = DecoderStack(transformer, c.decoder_layers)

  def __call__(
    self,
    batch: Batch,
    key: Key,
    train: bool = False,
    glancing: Array | None = None,
  ) -> Terms:
    """Returns the terms at one posterior sample; see `Model`.

    In training `log_py` is without the escape, as in `OnePassTransformer`.
    """
    check_dropout(self, train)
    source = self.encode(batch.x)
    y, mask = self.targets(batch.y)
    mean, scale = self.posterior(y, mask, source)
    z = mean + scale * jax.random.normal(key, mean.shape)
    found = self._likelihood(z, y, source, key, glancing)
    grid = self.latent_mask(mask, source)
    terms = latent_terms(self.prior, z, mean, scale, grid, source)
    zero = jnp.zeros_like(found.log_prob)
    return Terms(
      log_py=found.unmixed if train else found.log_prob,
      log_py_uniform=zero,
      log_pl=zero,
      num_tokens=lengths(mask).astype(jnp.float32),
      escaped=found.escaped.astype(jnp.float32),
      **terms,
    )

  def encode(self, x: Tokens) -> Source:
    """Encodes int32[B, S]."""
    return self.encoder(self.embedding, x)

  def precompute(self, x: Tokens) -> Source:
    """Encodes int32[B, S], with all that depends on the source alone."""
    source = self.encode(x)
    cache = {
      "decoder": self.decoder.precompute(source),
      "prior": precompute(self.prior, source),
    }
    return source.replace(cache=cache)

  def targets(self, y: Tokens) -> tuple[Tokens, Mask]:
    """Returns targets as they are, and their positions."""
    return y, token_mask(y)

  def latent_mask(self, mask: Mask, source: Source) -> Mask:
    """Returns where latents are, bool[B, G]: at source positions."""
    del mask
    multiple = self.prior.length_multiple
    size = round_up(source.mask.shape[1], multiple)
    return length_mask(round_up(lengths(source.mask), multiple), size)

  def decoder_size(self, source_size: int, target_size: int) -> int:
    """Returns the decoder's positions of a batch of these sizes."""
    del target_size
    return self.output.max_positions(source_size)

  def posterior(
    self, y: Tokens, mask: Mask, source: Source
  ) -> tuple[Latents, Latents]:
    """Returns mean and standard deviation of q(z|x, y), float32[B, G, C]."""
    words = add_positions(self.word_dropout(self.embedding(y)))
    target = Source(self.posterior_encoder(words, mask), mask)
    grid = self.latent_mask(mask, source)
    more = grid.shape[1] - source.states.shape[1]
    states = jnp.where(source.mask[..., None], source.states, 0)
    states = jnp.pad(states, ((0, 0), (0, more), (0, 0)))
    cache = self.posterior_stack.precompute(target)
    states = self.posterior_stack(add_positions(states), grid, cache)
    mean, log_scale = jnp.split(self.posterior_out(states), 2, axis=-1)
    return mean, jnp.exp(log_scale)

  def log_joint(
    self, z: Latents, y: Tokens, mask: Mask, source: Source
  ) -> tuple[Nats, Nats]:
    """Returns log p(y|z, x) and log p(z|x), float32[B] nats per sentence."""
    log_py = self._likelihood(z, y, source).log_prob
    grid = self.latent_mask(mask, source)
    return log_py, self.prior.log_prob(z, grid, source.of("prior"))

  def escaped(self, z: Latents, y: Tokens, mask: Mask, source: Source) -> Array:
    """Returns where p(y|z, x) is the escape's, float32[B]."""
    del mask
    return self._likelihood(z, y, source).escaped.astype(jnp.float32)

  def log_prob_length(self, mask: Mask, source: Source) -> Nats:
    """Returns zeros: the length is in p(y|z, x)."""
    del source
    return jnp.zeros(len(mask))

  def best_lengths(self, source: Source, count: int) -> tuple[Array, Nats]:
    """Returns the positions of each sentence `count` times, and zeros."""
    positions = self.output.positions(lengths(source.mask))
    found = jnp.broadcast_to(positions[:, None], (len(positions), count))
    return found, jnp.zeros(found.shape)

  def sample_lengths(self, keys: Key, source: Source) -> tuple[Array, Nats]:
    """Returns the positions of each sentence int32[B], and zeros."""
    del keys
    length, log_pl = self.best_lengths(source, 1)
    return length[:, 0], log_pl[:, 0]

  def center(self, mask: Mask, source: Source) -> Latents:
    """Returns the latents at which refinement starts, float[B, G, C]."""
    grid = self.latent_mask(mask, source)
    return self.prior.center(grid, source.of("prior"))

  def sample(
    self, key: Key, mask: Mask, source: Source, temperature: float = 1.0
  ) -> Latents:
    """Draws from the prior, float[B, G, C]."""
    grid, source = self.latent_mask(mask, source), source.of("prior")
    return self.prior.sample(key, grid, source, temperature=temperature)

  def read(self, z: Latents, mask: Mask, source: Source) -> tuple[Tokens, Nats]:
    """Returns a likely string of p(y|z, x), int32[B, U + 1], and its path's."""
    del mask
    states, positions = self.states(z, source)
    return self.output.best(self.embedding, states, positions)

  def draw(self, key: Key, z: Latents, mask: Mask, source: Source) -> Tokens:
    """Draws from p(y|z, x), int32[B, U + 1]."""
    del mask
    states, positions = self.states(z, source)
    return self.output.sample(key, self.embedding, states, positions)[0]

  def _likelihood(
    self,
    z: Latents,
    y: Tokens,
    source: Source,
    key: Key | None = None,
    glancing: Array | None = None,
  ) -> Likelihood:
    states, mask = self.states(z, source)
    if glancing is not None:
      # A key of its own: without glancing a sample is what it always was.
      words = glance.glimpse(
        self.output, self.embedding, states, y, mask,
        jax.random.fold_in(key, 1), glancing,
      )  # fmt: skip
      states, mask = self.states(z, source, words)
    return self.output.log_prob(self.embedding, states, y, mask)

  def states(
    self, z: Latents, source: Source, shown: Tokens | None = None
  ) -> tuple[Array, Mask]:
    """Returns states float[B, U, D] of the decoder, and their positions."""
    z = z[:, : source.states.shape[1]].astype(source.states.dtype)
    states = source.states + self.from_latents(z)
    mask, length = output_mask(self.output, source), lengths(source.mask)
    inputs = self.upsample(states, length, lengths(mask), mask.shape[1])
    if shown is not None:
      inputs = glance.show(inputs, shown, self.embedding)
    cache = cache_of(self.decoder, source.of("decoder"))
    return self.decoder(add_positions(inputs), mask, cache), mask
