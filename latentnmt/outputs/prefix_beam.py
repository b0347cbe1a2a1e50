"""Prefix beam search over the strings of a CTC (Hannun et al. 2014)."""

import functools

from flax import struct
import jax
from jax import lax
import jax.numpy as jnp

from latentnmt import matmul
from latentnmt.masks import take_rows
from latentnmt.outputs import words
from latentnmt.outputs.strings import NEVER, end
from latentnmt.types import PAD, Array, Mask, Tokens


@struct.dataclass
class _Prefixes:
  """Prefixes after some slots, and log of the sum over their paths.

  Attributes:
    tokens: int32[B, N, U + 1].
    last: int32[B, N], the last word; PAD for none.
    length: int32[B, N], words.
    blank: float32[B, N], paths whose last slot is a blank.
    word: float32[B, N], paths whose last slot is a word.
  """

  tokens: Array
  last: Array
  length: Array
  blank: Array
  word: Array

  @property
  def total(self) -> Array:
    """float32[B, N], all paths; no more than `NEVER` for no prefix at all."""
    return jnp.logaddexp(self.blank, self.word)


@struct.dataclass
class _Slot:
  """Log-probabilities of what a slot emits.

  Attributes:
    blank: float32[B].
    last: float32[B, N], the last word of each prefix again.
    tokens: int32[B, k], the likeliest words.
    words: float32[B, k], of these.
  """

  blank: Array
  last: Array
  tokens: Array
  words: Array


def prefix_beam(
  states: Array,
  table: Array,
  mask: Mask,
  merge: bool,
  size: int,
  candidates: int,
  length_penalty: float,
) -> tuple[Tokens, Array]:
  """Searches for likely strings, slot by slot, keeping N prefixes.

  Args:
    states: float[B, U, D].
    table: float[V, D].
    mask: bool[B, U], slots.
    merge: whether equal words in neighbouring slots are one word.
    size: N, of the beam.
    candidates: how many of a slot's words may go on a prefix.
    length_penalty: exponent of the length, EOS counted, that divides scores.

  Returns:
    int32[B, N, U + 1], best first, and scores float32[B, N]: the
    log-probability, a sum over the paths that were kept, over the penalty;
    minus infinity for none.
  """
  blank = words.blank_logits(states, table)
  tokens, logits, normaliser = words.top(states, table, candidates)
  normaliser = jnp.logaddexp(normaliser, blank)

  def step(prefixes, now):
    state, normaliser, blank, tokens, logits, real = now
    last = matmul.einsum("bd,bnd->bn", state, table[prefixes.last])
    slot = _Slot(
      blank - normaliser,
      jnp.where(prefixes.length > 0, last - normaliser[:, None], NEVER),
      tokens,
      logits - normaliser[:, None],
    )
    new = _grow(prefixes, slot, merge)
    return jax.tree.map(functools.partial(_where, real), new, prefixes), None

  slots = states, normaliser, blank, tokens, logits, mask
  slots = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), slots)
  prefixes, _ = lax.scan(step, _empty(*mask.shape, size), slots)
  return _ranked(prefixes, jnp.any(mask, axis=1), length_penalty)


def _empty(batch: int, slots: int, size: int) -> _Prefixes:
  never = jnp.full((batch, size), NEVER)
  zero = jnp.zeros((batch, size), jnp.int32)
  tokens = jnp.zeros((batch, size, slots + 1), jnp.int32)
  return _Prefixes(tokens, zero, zero, never.at[:, 0].set(0), never)


def _where(real: Array, new: Array, old: Array) -> Array:
  return jnp.where(real[(..., *(None,) * (new.ndim - 1))], new, old)


