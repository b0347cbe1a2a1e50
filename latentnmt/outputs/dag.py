"""A directed acyclic graph: a walk over vertices that emit words."""

from typing import ClassVar

from flax import linen as nn
import jax
import jax.numpy as jnp

from latentnmt.embedding import Embedding
from latentnmt.keys import fold_in_all, row_keys
from latentnmt.masks import lengths, token_mask
from latentnmt.outputs import lattice, words
from latentnmt.outputs.protocol import Likelihood
from latentnmt.outputs.strings import (
  NEVER,
  num_positions,
  stretched,
  strings,
  with_escape,
)
from latentnmt.transformer import sinusoids
from latentnmt.types import EOS, Array, Key, Mask, Nats, Tokens

# Folded into keys of words' random numbers, which have part numbers there.
_LINKS = 1 << 30
# A Viterbi path has at most this many words for each source token, and that
# many more.
_MOST_WORDS = 2, 8


class Dag(nn.Module):
  """p(y|x) = the sum over walks that emit y.

  The DA-Transformer of Huang et al. (2022), but for what its ends emit.

  A walk goes from the first vertex, which emits nothing, from vertex to later
  vertex to the last one, which emits EOS. Each vertex between emits a word,
  which is neither PAD nor EOS. Every walk ends, and so all strings sum to one.

  A vertex's links are a mixture of heads, each a softmax over later vertices of
  products of queries and keys, from states and positions.

  Attributes:
    scale: vertices for each source token, EOS counted.
    extra: vertices on top.
    heads: of the links; they must divide D.
    escape: weight of the escape, see `with_escape`.
  """

  given_length: ClassVar = False

  scale: float = 4.0
  extra: int = 0
  heads: int = 4
  escape: float = 1e-4

  def positions(self, source_lengths: Array) -> Array:
    """Returns the vertices of each sentence, int32[B]."""
    return num_positions(source_lengths, self.scale, self.extra, least=3)

  def max_positions(self, source_size: int) -> int:
    """Returns the most vertices of sources of up to `source_size` tokens."""
    return max(stretched(source_size, self.scale, self.extra), 3)

  @nn.compact
  def links(self, states: Array, mask: Mask) -> Array:
    """Returns log-probabilities of successors, float32[B, U, U].

    Rows sum to one but for those of the last vertex and of padding, which are
    `NEVER`, as is what is no later vertex.
    """
    states = states.astype(jnp.float32)
    signal = jnp.broadcast_to(sinusoids(*states.shape[1:])[None], states.shape)
    features = jnp.concatenate([states, signal], axis=-1)
    shape = self.heads, states.shape[-1] // self.heads
    init = nn.initializers.xavier_uniform()
    query = nn.DenseGeneral(shape, kernel_init=init, name="query")(features)
    key = nn.DenseGeneral(shape, kernel_init=init, name="key")(features)
    gate = nn.Dense(self.heads, kernel_init=init, name="gate")(features)
    vertex = jnp.arange(mask.shape[1])
    later = vertex[None, None, :] > vertex[None, :, None]
    return _links(query, key, nn.log_softmax(gate), later & mask[:, None])

  def log_prob(
    self, embedding: Embedding, states: Array, y: Tokens, mask: Mask
  ) -> Likelihood:
    """Returns log p(y|x), see `Output.log_prob`."""
    links, real = self.links(states, mask), token_mask(y)
    emissions = _emissions(embedding, states, y, mask)
    log_prob = lattice.log_marginal(emissions, links, real)
    size = embedding.config.vocab_size
    return with_escape(log_prob, y, mask, size, self.escape)

  def alignment(
    self, embedding: Embedding, states: Array, y: Tokens, mask: Mask
  ) -> tuple[Array, Nats]:
    """Returns the likeliest walk that emits y, see `Output.alignment`."""
    links, steps = self.links(states, mask), lengths(token_mask(y))
    emissions = _emissions(embedding, states, y, mask)
    scores = lattice.best_scores(emissions, links)
    index = lattice.trace_back(scores, links, mask, steps)
    score = _at_the_end(scores, steps, mask)
    found = score > NEVER / 2
    index = jnp.where(found[:, None], index, -1)
    return index, jnp.where(found, score, -jnp.inf)

  def likeliest(
    self, embedding: Embedding, states: Array
  ) -> tuple[Tokens, Array]:
    """Returns the likeliest word of each vertex, and log p of it."""
    tokens, logit, normaliser = words.likeliest(*embedding.operands(states))
    return tokens, logit - normaliser

  def best(
    self, embedding: Embedding, states: Array, mask: Mask
  ) -> tuple[Tokens, Nats]:
    """Follows the likeliest link each time, see `Output.best`."""
    return self.lookahead(embedding, states, mask, 0.0)

  def lookahead(
    self, embedding: Embedding, states: Array, mask: Mask, weight: float = 1.0
  ) -> tuple[Tokens, Nats]:
    """Follows the likeliest link and word each time, see `Output.best`.

    Args:
      embedding: of the model.
      states: float[B, U, D].
      mask: bool[B, U].
      weight: of the word's log-probability, added to the link's.
    """
    links = self.links(states, mask)
    tokens, log_prob = self._inner_words(embedding, states, mask)
    successor = jnp.argmax(links + weight * log_prob[:, None], axis=2)
    return _string(tokens, log_prob, links, successor, mask)

  def sample(
    self,
    key: Key,
    embedding: Embedding,
    states: Array,
    mask: Mask,
    temperature: float = 1.0,
  ) -> tuple[Tokens, Nats]:
    """Draws strings, see `Output.sample`."""
    keys, operands = row_keys(key, len(states)), embedding.operands(states)
    links = self.links(states, mask) / temperature
    links = jnp.where(links > NEVER / 2, nn.log_softmax(links), NEVER)
    # No walk is twice in a vertex, so each may choose beforehand.
    keys_links = fold_in_all(keys, _LINKS)
    number = words.uniform_each(keys_links, states.shape[1], 1)[..., 0]
    successor = words.choose(number, links)
    tokens, logit, normaliser = words.draw(keys, *operands, temperature)
    log_prob = jnp.where(_inner(mask), logit - normaliser, 0)
    return _string(tokens, log_prob, links, successor, mask)

  def viterbi(
    self,
    embedding: Embedding,
    states: Array,
    mask: Mask,
    length_penalty: float = 1.0,
  ) -> tuple[Tokens, Nats]:
    """Finds the best walk of each length, and the best of these.

    Best is the log-probability over length^`length_penalty`, EOS counted
    (joint Viterbi, Shao et al. 2022). No walk has more than twice as many words
    as the source and 8 more.
    """
    links = self.links(states, mask)
    tokens, log_prob = self._inner_words(embedding, states, mask)
    size = mask.shape[1]
    most = min(self._most_words(size) + 1, size)  # with EOS
    shape = len(mask), most, size
    emissions = jnp.broadcast_to(log_prob[:, None], shape)
    scores = lattice.best_scores(emissions, links)
    limit = self._most_words(lengths(mask)) + 1
    steps, score = _best_length(scores, mask, limit, length_penalty)
    visited = lattice.trace_back(scores, links, mask, steps) >= 0
    found = strings(tokens, visited & _inner(mask), mask)
    return found, jnp.where(jnp.any(mask, axis=1), score, 0)

  def _most_words(self, vertices):
    """Returns how many words a Viterbi path may have, an int or int32[B]."""
    factor, more = _MOST_WORDS
    return stretched(vertices, factor / self.scale, more)

  def _inner_words(self, embedding, states, mask) -> tuple[Tokens, Array]:
    """Returns the likeliest word of inner vertices; log p is 0 elsewhere."""
    tokens, log_prob = self.likeliest(embedding, states)
    return tokens, jnp.where(_inner(mask), log_prob, 0)


