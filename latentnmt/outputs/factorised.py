"""One word at each of T positions, each independent of the others."""

from typing import ClassVar

from flax import linen as nn
import jax.numpy as jnp

from latentnmt.embedding import Embedding
from latentnmt.keys import row_keys
from latentnmt.masks import lengths, masked_sum, token_mask
from latentnmt.outputs import words
from latentnmt.outputs.protocol import Likelihood
from latentnmt.outputs.strings import strings
from latentnmt.types import Array, Key, Mask, Nats, Tokens


class Factorised(nn.Module):
  """p(y|T) = the product over t < T of p(y_t), of a given length T.

  The last position ends the string, with probability one, and no other does:
  so all strings of T tokens sum to one. Times p(T|x), which is the model's, all
  strings do. No escape is needed; `mask` must be that of `y`.
  """

  given_length: ClassVar = True
  scale: ClassVar = 1.0
  escape: ClassVar = 0.0

  def log_prob(
    self, embedding: Embedding, states: Array, y: Tokens, mask: Mask
  ) -> Likelihood:
    """Returns log p(y|T), see `Output.log_prob`."""
    states, table = embedding.operands(states)
    own = jnp.einsum(
      "btd,btd->bt", states, table[y], preferred_element_type=jnp.float32
    )
    log_prob = own - words.log_normaliser(states, table)
    log_prob = masked_sum(log_prob, _inner(mask))
    return Likelihood(log_prob, log_prob, jnp.zeros(len(y), bool))

  def best(
    self, embedding: Embedding, states: Array, mask: Mask
  ) -> tuple[Tokens, Nats]:
    """Returns the likeliest string of that length, and its log p."""
    tokens, log_prob = self.likeliest(embedding, states)
    inner = _inner(mask)
    return strings(tokens, inner, mask), masked_sum(log_prob, inner)

  def sample(
    self,
    key: Key,
    embedding: Embedding,
    states: Array,
    mask: Mask,
    temperature: float = 1.0,
  ) -> tuple[Tokens, Nats]:
    """Draws strings of that length, see `Output.sample`."""
    keys, operands = row_keys(key, len(states)), embedding.operands(states)
    tokens, logit, normaliser = words.draw(keys, *operands, temperature)
    inner = _inner(mask)
    return strings(tokens, inner, mask), masked_sum(logit - normaliser, inner)

  def likeliest(
    self, embedding: Embedding, states: Array
  ) -> tuple[Tokens, Array]:
    """Returns the likeliest word of each position, and log p of it."""
    tokens, logit, normaliser = words.likeliest(*embedding.operands(states))
    return tokens, logit - normaliser

  def alignment(
    self, embedding: Embedding, states: Array, y: Tokens, mask: Mask
  ) -> tuple[Array, Nats]:
    """Returns the one path there is, see `Output.alignment`."""
    index = jnp.broadcast_to(jnp.arange(y.shape[1])[None], y.shape)
    log_prob = self.log_prob(embedding, states, y, mask).log_prob
    return jnp.where(token_mask(y), index, -1), log_prob


def _inner(mask: Mask) -> Mask:
  """Returns the positions of words: all but the last."""
  last = lengths(mask)[:, None] - 1
  return jnp.arange(mask.shape[1])[None] < last
