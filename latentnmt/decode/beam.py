"""Beam search, one compiled program per shape."""

import dataclasses
import functools
import re
from typing import Any, ClassVar

from flax import linen as nn
from flax import struct
import jax
from jax import lax
import jax.numpy as jnp

from latentnmt.decode.protocol import NUMBER
from latentnmt.errors import InputError
from latentnmt.inference import variables
from latentnmt.masks import lengths, take_rows, token_mask
from latentnmt.types import (
  EOS,
  PAD,
  Array,
  Hypotheses,
  Mask,
  Params,
  Tokens,
)

# How many more tokens than its own source a translation may have, whatever
# the batch: the bound of the length predictor.
EXTRA_LENGTH = 30
_NEVER = -1e9
# Numbers of which the largest is found before those to select from.
_PART = 128


@dataclasses.dataclass(frozen=True)
class Beam:
  """Beam search for autoregressive models.

  A sentence is done once `size` hypotheses have ended in EOS. Scores:
  log p(y|x) / ((5 + length) / 6)^length_penalty (Wu et al. 2016), the length
  counted with EOS. No hypothesis is longer than its source by more than 30.
  """

  examples: ClassVar = ("beam4", "beam4-p1")
  _name: ClassVar = re.compile(rf"beam(\d+)(?:-p{NUMBER})?")

  size: int = 4
  length_penalty: float = 0.6

  def __post_init__(self):
    if self.size < 1:
      raise InputError(f"beam size {self.size} is less than 1.")

  def __str__(self):
    name = f"beam{self.size}"
    penalty = self.length_penalty
    return name if penalty == 0.6 else f"{name}-p{penalty:g}"

  @classmethod
  def parse(cls, name: str) -> "Beam | None":
    """Reads `str(beam)` back, None for a name of another method."""
    if not (match := cls._name.fullmatch(name)):
      return None
    size, penalty = match.groups()
    return cls(int(size), *([float(penalty)] if penalty else []))

  def decode(self, model, params, x, score, keys) -> Hypotheses:
    """Translates int32[B, S]; see `Method.decode`."""
    del score, keys
    return beam_search(model, self, params, x)


@struct.dataclass
class _Beams:
  """State of the search after `t` steps.

  Attributes:
    t: int32 scalar.
    alive: int32[B, N, T], hypotheses still growing.
    log_prob: float32[B, N], of the alive.
    slots: int32[B, N, T], which cache slot holds each step of an alive one.
    ended: int32[B, N, T], hypotheses with EOS.
    score: float32[B, N], of the ended.
    caches: of the decoder.
  """

  t: Array
  alive: Array
  log_prob: Array
  slots: Array
  ended: Array
  score: Array
  caches: Any


@functools.partial(jax.jit, static_argnums=(0, 1))
def beam_search(
  model: nn.Module, method: Beam, params: Params, x: Tokens
) -> Hypotheses:
  """Finds N hypotheses for each row of int32[B, S]; see `Beam`.

  Args:
    model: with the methods `start` and `step` of `AutoregressiveTransformer`.
    method: size and length penalty.
    params: of the model.
    x: int32[B, S].
  """
  size, t_max = method.size, x.shape[1] + EXTRA_LENGTH
  bind = functools.partial(model.bind, variables(params))
  # Keys and values of the source are computed here, once. In a step the N
  # hypotheses of a sentence stand where positions would, [B, N, D], so that one
  # copy of them serves all.
  context, caches = bind().start(x, t_max, size)
  # A limit of each sentence's own, so that its batch does not matter.
  length = lengths(token_mask(x))
  real, limit = length > 0, length + EXTRA_LENGTH

  def more(beams: _Beams):
    return jnp.any(real & ~_done(beams.score) & (beams.t < limit))

  def grow(beams: _Beams) -> _Beams:
    history = _history(beams.slots, beams.t)
    # There is no begin-of-sentence token: a decoder starts from padding.
    previous = jnp.where(
      beams.t > 0, beams.alive[:, :, jnp.maximum(beams.t - 1, 0)], PAD
    )
    # Bound anew, as JAX traces the loop anew: parameters are its constants.
    logits, caches = bind().step(
      previous, beams.t, beams.caches, history, context
    )
    last = beams.t >= limit - 1
    return _select(beams.replace(caches=caches), logits, last, method)

  beams = lax.while_loop(more, grow, _first(x.shape[0], size, t_max, caches))
  # A beam that found fewer than N endings says so by scores of -inf.
  tokens = jnp.where(real[:, None, None], beams.ended, PAD)
  scores = jnp.where(beams.score > _NEVER, beams.score, -jnp.inf)
  return Hypotheses(tokens, jnp.where(real[:, None], scores, 0.0))


def _first(batch: int, size: int, t_max: int, caches) -> _Beams:
  empty = jnp.zeros((batch, size, t_max), jnp.int32)
  # All hypotheses start alike, so only the first may have successors.
  log_prob = jnp.where(jnp.arange(size) == 0, 0.0, _NEVER)
  return _Beams(
    t=jnp.int32(0),
    alive=empty,
    log_prob=jnp.broadcast_to(log_prob, (batch, size)),
    slots=empty,
    ended=empty,
    score=jnp.full((batch, size), _NEVER),
    caches=caches,
  )


