"""Sums and maxima over the paths of a CTC (Graves et al. 2006).

A path gives each slot a word or a blank. States of the recursion are pairs: k
words of the target so far, and whether the last slot was blank.
"""

from collections.abc import Callable
import functools

from flax import struct
import jax
from jax import lax
import jax.numpy as jnp

from latentnmt.outputs.strings import NEVER, num_words
from latentnmt.types import PAD, Array, Mask, Nats, Tokens


@struct.dataclass
class Emissions:
  """Log-probabilities of what a path for given targets can emit.

  Attributes:
    words: float32[B, n, U], of the k-th word of the target in each slot.
    blank: float32[B, U].
  """

  words: Array
  blank: Array


def log_marginal(
  emissions: Emissions, y: Tokens, mask: Mask, merge: bool
) -> Nats:
  """Returns log of the sum over paths, float32[B]; `NEVER` or less for none.

  Args:
    emissions: with n = T - 1.
    y: int32[B, T].
    mask: bool[B, U], slots.
    merge: whether equal words in neighbouring slots are one word.
  """
  return _over_paths(jnp.logaddexp, emissions, y, mask, merge)


def alignment(
  emissions: Emissions, y: Tokens, mask: Mask, merge: bool
) -> tuple[Array, Nats]:
  """Returns the likeliest path, int32[B, U] with -1 for a blank, and its log p.

  Where there is no path all are -1; arguments are those of `log_marginal`.
  """

  def total(emissions):
    score = _over_paths(_larger, emissions, y, mask, merge)
    return jnp.sum(score), score

  # A maximum over sums is linear in what the best one adds up: its gradient is
  # one there and zero elsewhere.
  used, score = jax.grad(total, has_aux=True)(emissions)
  found = score > NEVER / 2
  # Not one word: an empty axis has no maximum.
  used = jnp.pad(used.words, ((0, 0), (0, 1), (0, 0))) > 0.5
  taken = jnp.any(used, axis=1) & found[:, None] & mask
  index = jnp.where(taken, jnp.argmax(used, axis=1), -1)
  return index, jnp.where(found, score, -jnp.inf)


def _larger(a: Array, b: Array) -> Array:
  """Computes `jnp.maximum`; of equal numbers only the first has a gradient."""
  return jnp.where(a >= b, a, b)


def _over_paths(plus: Callable, emissions, y, mask, merge) -> Nats:
  distinct = _distinct(y) if merge else jnp.ones(y.shape, bool)
  # Before the first word there is none that could be repeated.
  first = ((0, 0), (1, 0), (0, 0))
  words = jnp.pad(emissions.words, first, constant_values=NEVER)

  def slot(states, now):
    word, blank, real = now
    new = _step(plus, states, word, blank[:, None], distinct, merge)
    # Numbers near zero are the more precise ones; what is taken off is added
    # up apart.
    most = lax.stop_gradient(jnp.max(jnp.stack(new), axis=(0, 2)))
    new = (state - most[:, None] for state in new)
    keep = functools.partial(jnp.where, real[:, None])
    states = tuple(map(keep, new, states))
    return states, jnp.where(real, most, 0)

  start = jnp.full(y.shape, NEVER)
  slots = jnp.moveaxis(words, 2, 0), emissions.blank.T, mask.T
  states, scale = lax.scan(slot, (start.at[:, 0].set(0), start), slots)
  last = jnp.take_along_axis(plus(*states), num_words(y)[:, None], axis=1)
  return last[:, 0] + jnp.sum(scale, axis=0)


def _step(plus, states, word, blank, distinct, merge) -> tuple[Array, Array]:
  """Takes one slot more: float32[B, n + 1] after a blank and after a word."""
  after_blank, after_word = states
  again = jnp.where(distinct, _shift(after_word), NEVER)
  entering = plus(_shift(after_blank), again)
  if merge:
    entering = plus(entering, after_word)
  return plus(after_blank, after_word) + blank, entering + word


def _distinct(y: Tokens) -> Mask:
  """Returns bool[B, n + 1]: whether the k-th word differs from the one before.

  Between equal words that are merged there has to be a blank.
  """
  before = jnp.pad(y, ((0, 0), (2, 0)), constant_values=PAD)[:, :-2]
  this = jnp.pad(y, ((0, 0), (1, 0)), constant_values=PAD)[:, :-1]
  return this != before


def _shift(states: Array) -> Array:
  """Moves float32[B, n + 1] on by one word."""
  first = ((0, 0), (1, 0))
  return jnp.pad(states, first, constant_values=NEVER)[:, :-1]
