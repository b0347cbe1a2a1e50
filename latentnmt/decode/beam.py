"""Beam search for autoregressive models, one compiled program per shape."""

import functools
from typing import Any

from flax import linen as nn
from flax import struct
import jax
from jax import lax
import jax.numpy as jnp

from latentnmt.decode.methods import Beam
from latentnmt.masks import lengths, take_rows, token_mask
from latentnmt.models import AutoregressiveTransformer
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
_EXTRA_LENGTH = 30
_NEVER = -1e9


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
    cache: of the decoder.
  """

  t: Array
  alive: Array
  log_prob: Array
  slots: Array
  ended: Array
  score: Array
  cache: Any


@functools.partial(jax.jit, static_argnums=(0, 1))
def beam_search(
  model: AutoregressiveTransformer, method: Beam, params: Params, x: Tokens
) -> Hypotheses:
  """N hypotheses for each row of int32[B, S]; see `Beam`."""
  size, t_max = method.size, x.shape[1] + _EXTRA_LENGTH
  apply = functools.partial(model.apply, {"params": params})
  memory, cache = apply(x, t_max, size, method="start")
  length = lengths(token_mask(x))
  real, limit = length > 0, length + _EXTRA_LENGTH

  def more(beams: _Beams):
    return jnp.any(real & ~_done(beams.score) & (beams.t < limit))

  def grow(beams: _Beams) -> _Beams:
    history = _history(beams.slots, beams.t)
    previous = jnp.where(
      beams.t > 0, beams.alive[:, :, jnp.maximum(beams.t - 1, 0)], PAD
    )
    logits, cache = apply(
      previous, beams.t, beams.cache, history, memory, method="step"
    )
    log_probs = _next_log_probs(logits, last=beams.t >= limit - 1)
    return _select(beams.replace(cache=cache), log_probs, method)

  beams = lax.while_loop(more, grow, _first(x.shape[0], size, t_max, cache))
  tokens = jnp.where(real[:, None, None], beams.ended, PAD)
  scores = jnp.where(beams.score > _NEVER, beams.score, -jnp.inf)
  return Hypotheses(tokens, jnp.where(real[:, None], scores, 0.0))


def _first(batch: int, size: int, t_max: int, cache) -> _Beams:
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
    cache=cache,
  )


def _done(score: Array) -> Array:
  """bool[B]: as many hypotheses have ended as the beam is wide."""
  return jnp.all(score > _NEVER, axis=1)


def _history(slots: Array, t: Array) -> Mask:
  """bool[B, N, T, N]: cache slots of each hypothesis, its own at step t."""
  size, t_max = slots.shape[1:]
  steps = jnp.arange(t_max)
  own = jnp.arange(size)[None, :, None]
  slots = jnp.where(steps[None, None, :] == t, own, slots)
  taken = slots[..., None] == jnp.arange(size)[None, None, None, :]
  return taken & (steps <= t)[None, None, :, None]


def _next_log_probs(logits: Array, last: Array) -> Array:
  """float32[B, N, V]; no PAD, and EOS alone where bool[B] `last` is true."""
  log_probs = nn.log_softmax(logits)
  token = jnp.arange(logits.shape[-1])
  banned = (token == PAD)[None] | last[:, None] & (token != EOS)[None]
  return jnp.where(banned[:, None, :], 2 * _NEVER, log_probs)


def _select(beams: _Beams, log_probs: Array, method: Beam) -> _Beams:
  """Chooses what grows and what ends, from float32[B, N, V]."""
  batch, size, vocab = log_probs.shape
  t = beams.t
  total = beams.log_prob[:, :, None] + log_probs
  # Of 2 N successors at least N do not end in EOS.
  best, flat = _top(total, 2 * size)  # [B, 2 N]
  parent, token = flat // vocab, flat % vocab
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

  log_prob, kept = lax.top_k(jnp.where(ends, 2 * _NEVER, best), size)
  return beams.replace(
    t=t + 1,
    alive=take_rows(grown, kept),
    log_prob=log_prob,
    slots=take_rows(slots, kept),
    ended=ended,
    score=score,
  )


def _top(total: Array, count: int) -> tuple[Array, Array]:
  """The `count` largest of float32[B, N, V] and where, as n V + v."""
  batch, _, vocab = total.shape
  # First within each hypothesis: many short selections beat one long one.
  values, tokens = lax.top_k(total, min(count, vocab))
  parents = jnp.arange(total.shape[1])[None, :, None]
  flat = (parents * vocab + tokens).reshape(batch, -1)
  values, index = lax.top_k(values.reshape(batch, -1), count)
  return values, jnp.take_along_axis(flat, index, axis=1)
