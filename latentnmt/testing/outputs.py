"""Checks of the contract of outputs."""

import functools
import itertools
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from latentnmt import config as cfg
from latentnmt.embedding import Embedding
from latentnmt.keys import fold_in_each
from latentnmt.masks import length_mask
from latentnmt.testing.assertions import (
  assert_close,
  assert_zero_mean,
  check_start,
)
from latentnmt.testing.inputs import perturb
from latentnmt.types import EOS, PAD, Key

_VOCAB = 4  # two words
_WIDTH = 8
_MOST_STRINGS = 1 << 14  # all are evaluated at once
_DRAWS = 4096


class _Head(nn.Module):
  """An output with an embedding of its own."""

  output: nn.Module

  def setup(self):
    self.embedding = Embedding(cfg.TransformerConfig(_VOCAB, _WIDTH, heads=1))

  def __call__(self, method: str, states, *args) -> Any:
    return getattr(self.output, method)(self.embedding, states, *args)

  def sample(self, key, states, mask):
    return self.output.sample(key, self.embedding, states, mask)


def check_output(output: nn.Module, key: Key) -> None:
  """Checks that a Linen module keeps the `Output` contract.

  Training reaches every parameter (`check_start`). And with randomly perturbed
  parameters, a vocabulary of two words and random states of sentences of
  different lengths:

  * The number of positions is of the sentence alone.
  * The strings that a path can make sum to one, and so do all strings, with
    what the escape has beyond them.
  * Padding, of states and of strings, and other sentences are invisible to
    densities, strings and draws.
  * Gradients are finite, also where no path makes the string, and there are
    none on padding.
  * No path is likelier than its string. Alignments go forward and leave out no
    word.
  * Draws have the probabilities that `log_prob` says, and their mean
    log-probability is minus the entropy, within five standard errors.

  Args:
    output: unbound, and so small that sources of two tokens reach at most some
      16,000 strings: of up to 12 positions, say.
    key: of everything random.

  Raises:
    AssertionError: saying which property fails.
  """
  keys = jax.random.split(key, 5)
  length = np.array([3, 2, 0]) if output.given_length else _positions(output)
  mask = np.asarray(length_mask(jnp.array(length), max(length) + 1))
  states = np.asarray(jax.random.normal(keys[0], (*mask.shape, _WIDTH)))
  y = np.array([[2, 3, EOS, PAD], [3, EOS, PAD, PAD], [PAD] * 4])
  head = _Head(output)
  init = functools.partial(head.init, method="__call__")
  start = jax.jit(init, static_argnums=1)(keys[1], "log_prob", states, y, mask)
  params = jax.jit(perturb)(start, keys[2])

  @functools.partial(jax.jit, static_argnums=0)
  def call(method, *args):
    if method == "sample":
      return head.apply(params, *args, method="sample")
    return head.apply(params, method, *args)

  def loss(params, states, y):
    return -jnp.sum(head.apply(params, "log_prob", states, y, mask).unmixed)

  check_start(functools.partial(loss, states=states, y=y), start, keys[3])
  gradient = jax.jit(jax.grad(loss, (0, 1)))
  _check_gradient(gradient(params, states, y), mask)
  if not output.given_length:
    _check_gradient(gradient(params, states, _too_long(y, mask)), mask)
  _check_unseen(call, states, y, mask, keys[4])
  one = states[:1, : length[0]]
  known = _check_strings(output, call, one)
  _check_draws(call, one, jax.random.split(keys[4], _DRAWS), known)


def _positions(output) -> np.ndarray:
  """Returns how many positions sources of 2, 1 and 0 tokens have."""
  sizes = np.array([2, 1, 0, 7, 1000])
  found = np.asarray(output.positions(jnp.array(sizes)))
  message = f"positions: {found} of sources of {sizes} tokens"
  assert np.issubdtype(found.dtype, np.integer), f"positions: {found.dtype}"
  assert (found[:2] > 0).all() and found[2] == 0, message
  for size, expected in zip(sizes, found, strict=True):
    alone = output.positions(jnp.array([size]))[0]
    assert alone == expected, "positions depend on other sentences"
    most = size and output.max_positions(int(size))
    assert expected <= most, f"max_positions: {most}, but {expected} are used"
  return found[:3]


def _too_long(y: np.ndarray, mask: np.ndarray) -> np.ndarray:
  """Returns strings that no path through so few positions should reach."""
  words = np.full((len(y), mask.shape[1] + 1), 2)
  strings = np.pad(words, ((0, 0), (0, 1)), constant_values=EOS)
  return np.where(y[:, :1] == PAD, PAD, strings)


def _check_gradient(gradient, mask):
  leaves = jax.tree.leaves(jax.device_get(gradient))
  finite = all(np.isfinite(leaf).all() for leaf in leaves)
  assert finite, "log_prob: gradient is not finite"
  outside = np.asarray(gradient[1])[~mask]
  assert not outside.any(), "log_prob: gradient on padded positions"


