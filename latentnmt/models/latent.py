"""A latent-variable model with a non-autoregressive decoder."""

import functools
import math
from typing import ClassVar

from flax import linen as nn
import jax
import jax.numpy as jnp

from latentnmt import config as cfg
from latentnmt import distributions
from latentnmt.bijections import cache_of, precompute
from latentnmt.decode import Delta
from latentnmt.embedding import Embedding
from latentnmt.errors import InputError
from latentnmt.masks import (
  append_eos,
  lengths,
  masked_sum,
  real_mask,
  token_mask,
)
from latentnmt.models.encoder import Encoder
from latentnmt.models.length import LengthPredictor
from latentnmt.models.protocol import check_dropout
from latentnmt.priors import build_prior
from latentnmt.transformer import (
  DecoderStack,
  Dropout,
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


class LatentTransformer(nn.Module):
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
  methods: ClassVar = (Delta,)

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
      2 * c.channels, functools.partial(_mean_gain, c.posterior_gain)
    )
    self.decoder = DecoderStack(transformer, c.decoder_layers)
    # Only where it is needed: a module that is made has parameters.
    if c.channels != transformer.width:
      self.from_latents = nn.Dense(transformer.width, dtype=transformer.dtype)

  def __call__(self, batch: Batch, key: Key, train: bool = False) -> Terms:
    """Returns the terms at one posterior sample, nats per sentence.

    Args:
      batch: B sentence pairs.
      key: of the sample.
      train: whether this is for a gradient.

    Raises:
      ValueError: for a "dropout" rng without `train`.
    """
    check_dropout(self, train)
    source = self.encode(batch.x)
    y, mask = self.targets(batch.y)
    mean, scale = self.posterior(y, mask, source)
    z = mean + scale * jax.random.normal(key, mean.shape)
    log_py, uniform = self._log_probs(z, y, mask, source)
    # The batch that `init` sees is made up. To a prior that starts from data,
    # an empty mask says so: it starts as the identity and waits for
    # `initialise_prior`.
    seen = mask & (not self.is_initializing())
    log_pz = self.prior.log_prob(z, seen, source)
    log_qz = masked_sum(distributions.normal_log_prob(z, mean, scale), mask)
    # A closed form has less noise than one sample of the same quantity.
    if hasattr(self.prior, "kl"):
      kl = self.prior.kl(mean, scale, mask, source)
    else:
      kl = log_qz - log_pz
    return Terms(
      log_py=log_py,
      log_py_uniform=uniform,
      log_pz=log_pz,
      log_qz=log_qz,
      kl=kl,
      kl_standard=masked_sum(
        distributions.kl_standard_normal(mean, scale), mask
      ),
      # The tails are a constant factor that nothing learns from.
      log_pl=self.log_prob_length(mask, source, tails=not train),
      num_tokens=lengths(real_mask(y)).astype(jnp.float32),
      num_positions=lengths(mask).astype(jnp.float32),
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

  def _for(self, part: str, source: Source) -> Source:
    """Returns the source with the cache of one part, if it has any."""
    if source.cache is None:
      return source
    return source.replace(cache=source.cache[part])

  def targets(self, y: Tokens) -> tuple[Tokens, Mask]:
    """Appends EOS up to the length multiple; returns the mask, too."""
    y = append_eos(y, self.length_multiple)
    return y, token_mask(y)

  def posterior(
    self, y: Tokens, mask: Mask, source: Source
  ) -> tuple[Latents, Latents]:
    """Returns mean and standard deviation of q(z|x, y), float32[B, T, C]."""
    x = add_positions(self.word_dropout(self.embedding(y)))
    cache = cache_of(self.posterior_stack, self._for("posterior", source))
    states = self.posterior_stack(x, mask, cache)
    mean, log_scale = jnp.split(self.posterior_out(states), 2, axis=-1)
    return mean, jnp.exp(log_scale)

  def decode(self, z: Latents, mask: Mask, source: Source) -> Array:
    """Returns the logits of p(y_t|z, x), float32[B, T, V]."""
    return self.embedding.logits(self._states(z, mask, source))

  def likeliest(
    self, z: Latents, mask: Mask, source: Source
  ) -> tuple[Tokens, Array]:
    """Returns argmax p(y_t|z, x), int32[B, T], and its log-probability.

    The argmax is never PAD. The logits, float32[B, T, V], are not kept.
    """
    return self.embedding.likeliest(self._states(z, mask, source))

  def log_joint(
    self, z: Latents, y: Tokens, mask: Mask, source: Source
  ) -> tuple[Nats, Nats]:
    """Returns log p(y|z, x) and log p(z|x), float32[B] nats per sentence."""
    log_py, _ = self._log_probs(z, y, mask, source)
    return log_py, self.prior.log_prob(z, mask, self._for("prior", source))

  def log_prob_length(
    self, mask: Mask, source: Source, tails: bool = True
  ) -> Nats:
    """Returns log p(T|x) of the lengths in `mask`, zero for empty rows."""
    length = lengths(mask)
    log_prob = self.length.log_prob(length, source, tails)
    return jnp.where(length > 0, log_prob, 0.0)

  def best_lengths(self, source: Source, count: int) -> tuple[Array, Nats]:
    """Returns the likeliest lengths, int32[B, count], and log p of each."""
    return self.length.best(source, count)

  def center(self, mask: Mask, source: Source) -> Latents:
    """Returns the latents at which refinement starts, float[B, T, C]."""
    return self.prior.center(mask, self._for("prior", source))

  def sample(
    self, key: Key, mask: Mask, source: Source, temperature: float = 1.0
  ) -> Latents:
    """Draws from the prior, float[B, T, C]."""
    source = self._for("prior", source)
    return self.prior.sample(key, mask, source, temperature=temperature)

  def _states(self, z: Latents, mask: Mask, source: Source) -> Array:
    z = z.astype(self.config.transformer.dtype)
    if self.config.channels != self.config.transformer.width:
      z = self.from_latents(z)
    cache = cache_of(self.decoder, self._for("decoder", source))
    return self.decoder(add_positions(z), mask, cache)

  def _log_probs(self, z, y, mask, source) -> tuple[Nats, Nats]:
    states = self._states(z, mask, source)
    log_py, uniform = self.embedding.log_probs(states, y)
    return masked_sum(log_py, mask), masked_sum(uniform, mask)


def _mean_gain(gain: float, key, shape, dtype=jnp.float32) -> Array:
  """Returns initial gains: `gain` for means, zero for log scales."""
  del key
  return jnp.where(jnp.arange(shape[0]) < shape[0] // 2, gain, 0).astype(dtype)