@jax.checkpoint
def _links(query: Array, key: Array, gate: Array, allowed: Mask) -> Array:
  """Mixes H softmaxes; computed a second time for the gradient.

  Args:
    query: float32[B, U, H, D/H].
    key: float32[B, U, H, D/H].
    gate: float32[B, U, H], log of the heads' shares.
    allowed: bool[B, U, U].
  """
  query = query * query.shape[-1] ** -0.5
  logits = jnp.einsum("bihd,bjhd->bhij", query, key)
  heads = nn.log_softmax(jnp.where(allowed[:, None], logits, NEVER))
  gate = gate.transpose(0, 2, 1)[..., None]
  mixed = nn.logsumexp(gate + heads, axis=1)
  return jnp.where(allowed, mixed, NEVER)


def _emissions(embedding, states, y, mask) -> Array:
  """Returns emissions of y as `lattice` takes them, float32[B, T, U]."""
  states, table = embedding.operands(states)
  normaliser = words.log_normaliser(states, table)
  own = words.own_logits(states, table, y) - normaliser[:, None]
  emissions = jnp.where((y == EOS)[..., None], 0, own)
  return jnp.where(lattice.reach(y, mask), emissions, NEVER)


def _best_length(
  scores: Array, mask: Mask, limit: Array, length_penalty: float
) -> tuple[Array, Nats]:
  """Returns after how many steps the best walk ends, int32[B], and its score.

  Args:
    scores: float32[T + 1, B, U], of the best walks to each vertex.
    mask: bool[B, U].
    limit: int32[B], the most steps.
    length_penalty: exponent of the steps, which divides scores.
  """
  steps = jnp.broadcast_to(jnp.arange(len(scores))[:, None], scores.shape[:2])
  at_the_end = jax.vmap(_at_the_end, (None, 0, None))
  score = at_the_end(scores, steps, mask)  # [T + 1, B]
  allowed = (steps > 0) & (steps <= limit[None])
  ranked = score / jnp.maximum(steps, 1) ** length_penalty
  best = jnp.argmax(jnp.where(allowed, ranked, -jnp.inf), axis=0)
  return best, jnp.take_along_axis(score, best[None], axis=0)[0]


def _at_the_end(scores: Array, steps: Array, mask: Mask) -> Nats:
  """Returns scores float32[T + 1, B, U] in the last vertex after int32[B]."""
  rows = jnp.arange(len(steps))
  return scores[steps, rows, jnp.maximum(lengths(mask) - 1, 0)]


def _inner(mask: Mask) -> Mask:
  """Returns the vertices that emit words: all but the first and the last."""
  vertex = jnp.arange(mask.shape[1])[None]
  return (vertex > 0) & (vertex < lengths(mask)[:, None] - 1)


def _string(tokens, log_prob, links, successor, mask) -> tuple[Tokens, Nats]:
  """Returns the string of a walk, and the log-probability of the walk.

  Args:
    tokens: int32[B, U], emitted by each vertex.
    log_prob: float32[B, U], of these; 0 but for inner vertices.
    links: float32[B, U, U].
    successor: int32[B, U], of each vertex.
    mask: bool[B, U].
  """
  visited = lattice.walk(successor, mask)
  chosen = jnp.take_along_axis(links, successor[..., None], axis=2)[..., 0]
  last = jnp.arange(mask.shape[1])[None] == lengths(mask)[:, None] - 1
  total = jnp.where(visited & ~last, chosen + log_prob, 0)
  return strings(tokens, visited & _inner(mask), mask), jnp.sum(total, axis=1)
