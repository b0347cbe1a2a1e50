"""One-pass models of exact likelihood: source, decoder, output; no latents."""

import math
from typing import ClassVar

from flax import linen as nn
import jax.numpy as jnp

from latentnmt import config as cfg
from latentnmt.bijections import cache_of
from latentnmt.decode import methods_of
from latentnmt.embedding import Embedding
from latentnmt.masks import lengths, token_mask
from latentnmt.models import glancing as glance
from latentnmt.models.encoder import Encoder
from latentnmt.models.length import LengthPredictor
from latentnmt.models.protocol import check_dropout
from latentnmt.models.upsample import Upsample
from latentnmt.outputs import build_output, output_mask
from latentnmt.transformer import DecoderStack, add_positions
from latentnmt.types import Array, Batch, Key, Mask, Nats, Source, Terms, Tokens


class OnePassTransformer(nn.Module):
  """p(y|x) of an output distribution over the states of one decoder pass.

  Where the output is of a given length T, p(T|x) is a length predictor's; else
  the output has the length in its structure.

  Attributes:
    config: sizes.
    output: any module with the `Output` contract; by default the one that
      `config.output` describes.
  """

  exact: ClassVar = True
  glances: ClassVar = True
  smooths: ClassVar = False

  config: cfg.OnePassConfig
  output: nn.Module | None = None

  def __post_init__(self):
    if self.output is None:
      # Set before `super().__post_init__`, which freezes the module.
      object.__setattr__(self, "output", build_output(self.config.output))
    super().__post_init__()

  @property
  def methods(self) -> tuple[type, ...]:
    """Returns the decoding methods that the output has all for."""
    return methods_of(self.output)

  def setup(self):
    c = self.config
    transformer = c.transformer
    self.embedding = Embedding(transformer)
    self.encoder = Encoder(transformer, c.encoder_layers)
    self.upsample = Upsample(transformer, math.ceil(self.output.scale))
    self.decoder = DecoderStack(transformer, c.decoder_layers)
    if self.output.given_length:
      self.length = LengthPredictor(
        transformer.width, c.max_length_difference, 1, c.length_gradient
      )

  def __call__(
    self,
    batch: Batch,
    key: Key,
    train: bool = False,
    glancing: Array | None = None,
  ) -> Terms:
    """Returns the terms of one pass; see `Model`.

    In training `log_py` is without the escape, which would have no gradient
    where it is the likelier. With `glancing`, a share, it is of a second pass.
    """
    check_dropout(self, train)
    source, y = self.precompute(batch.x), batch.y
    mask = self._mask(y, source)
    inputs = self._inputs(mask, source)
    states = self._decode(inputs, mask, source)
    if glancing is not None:
      words = glance.glimpse(
        self.output, self.embedding, states, y, mask, key, glancing
      )
      inputs = glance.show(inputs, words, self.embedding)
      states = self._decode(inputs, mask, source)
    found = self.output.log_prob(self.embedding, states, y, mask)
    log_pl = None
    if self.output.given_length:
      log_pl = self.log_prob_length(mask, source, tails=not train)
    return Terms.without_latents(
      found.unmixed if train else found.log_prob,
      jnp.zeros_like(found.log_prob),
      lengths(token_mask(y)).astype(jnp.float32),
      log_pl,
      found.escaped,
    )

  def precompute(self, x: Tokens) -> Source:
    """Encodes int32[B, S], with the decoder's cross-attention cache."""
    source = self.encoder(self.embedding, x)
    return source.replace(cache=self.decoder.precompute(source))

  def states(self, mask: Mask, source: Source) -> Array:
    """Returns the decoder's states float[B, U, D] at positions bool[B, U]."""
    return self._decode(self._inputs(mask, source), mask, source)

  def best_lengths(self, source: Source, count: int) -> tuple[Array, Nats]:
    """Returns the likeliest lengths int32[B, count], and log p of each.

    Only where the output is of a given length.
    """
    return self.length.best(source, count)

  def sample_lengths(self, keys: Key, source: Source) -> tuple[Array, Nats]:
    """Draws lengths int32[B] from p(T|x), and returns log p of each.

    Only where the output is of a given length.
    """
    return self.length.sample(keys, source)

  def log_prob_length(
    self, mask: Mask, source: Source, tails: bool = True
  ) -> Nats:
    """Returns log p(T|x) of the lengths in `mask`, zero for empty rows.

    Only where the output is of a given length.
    """
    return self.length.log_prob(lengths(mask), source, tails)

  def _mask(self, y: Tokens, source: Source) -> Mask:
    if self.output.given_length:
      return token_mask(y)
    return output_mask(self.output, source)

  def _inputs(self, mask: Mask, source: Source) -> Array:
    count, size = lengths(mask), mask.shape[1]
    return self.upsample(source.states, lengths(source.mask), count, size)

  def _decode(self, inputs: Array, mask: Mask, source: Source) -> Array:
    cache = cache_of(self.decoder, source)
    return self.decoder(add_positions(inputs), mask, cache)
