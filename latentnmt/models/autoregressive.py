"""An autoregressive Transformer: log p(y|x) token by token, exactly."""

from typing import ClassVar

from flax import linen as nn
import jax
import jax.numpy as jnp

from latentnmt import config as cfg
from latentnmt.decode import Beam, Greedy, Sample
from latentnmt.embedding import Embedding
from latentnmt.masks import lengths, masked_sum, shift_right, token_mask
from latentnmt.models.encoder import Encoder
from latentnmt.models.protocol import check_dropout
from latentnmt.transformer import (
  DecoderStack,
  SearchContext,
  SelfAttentionCache,
  add_positions,
  sinusoids,
)
from latentnmt.types import Array, Batch, Key, Mask, Source, Terms, Tokens


class AutoregressiveTransformer(nn.Module):
  """The log p(y|x) = sum over t of log p(y_t | y_<t, x), exactly."""

  exact: ClassVar = True
  methods: ClassVar = Greedy, Beam, Sample

  config: cfg.AutoregressiveConfig

  def setup(self):
    c = self.config
    self.embedding = Embedding(c.transformer)
    self.encoder = Encoder(c.transformer, c.encoder_layers)
    self.decoder = DecoderStack(c.transformer, c.decoder_layers, causal=True)

  def __call__(self, batch: Batch, key: Key, train: bool = False) -> Terms:
    """Returns the terms of a teacher-forced pass; `key` is not used.

    Raises:
      ValueError: for a "dropout" rng without `train`.
    """
    check_dropout(self, train)
    source = self.encode(batch.x)
    mask = token_mask(batch.y)
    x = add_positions(self.embedding(shift_right(batch.y)))
    states = self.decoder(x, mask, self.decoder.precompute(source))
    log_py, uniform = self.embedding.log_probs(states, batch.y)
    # EOS pays for the length.
    return Terms.without_latents(
      masked_sum(log_py, mask),
      masked_sum(uniform, mask),
      lengths(mask).astype(jnp.float32),
    )

  def encode(self, x: Tokens) -> Source:
    """Encodes int32[B, S]."""
    return self.encoder(self.embedding, x)

  def start(
    self, x: Tokens, length: int, hypotheses: int
  ) -> tuple[SearchContext, tuple[SelfAttentionCache, ...]]:
    """Returns what steps share, and empty caches for `length` steps."""
    source = self.decoder.precompute(self.encode(x))
    return self.decoder.start(source, length, hypotheses)

  def step(
    self,
    tokens: Tokens,
    t: Array,
    caches: tuple[SelfAttentionCache, ...],
    history: Mask,
    context: SearchContext,
  ) -> tuple[Array, tuple[SelfAttentionCache, ...]]:
    """Returns logits after one more token of each of N hypotheses.

    Args:
      tokens: int32[B, N], the token before position t (PAD at t = 0).
      t: int32 scalar.
      caches: of the positions before.
      history: bool[B, N, T, N], see `DecoderStack.step`.
      context: as `start` gives it.

    Returns:
      float32[B, N, V] and the caches with position t in them.
    """
    # One position at a time needs that position's signal alone.
    x = self.embedding(tokens)
    signal = sinusoids(history.shape[2], x.shape[-1]).astype(x.dtype)
    x += jax.lax.dynamic_index_in_dim(signal, t)[None]
    states, caches = self.decoder.step(x, t, caches, history, context)
    return self.embedding.logits(states), caches