def _check_unseen(call, states, y, mask, key):
  """Compares the second sentence alone with itself beside others and noise."""

  @jax.jit
  def everything(key, states, y, mask):
    return {
      "log_prob": call("log_prob", states, y, mask),
      "alignment": call("alignment", states, y, mask),
      "best": call("best", states, mask),
      "sample": call("sample", key, states, mask),
    }

  noise_key, key = jax.random.split(key)
  noise = 1e3 * np.asarray(jax.random.normal(noise_key, states.shape))
  noisy = np.where(mask[..., None], states, noise)
  keys = fold_in_each(key, np.arange(len(y)))
  positions, tokens = mask[1].sum(), (y[1] != PAD).sum()
  own = slice(1, 2), slice(positions)
  together = jax.device_get(everything(keys, noisy, y, mask))
  apart = jax.device_get(
    everything(keys[1:2], states[own], y[1:2, :tokens], mask[own])
  )
  for name, results in together.items():
    pairs = jax.tree.leaves(results), jax.tree.leaves(apart[name])
    for found, expected in zip(*pairs, strict=True):
      row = found[1][tuple(map(slice, expected.shape[1:]))]
      assert_close(row, expected[0], f"{name} sees padding or other sentences")
      assert (found[2] <= 0).all(), f"{name}: {found[2]} of an empty row"


def _all_strings(output, positions: int) -> np.ndarray:
  """Returns all strings that positions may reach, int32[N, T]."""
  words = range(EOS + 1, _VOCAB)
  shortest = positions - 1 if output.given_length else 0
  longest = positions - 1 if output.given_length else positions
  count = sum(len(words) ** n for n in range(shortest, longest + 1))
  assert count <= _MOST_STRINGS, (
    f"{positions} positions for a source of one or two tokens reach up to"
    f" {count} strings; check a smaller output."
  )
  found = [
    (*string, EOS, *[PAD] * (longest - n))
    for n in range(shortest, longest + 1)
    for string in itertools.product(words, repeat=n)
  ]
  return np.array(found, np.int32)


def _check_strings(output, call, states) -> dict[tuple, float]:
  """Returns log p, without the escape, of strings of states [1, U, D]."""
  positions = states.shape[1]
  mask = np.ones((1, positions), bool)
  strings = _all_strings(output, positions)

  @jax.jit
  @jax.vmap
  def evaluate(y):
    likelihood = call("log_prob", states, y[None], mask)
    alignment = call("alignment", states, y[None], mask)
    return jax.tree.map(lambda x: x[0], (likelihood, alignment))

  likelihood, (index, score) = jax.device_get(evaluate(strings))
  log_prob = likelihood.log_prob.astype(np.float64)
  assert np.isfinite(log_prob).all(), "log_prob is not finite"
  beyond = 0.0
  if output.escape:
    more = positions / (positions + 1)
    beyond = output.escape * more ** strings.shape[1]
  total = np.exp(log_prob).sum() + beyond
  message = "all strings do not sum to one"
  np.testing.assert_allclose(total, 1, atol=1e-5, err_msg=message)
  reached = score > -np.inf
  unmixed = np.where(reached, likelihood.unmixed, -np.inf).astype(np.float64)
  total = np.exp(unmixed).sum()
  message = "strings without the escape do not sum to one"
  np.testing.assert_allclose(total, 1, atol=1e-5, err_msg=message)
  assert likelihood.escaped[~reached].all(), "escaped is false, without a path"
  over = (score - likelihood.unmixed)[reached].max()
  assert over <= 1e-4, f"alignment: likelier than its string by {over}"
  for string, path, found in zip(strings, index, reached, strict=True):
    _check_path(string, path[path >= 0], found)
  return {
    tuple(string[string != PAD]): value
    for string, value in zip(strings, unmixed, strict=True)
    if value > -np.inf
  }


def _check_path(string, path, found):
  words = set(range((string != PAD).sum() - 1)) if found else set()
  message = f"alignment: {path} of {string}"
  assert set(path) - {len(words)} == words, message
  assert (np.diff(path) >= 0).all(), message


def _check_draws(call, states, keys, known: dict[tuple, float]):
  """Checks strings that `sample` and `best` find against all there are."""
  mask = np.ones(states.shape[:2], bool)
  draw = jax.jit(jax.vmap(lambda key: call("sample", key, states, mask)))
  drawn, paths = jax.device_get(draw(keys))
  tokens, path = jax.device_get(call("best", states, mask))
  size = states.shape[1] + 1
  for name, found in (("sample", drawn[:, 0]), ("best", tokens)):
    assert found.shape[1] == size, f"{name}: {found.shape[1]} tokens"
  strings = [tuple(row[row != PAD]) for row in (*drawn[:, 0], *tokens)]
  missing = set(strings) - set(known)
  assert not missing, f"sample or best: {missing} have no path"
  log_prob = np.array([known[string] for string in strings])
  over = (np.append(paths, path) - log_prob).max()
  assert over <= 1e-3, f"a path is likelier than its string by {over}"

  values = np.array(list(known.values()))
  entropy = -np.sum(np.exp(values) * values)
  assert_zero_mean(
    log_prob[:-1] + entropy, "E[log p] of draws is not the entropy"
  )
  for string in sorted(known, key=known.get)[-5:]:
    hits = np.array([drawn == string for drawn in strings[:-1]], float)
    assert_zero_mean(hits - np.exp(known[string]), f"sample: share of {string}")