def _done(score: Array) -> Array:
  """Returns bool[B]: as many hypotheses have ended as the beam is wide."""
  return jnp.all(score > _NEVER, axis=1)


def _history(slots: Array, t: Array) -> Mask:
  """Returns the cache slots that make up each hypothesis, bool[B, N, T, N]."""
  size, t_max = slots.shape[1:]
  steps = jnp.arange(t_max)
  own = jnp.arange(size)[None, :, None]
  # What a hypothesis reads at step t is what it is about to write there.
  slots = jnp.where(steps[None, None, :] == t, own, slots)
  taken = slots[..., None] == jnp.arange(size)[None, None, None, :]
  return taken & (steps <= t)[None, None, :, None]


def _select(beams: _Beams, logits: Array, last: Array, method: Beam) -> _Beams:
  """Chooses what grows and what ends, from float32[B, N, V]."""
  size = method.size
  t = beams.t
  # Of 2 N successors at least N do not end in EOS.
  best, parent, token = _successors(beams.log_prob, logits, last, 2 * size)
  grown = take_rows(beams.alive, parent).at[:, :, t].set(token)
  slots = take_rows(beams.slots, parent).at[:, :, t].set(parent)
  ends = token == EOS

  # Only an EOS among the N best counts: with N = 1 this is greedy search. A
  # sentence that is done waits for the others unchanged.
  counts = ends & (jnp.arange(2 * size) < size)[None] & (best > _NEVER)
  counts &= ~_done(beams.score)[:, None]
  penalty = ((6.0 + t) / 6.0) ** method.length_penalty  # length is t + 1
  score = jnp.where(counts, best / penalty, _NEVER)
  all_scores = jnp.concatenate([beams.score, score], axis=1)
  score, kept = lax.top_k(all_scores, size)
  ended = take_rows(jnp.concatenate([beams.ended, grown], axis=1), kept)

  # Ended ones are put below all others, even below impossible ones.
  log_prob, kept = lax.top_k(jnp.where(ends, 2 * _NEVER, best), size)
  return beams.replace(
    t=t + 1,
    alive=take_rows(grown, kept),
    log_prob=log_prob,
    slots=take_rows(slots, kept),
    ended=ended,
    score=score,
  )


def _successors(
  log_prob: Array, logits: Array, last: Array, count: int
) -> tuple[Array, Array, Array]:
  """Returns the likeliest successors of N hypotheses.

  PAD is never chosen. Where `last` is true, only EOS may follow.

  Args:
    log_prob: float32[B, N].
    logits: float32[B, N, V].
    last: bool[B].
    count: how many.

  Returns:
    log-probability float32[B, count], best first; hypothesis and token int32.
  """
  # First within each hypothesis: many short selections beat one long one.
  allowed = logits.at[..., PAD].set(2 * _NEVER)
  values, tokens = top(allowed, min(count, logits.shape[-1]))
  first = (jnp.arange(values.shape[-1]) == 0)[None, None]
  last = last[:, None, None]
  only_eos = jnp.where(first, logits[..., EOS, None], 2 * _NEVER)
  values = jnp.where(last, only_eos, values)
  tokens = jnp.where(last & first, EOS, tokens)
  # The normaliser is the same for all tokens of a hypothesis: it is taken off
  # the few that were selected rather than off all V.
  values += (log_prob - nn.logsumexp(logits, axis=-1))[..., None]
  parents = jnp.broadcast_to(
    jnp.arange(logits.shape[1])[None, :, None], tokens.shape
  )
  flat = (v.reshape(len(v), -1) for v in (values, parents, tokens))
  values, parents, tokens = flat
  best, index = lax.top_k(values, count)
  parents, tokens = (
    jnp.take_along_axis(v, index, axis=1) for v in (parents, tokens)
  )
  return best, parents, tokens


def top(values: Array, count: int) -> tuple[Array, Array]:
  """Computes `lax.top_k` of float32[B, N, V] by way of parts' largest.

  Selection from V numbers takes a CPU longer than to look at them all: the
  `count` largest are in the `count` parts with the largest maxima.
  """
  *rows, size = values.shape
  parts = -(-size // _PART)
  if parts <= count:
    return lax.top_k(values, count)
  padding = [(0, 0)] * len(rows) + [(0, parts * _PART - size)]
  values = jnp.pad(values, padding, constant_values=-jnp.inf)
  values = values.reshape(*rows, parts, _PART)
  _, chosen = lax.top_k(jnp.max(values, axis=-1), count)
  chosen = jnp.sort(chosen)  # of equal numbers the first
  found = jnp.take_along_axis(values, chosen[..., None], axis=-2)
  best, index = lax.top_k(found.reshape(*rows, -1), count)
  part = jnp.take_along_axis(chosen, index // _PART, axis=-1)
  return best, part * _PART + index % _PART
