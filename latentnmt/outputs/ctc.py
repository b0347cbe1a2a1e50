"""Connectionist temporal classification: a word or a blank in each slot."""

from typing import ClassVar

from flax import linen as nn
import jax
import jax.numpy as jnp

from latentnmt.embedding import Embedding
from latentnmt.keys import fold_in_all, row_keys
from latentnmt.masks import masked_sum, shift_right
from latentnmt.outputs import ctc_paths, words
from latentnmt.outputs.ctc_paths import Emissions
from latentnmt.outputs.prefix_beam import prefix_beam
from latentnmt.outputs.protocol import Likelihood
from latentnmt.outputs.strings import (
  num_positions,
  stretched,
  strings,
  with_escape,
)
from latentnmt.types import PAD, Array, Key, Mask, Nats, Tokens

# Folded into keys of words' random numbers, which have part numbers there.
_BLANKS = 1 << 30


class Ctc(nn.Module):
  """p(y|x) = the sum over paths that collapse to y (Graves et al. 2006).

  Each slot emits a word or a blank, independently of the others. A path
  collapses to a string by merging equal neighbours, then dropping blanks. The
  length is in the blanks: EOS is never emitted. The blank is the table's row of
  PAD, which nothing else uses.

  Attributes:
    scale: slots for each source token, EOS counted.
    extra: slots on top.
    merge: whether equal neighbours are one word. If not, the model is a graph
      (`Dag`) whose links are products of blanks.
    escape: weight of the escape, see `with_escape`.
  """

  given_length: ClassVar = False

  scale: float = 2.0
  extra: int = 8
  merge: bool = True
  escape: float = 1e-4

  def positions(self, source_lengths: Array) -> Array:
    """Returns the slots of each sentence, int32[B]."""
    return num_positions(source_lengths, self.scale, self.extra, least=1)

  def max_positions(self, source_size: int) -> int:
    """Returns the most slots of sources of up to `source_size` tokens."""
    return max(stretched(source_size, self.scale, self.extra), 1)

  def log_prob(
    self, embedding: Embedding, states: Array, y: Tokens, mask: Mask
  ) -> Likelihood:
    """Returns log p(y|x), see `Output.log_prob`."""
    emissions = self._emissions(embedding, states, y)
    log_prob = ctc_paths.log_marginal(emissions, y, mask, self.merge)
    size = embedding.config.vocab_size
    return with_escape(log_prob, y, mask, size, self.escape)

  def alignment(
    self, embedding: Embedding, states: Array, y: Tokens, mask: Mask
  ) -> tuple[Array, Nats]:
    """Returns the likeliest path that makes y, see `Output.alignment`."""
    emissions = self._emissions(embedding, states, y)
    return ctc_paths.alignment(emissions, y, mask, self.merge)

  def likeliest(
    self, embedding: Embedding, states: Array, blank_penalty: float = 0.0
  ) -> tuple[Tokens, Array]:
    """Returns the likeliest word or blank of each slot, and log p of it.

    The penalty is taken off the blank's log-probability in the comparison
    alone: it makes for longer strings.
    """
    states, table = embedding.operands(states)
    blank = words.blank_logits(states, table)
    tokens, logit, normaliser = words.likeliest(states, table)
    is_word = logit >= blank - blank_penalty
    chosen = jnp.where(is_word, logit, blank)
    tokens = jnp.where(is_word, tokens, PAD)
    return tokens, chosen - jnp.logaddexp(normaliser, blank)

  def best(
    self,
    embedding: Embedding,
    states: Array,
    mask: Mask,
    blank_penalty: float = 0.0,
  ) -> tuple[Tokens, Nats]:
    """Returns the string of the likeliest path, see `Output.best`."""
    tokens, log_prob = self.likeliest(embedding, states, blank_penalty)
    return self._collapse(tokens, mask), masked_sum(log_prob, mask)

  def sample(
    self,
    key: Key,
    embedding: Embedding,
    states: Array,
    mask: Mask,
    temperature: float = 1.0,
  ) -> tuple[Tokens, Nats]:
    """Draws strings, see `Output.sample`."""
    keys = row_keys(key, len(states))
    states, table = embedding.operands(states)
    blank = words.blank_logits(states, table) / temperature
    tokens, logit, normaliser = words.draw(keys, states, table, temperature)
    keys = fold_in_all(keys, _BLANKS)
    number = words.uniform_each(keys, states.shape[1], 1)[..., 0]
    is_word = number < jax.nn.sigmoid(normaliser - blank)
    tokens = jnp.where(is_word, tokens, PAD)
    log_prob = jnp.where(is_word, logit, blank)
    log_prob -= jnp.logaddexp(normaliser, blank)
    return self._collapse(tokens, mask), masked_sum(log_prob, mask)

  def prefix_beam(
    self,
    embedding: Embedding,
    states: Array,
    mask: Mask,
    size: int,
    candidates: int = 8,
    length_penalty: float = 0.0,
  ) -> tuple[Tokens, Array]:
    """Finds likely strings, where `best` finds a path; see `prefix_beam`.

    Returns:
      int32[B, N, U + 1], best first, and float32[B, N].
    """
    operands = embedding.operands(states)
    return prefix_beam(
      *operands, mask, self.merge, size, candidates, length_penalty
    )

  def _emissions(self, embedding, states, y) -> Emissions:
    states, table = embedding.operands(states)
    blank = words.blank_logits(states, table)
    normaliser = words.log_normaliser(states, table)
    normaliser = jnp.logaddexp(normaliser, blank)
    own = words.own_logits(states, table, y[:, :-1])
    return Emissions(own - normaliser[:, None], blank - normaliser)

  def _collapse(self, tokens: Tokens, mask: Mask) -> Tokens:
    tokens = jnp.where(mask, tokens, PAD)
    keep = tokens != PAD
    if self.merge:
      keep &= tokens != shift_right(tokens)
    return strings(tokens, keep, mask)