def _grow(prefixes: _Prefixes, slot: _Slot, merge: bool) -> _Prefixes:
  """Takes one slot more, and keeps the N likeliest prefixes."""
  size = prefixes.last.shape[1]
  child = _children(prefixes)
  blank, word = _stay(prefixes, slot, child, merge)
  grown = _extend(prefixes, slot, child, merge)  # [B, N, k]
  scores = [jnp.logaddexp(blank, word), grown.reshape(len(grown), -1)]
  best, chosen = lax.top_k(jnp.concatenate(scores, axis=1), size)
  stays = chosen < size
  parent, index = jnp.divmod(chosen - size, grown.shape[2])
  take = functools.partial(jnp.take_along_axis, axis=1)
  prefixes = _go_on(
    prefixes, jnp.where(stays, chosen, parent),
    jnp.where(stays, PAD, take(slot.tokens, index)),
  )  # fmt: skip
  same = chosen % size
  return prefixes.replace(
    blank=jnp.where(stays, take(blank, same), NEVER),
    word=jnp.where(stays, take(word, same), best),
  )


def _go_on(prefixes: _Prefixes, parent: Array, word: Array) -> _Prefixes:
  """Takes prefixes int32[B, N], each with a word int32[B, N] or PAD more."""
  last, length = (
    jnp.take_along_axis(x, parent, axis=1)
    for x in (prefixes.last, prefixes.length)
  )
  tokens = take_rows(prefixes.tokens, parent)
  here = jnp.arange(tokens.shape[2])[None, None] == length[..., None]
  return prefixes.replace(
    tokens=jnp.where(here, word[..., None], tokens),
    last=jnp.where(word == PAD, last, word),
    length=length + (word != PAD),
  )


def _children(prefixes: _Prefixes) -> Mask:
  """Returns bool[B, i, j]: whether prefix j is prefix i and a word more."""
  size = prefixes.tokens.shape[2]
  is_last = jnp.arange(size)[None, None] == prefixes.length[..., None] - 1
  parents = jnp.where(is_last, PAD, prefixes.tokens)
  same = jnp.all(prefixes.tokens[:, :, None] == parents[:, None], axis=-1)
  length = prefixes.length
  longer = length[:, None] == length[:, :, None] + 1
  alive = _alive(prefixes)
  return same & longer & alive[:, None] & alive[:, :, None]


def _alive(prefixes: _Prefixes) -> Mask:
  """Returns bool[B, N]: there may be fewer prefixes than the beam is wide."""
  return prefixes.total > NEVER / 2


def _stay(
  prefixes: _Prefixes, slot: _Slot, child: Mask, merge: bool
) -> tuple[Array, Array]:
  """Returns `blank` and `word` of paths that make the same prefixes."""
  entering = _leaving(prefixes, prefixes.last, merge)
  entering = jnp.max(jnp.where(child, entering, NEVER), axis=1)
  if merge:
    entering = jnp.logaddexp(entering, prefixes.word)
  return prefixes.total + slot.blank[:, None], entering + slot.last


def _extend(
  prefixes: _Prefixes, slot: _Slot, child: Mask, merge: bool
) -> Array:
  """Returns float32[B, N, k]: of prefixes and a word more, if they are new."""
  scores = _leaving(prefixes, slot.tokens, merge) + slot.words[:, None]
  same = prefixes.last[:, None, :, None] == slot.tokens[:, None, None]
  return jnp.where(jnp.any(child[..., None] & same, axis=2), NEVER, scores)


def _leaving(prefixes: _Prefixes, tokens: Array, merge: bool) -> Array:
  """Returns float32[B, N, M]: paths that one of M words makes longer.

  Of those that end in the same word, merged, only the ones with a blank.
  """
  total = jnp.broadcast_to(
    prefixes.total[..., None], (*prefixes.last.shape, tokens.shape[1])
  )
  if not merge:
    return total
  again = prefixes.last[..., None] == tokens[:, None]
  return jnp.where(again, prefixes.blank[..., None], total)


def _ranked(
  prefixes: _Prefixes, real: Array, length_penalty: float
) -> tuple[Tokens, Array]:
  """Returns strings and scores, best first."""
  length = (prefixes.length + 1).astype(jnp.float32)
  alive = _alive(prefixes)
  score = prefixes.total / length**length_penalty
  score, order = lax.top_k(jnp.where(alive, score, -jnp.inf), alive.shape[1])
  kept = alive & real[:, None]
  tokens = end(jnp.where(kept[..., None], prefixes.tokens, PAD), kept)
  return take_rows(tokens, order), jnp.where(real[:, None], score, 0)
