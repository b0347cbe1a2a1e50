import functools
import itertools
import math

import chex
from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp
from jaxprs import shapes
import numpy as np
import optax
import pytest

from latentnmt import config as cfg
from latentnmt import embedding as embeddings
from latentnmt.embedding import Embedding
from latentnmt.masks import length_mask, lengths, token_mask
from latentnmt.outputs import (
  Ctc,
  Dag,
  Factorised,
  Likelihood,
  ctc_paths,
  escape_log_prob,
  lattice,
  words,
)
from latentnmt.outputs.ctc_paths import Emissions
from latentnmt.outputs.strings import NEVER
from latentnmt.testing import check_output
from latentnmt.types import EOS, PAD

KEY = jax.random.key(0)

OUTPUTS = {
  "factorised": Factorised(),
  "ctc": Ctc(scale=2.0, extra=1),
  "ctc_without_merging": Ctc(scale=1.5, extra=2, merge=False),
  "dag": Dag(scale=2.5, extra=1, heads=2, escape=1e-2),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_contract(name):
  check_output(OUTPUTS[name], jax.random.key(1))


class KeepsEnd(Factorised):
  """EOS takes part in the softmax, and nothing ever makes it."""

  def log_prob(self, embedding, states, y, mask):
    found = super().log_prob(embedding, states, y, mask).log_prob
    return Likelihood(found - 0.1, found - 0.1, jnp.zeros(len(y), bool))


class CountsTheBatch(Ctc):
  def log_prob(self, embedding, states, y, mask):
    everywhere = jnp.ones_like(mask)
    return super().log_prob(embedding, states, y, everywhere)


class AlwaysTheBest(Ctc):
  def sample(self, key, embedding, states, mask, temperature=1.0):
    return self.best(embedding, states, mask)


class OfTheLongest(Dag):
  def positions(self, source_lengths):
    longest = jnp.max(super().positions(source_lengths))
    return jnp.where(source_lengths > 0, longest, 0)


@pytest.mark.parametrize(
  "broken, message",
  [
    (KeepsEnd(), "sum to one"),
    (CountsTheBatch(2.0, 0), "padded positions"),
    (AlwaysTheBest(2.0, 0), "entropy"),
    (OfTheLongest(), "other sentences"),
  ],
  ids=lambda value: type(value).__name__,
)
def test_a_broken_output_is_told(broken, message):
  with pytest.raises(AssertionError, match=message):
    check_output(broken, jax.random.key(1))


@pytest.mark.parametrize("scale", [1.0, 1.1, 1.5, 2.3, 1 / 3])
def test_positions_are_whole_numbers_of_the_sentence_alone(scale):
  sizes = np.arange(1, 300)
  found = Ctc(scale, 2).positions(jnp.array(sizes))
  assert found.tolist() == [Ctc(scale, 2).max_positions(int(n)) for n in sizes]
  exact = np.floor(np.round(scale * sizes, 6)) + 2
  np.testing.assert_array_equal(found, exact)
  assert Dag(scale).positions(jnp.array([0, 1])).tolist() == [0, 3]


# What paths are summed over, enumerated.


def paths_by_string(probs, merge):
  """Probability of each string of a CTC: {string: (sum, best path)}.

  Args:
    probs: float[U, 1 + words], the blank first.
    merge: whether equal neighbours are one word.
  """
  found = {}
  for path in itertools.product(range(probs.shape[1]), repeat=len(probs)):
    value = math.prod(probs[u, a] for u, a in enumerate(path))
    kept = [
      (u, a)
      for u, a in enumerate(path)
      if a and not (merge and u and path[u - 1] == a)
    ]
    string = tuple(a + 1 for _, a in kept)
    total, best = found.get(string, (0.0, (0.0, ())))
    found[string] = total + value, max(best, (value, path))
  return found


def walks_by_string(probs, links):
  """The same of a graph: {string: (sum, (best walk's, its vertices))}.

  Args:
    probs: float[U, words] of each vertex.
    links: float[U, U].
  """
  found, size = {}, len(links)
  inner = range(1, size - 1)
  for n in range(size - 1):
    for walk in itertools.combinations(inner, n):
      steps = itertools.pairwise((0, *walk, size - 1))
      value = math.prod(links[i, j] for i, j in steps)
      for string in itertools.product(range(probs.shape[1]), repeat=n):
        own = [probs[j, v] for j, v in zip(walk, string, strict=True)]
        one = value * math.prod(own), walk
        string = tuple(v + 2 for v in string)
        total, best = found.get(string, (0.0, (0.0, ())))
        found[string] = total + one[0], max(best, one)
  return found


def padded(strings):
  """int32[N, T] with EOS."""
  size = max(map(len, strings)) + 1
  rows = [(*s, EOS, *[PAD] * (size - 1 - len(s))) for s in strings]
  return jnp.array(rows, jnp.int32)


def ctc_emissions(log_probs, y):
  """Emissions for each of N strings of one sentence float[U, 1 + words]."""
  own = jnp.take(log_probs.T, jnp.maximum(y[:, :-1] - 1, 0), axis=0)
  return Emissions(own, jnp.broadcast_to(log_probs[:, 0], own.shape[::2]))


def random_links(key, size, scale=1.0):
  """float32[U, U], rows of softmaxes over later vertices."""
  later = np.triu(np.ones((size, size), bool), 1)
  logits = jnp.where(later, scale * jax.random.normal(key, later.shape), NEVER)
  return jnp.where(later, jax.nn.log_softmax(logits), NEVER)


def graph_emissions(log_probs, y, mask):
  """Emissions for each of N strings of one graph float[U, words]."""
  own = jnp.take(log_probs.T, jnp.maximum(y - 2, 0), axis=0)
  own = jnp.where((y == EOS)[..., None], 0, own)
  return jnp.where(lattice.reach(y, mask), own, NEVER)


@pytest.mark.parametrize("merge", [True, False])
def test_a_ctc_is_the_sum_over_its_paths(merge):
  log_probs = jax.nn.log_softmax(2 * jax.random.normal(KEY, (5, 3)))
  known = paths_by_string(np.exp(np.asarray(log_probs, np.float64)), merge)
  assert sum(total for total, _ in known.values()) == pytest.approx(1)
  y, mask = padded(list(known)), jnp.ones((len(known), 5), bool)

  @jax.jit
  def values(log_probs):
    emissions = ctc_emissions(log_probs, y)
    value = ctc_paths.log_marginal(emissions, y, mask, merge)
    return value, ctc_paths.alignment(emissions, y, mask, merge)

  value, (index, score) = values(log_probs)
  expected = np.log([total for total, _ in known.values()])
  np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)
  best = [best for _, best in known.values()]
  np.testing.assert_allclose(score, np.log([p for p, _ in best]), atol=1e-5)
  emitted = np.where(index >= 0, np.take_along_axis(y, index, 1) - 1, 0)
  np.testing.assert_array_equal(emitted, [path for _, path in best])


def test_a_graph_is_the_sum_over_its_walks():
  keys = jax.random.split(KEY)
  log_probs = jax.nn.log_softmax(jax.random.normal(keys[0], (6, 2)))
  links = random_links(keys[1], 6)
  known = walks_by_string(*(np.exp(np.float64(x)) for x in (log_probs, links)))
  assert sum(total for total, _ in known.values()) == pytest.approx(1)
  y, mask = padded(list(known)), jnp.ones((len(known), 6), bool)

  @jax.jit
  def values(log_probs, links):
    links = jnp.broadcast_to(links[None], (len(y), 6, 6))
    emissions = graph_emissions(log_probs, y, mask)
    value = lattice.log_marginal(emissions, links, token_mask(y))
    scores = lattice.best_scores(emissions, links)
    steps = lengths(token_mask(y))
    index = lattice.trace_back(scores, links, mask, steps)
    return value, index, scores[steps, jnp.arange(len(y)), -1]

  value, index, score = values(log_probs, links)
  expected = np.log([total for total, _ in known.values()])
  np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)
  best = [best for _, best in known.values()]
  np.testing.assert_allclose(score, np.log([p for p, _ in best]), atol=1e-5)
  walks = [tuple(np.flatnonzero(row >= 0)[:-1]) for row in index]
  assert walks == [walk for _, walk in best]


def test_lengths_of_a_ctc_without_merging_are_poisson_binomial():
  log_probs = jax.nn.log_softmax(jax.random.normal(KEY, (5, 3)))
  known = paths_by_string(np.exp(np.asarray(log_probs, np.float64)), False)
  found = np.zeros(6)
  for string, (total, _) in known.items():
    found[len(string)] += total
  law = np.ones(1)
  for blank in np.exp(np.asarray(log_probs[:, 0], np.float64)):
    law = np.convolve(law, [blank, 1 - blank])
  np.testing.assert_allclose(found, law, atol=1e-8)


# Independent programmes for the same sums.


def random_targets(key, rows, size, vocab):
  """int32[rows, size] with repeated words, and lengths from 1 to `size`."""
  keys = jax.random.split(key)
  y = jax.random.randint(keys[0], (rows, size), 2, vocab)
  y = jnp.where(jnp.arange(size)[None] % 3 == 2, jnp.roll(y, 1, axis=1), y)
  length = jax.random.randint(keys[1], (rows, 1), 1, size + 1)
  position = jnp.arange(size)[None]
  y = jnp.where(position == length - 1, EOS, y)
  return jnp.where(position < length, y, PAD)


def test_a_ctc_is_that_of_optax_in_values_and_gradients():
  keys = jax.random.split(KEY, 3)
  y = random_targets(keys[0], 6, 7, 8)
  mask = length_mask(jnp.array([16, 12, 14, 13, 16, 15]), 16)
  logits = 3 * jax.random.normal(keys[1], (6, 16, 7))  # the blank first
  weight = jax.random.normal(keys[2], (6,))

  @jax.jit
  def ours(logits):
    log_probs = jax.nn.log_softmax(logits)
    index = jnp.maximum(y[:, :-1] - 1, 0)
    own = jnp.take_along_axis(log_probs, index[:, None], axis=2)
    emissions = Emissions(own.swapaxes(1, 2), log_probs[..., 0])
    value = ctc_paths.log_marginal(emissions, y, mask, True)
    return jnp.sum(weight * value), value

  @jax.jit
  def theirs(logits):
    padding = y[:, :-1] <= EOS
    value = -optax.ctc_loss(
      logits, ~mask * 1.0, jnp.where(padding, 0, y[:, :-1] - 1), padding * 1.0
    )
    return jnp.sum(weight * value), value

  results = (jax.grad(f, has_aux=True)(logits) for f in (ours, theirs))
  chex.assert_trees_all_close(*results, rtol=1e-4, atol=2e-5)


def test_a_ctc_without_merging_is_a_graph_whose_links_are_products_of_blanks():
  keys = jax.random.split(KEY)
  slots, y = 9, random_targets(keys[0], 6, 6, 5)
  log_probs = jax.nn.log_softmax(2 * jax.random.normal(keys[1], (slots, 4)))
  blank = np.exp(np.float64(log_probs[:, 0]))
  links = np.zeros((slots + 2, slots + 2))
  for i, j in itertools.combinations(range(slots + 2), 2):
    enters = 1 - blank[j - 1] if j <= slots else 1
    links[i, j] = enters * np.prod(blank[i : j - 1])
  np.testing.assert_allclose(links[:-1].sum(1), 1)
  inner = log_probs[:, 1:] - jnp.log1p(-jnp.exp(log_probs[:, :1]))
  inner = jnp.pad(inner, ((1, 1), (0, 0)))
  links = jnp.where(links > 0, jnp.log(jnp.maximum(links, 1e-30)), NEVER)

  @jax.jit
  def both():
    mask = jnp.ones((len(y), slots), bool)
    emissions = ctc_emissions(log_probs, y)
    ctc = ctc_paths.log_marginal(emissions, y, mask, False)
    mask = jnp.ones((len(y), slots + 2), bool)
    emissions = graph_emissions(inner, y, mask)
    stacked = jnp.broadcast_to(links[None], (len(y), *links.shape))
    return ctc, lattice.log_marginal(emissions, stacked, token_mask(y))

  np.testing.assert_allclose(*both(), rtol=1e-5)


def test_a_graph_of_one_walk_is_factorised():
  log_probs = jax.nn.log_softmax(jax.random.normal(KEY, (6, 3)))
  y = padded([(2, 4, 3, 3)])
  links = jnp.where(jnp.eye(6, k=1, dtype=bool), 0, NEVER)[None]
  emissions = graph_emissions(log_probs, y, jnp.ones((1, 6), bool))
  value = lattice.log_marginal(emissions, links, token_mask(y))
  expected = sum(log_probs[t + 1, v - 2] for t, v in enumerate(y[0, :4]))
  np.testing.assert_allclose(value[0], expected, rtol=1e-6)


def in_log_space(emissions, links, real):
  """The textbook's recursion, float32[B]; autodiff keeps [T, B, U, U]."""
  start = jnp.full(emissions.shape[::2], NEVER).at[:, 0].set(0)

  def step(before, now):
    emission, real = now
    new = jax.nn.logsumexp(before[:, :, None] + links, axis=1) + emission
    return jnp.where(real[:, None], new, before), None

  steps = jnp.swapaxes(emissions, 0, 1), real.T
  last, _ = lax.scan(step, start, steps)
  return jax.nn.logsumexp(last, axis=1)


def reference(emissions, links):
  """The same in float64, of one sentence whose tokens are all real."""
  before = np.full(len(links), -np.inf)
  before[0] = 0
  with np.errstate(divide="ignore"):
    for emission in np.float64(emissions):
      most = before.max()
      arrivals = np.exp(before - most) @ np.exp(np.float64(links))
      before = emission + np.log(arrivals) + most
  return before[-1]


def random_graph(key, size, tokens, scale, count=2):
  """Emissions and links of sentences of `tokens` tokens, all of one size."""
  keys = jax.random.split(key, 2 * count)
  words_, y = 50, jnp.full((1, tokens), 2).at[:, -1].set(EOS)
  mask = jnp.ones((1, size), bool)
  emissions, links = [], []
  for k in range(count):
    logits = scale * jax.random.normal(keys[2 * k], (size, words_))
    log_probs = jnp.roll(jax.nn.log_softmax(logits), 0, axis=1)
    emissions.append(graph_emissions(log_probs, y, mask)[0])
    links.append(random_links(keys[2 * k + 1], size, scale))
  return jnp.stack(emissions), jnp.stack(links)


@pytest.mark.parametrize(
  "size, tokens, scale",
  [(208, 29, 4.0), (104, 40, 8.0), (66, 61, 0.1), (34, 33, 1.0)],
  ids=["sharp", "sharper", "untrained", "one_walk"],
)
def test_scaled_sums_over_graphs_are_those_of_log_space(size, tokens, scale):
  emissions, links = random_graph(KEY, size, tokens, scale)
  real = jnp.ones(emissions.shape[:2], bool)
  value = jax.jit(lattice.log_marginal)(emissions, links, real)
  expected = [reference(*pair) for pair in zip(emissions, links, strict=True)]
  np.testing.assert_allclose(value, expected, rtol=3e-6, atol=1e-4)


@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_gradients_of_a_graph_are_those_of_log_space(scale):
  keys = jax.random.split(KEY, 3)
  y = random_targets(keys[0], 5, 16, 5)
  y = y.at[0].set(jnp.array([2, 3, 4] * 5 + [EOS]))
  mask = length_mask(jnp.array([24, 20, 22, 18, 19]), 24)
  log_probs = jax.nn.log_softmax(scale * jax.random.normal(keys[1], (24, 3)))
  emissions = graph_emissions(log_probs, y, mask)
  links = [random_links(key, 24, scale) for key in jax.random.split(keys[2], 5)]
  links = jnp.where(mask[:, None], jnp.stack(links), NEVER)
  weight = jnp.array([1.0, -2.0, 0.5, 3.0, 1.0])

  def total(function, emissions, links):
    value = function(emissions, links, token_mask(y))
    return jnp.sum(weight * value), value

  found, expected = (
    jax.jit(jax.grad(functools.partial(total, f), (0, 1), has_aux=True))(
      emissions, links
    )
    for f in (lattice.log_marginal, in_log_space)
  )
  chex.assert_trees_all_close(found, expected, rtol=1e-4, atol=1e-5)


def test_posteriors_of_a_graph_sum_to_one_and_walks_leave_where_they_arrive():
  emissions, links = random_graph(KEY, 12, 5, 2.0)
  real = jnp.ones(emissions.shape[:2], bool)

  def total(emissions, links):
    return jnp.sum(lattice.log_marginal(emissions, links, real))

  posterior, uses = jax.jit(jax.grad(total, (0, 1)))(emissions, links)
  np.testing.assert_allclose(posterior.sum(2), 1, rtol=1e-5)
  arrive, leave = uses.sum(1)[:, 1:-1], uses.sum(2)[:, 1:-1]
  np.testing.assert_allclose(arrive, leave, atol=1e-5)
  np.testing.assert_allclose(arrive, posterior.sum(1)[:, 1:-1], atol=1e-5)


@pytest.mark.parametrize("merge", [True, False])
def test_posteriors_of_a_ctc_sum_to_one(merge):
  y = random_targets(KEY, 4, 6, 5)
  mask = length_mask(jnp.array([12, 11, 12, 12]), 12)
  log_probs = jax.nn.log_softmax(2 * jax.random.normal(KEY, (12, 4)))

  def total(emissions):
    return jnp.sum(ctc_paths.log_marginal(emissions, y, mask, merge))

  found = jax.jit(jax.grad(total))(ctc_emissions(log_probs, y))
  posterior = found.words.sum(1) + found.blank
  np.testing.assert_allclose(posterior, mask * 1.0, rtol=1e-4, atol=1e-6)
  step = 1e-2 * jax.random.normal(KEY, found.words.shape)
  emissions = ctc_emissions(log_probs, y)
  up, down = (
    total(emissions.replace(words=emissions.words + sign * step))
    for sign in (1, -1)
  )
  np.testing.assert_allclose((up - down) / 2, (step * found.words).sum(), 1e-3)


# Modules, with a table.


class Head(nn.Module):
  """An output with an embedding of its own."""

  output: nn.Module
  vocab_size: int
  width: int = 8
  dtype: str = "float32"

  def setup(self):
    self.embedding = Embedding(
      cfg.TransformerConfig(
        self.vocab_size, self.width, heads=1, dtype=self.dtype
      )
    )

  def __call__(self, method, *args, **settings):
    if method == "links":
      return self.output.links(*args)
    if method == "sample":
      key, *args = args
      return self.output.sample(key, self.embedding, *args, **settings)
    return getattr(self.output, method)(self.embedding, *args, **settings)


def compiled(output, vocab_size, positions, scale=2.0, **sizes):
  """Methods with parameters, random states float[2, U, D] and their mask.

  Methods are called by their names, settings by theirs.
  """
  head = Head(output, vocab_size, **sizes)
  shape = 2, max(positions), head.width
  states = scale * jax.random.normal(KEY, shape)
  mask = length_mask(jnp.array(positions), shape[1])
  y = jnp.pad(jnp.array([[EOS]] * 2), ((0, 0), (shape[1] - 1, 0)), "edge")
  init = functools.partial(head.init, KEY, "log_prob")
  params = jax.jit(init)(states, y, mask)

  def call(method, *args, **settings):
    def apply(*args):
      return head.apply(params, method, *args, **settings)

    return jax.jit(apply)(*args)

  return call, states, mask


def test_a_string_out_of_reach_has_the_escapes_probability_and_is_counted():
  call, states, mask = compiled(Ctc(extra=0), 6, (4, 8))
  y = jnp.array([[2, 3, 4, 5, EOS], [2, 2, 2, 5, EOS], [2, 2, 2, EOS, PAD]])
  states, mask = states[jnp.array([0, 0, 0])], mask[jnp.array([0, 0, 0])]
  found = call("log_prob", states, y, mask)
  np.testing.assert_array_equal(found.escaped[1:], [True, True])
  expected = math.log(1e-4) + 4 * math.log(4 / 5 / 4) - math.log(5)
  np.testing.assert_allclose(found.log_prob[1], expected, rtol=1e-6)
  np.testing.assert_array_equal(found.log_prob[1:], found.unmixed[1:])
  assert not math.isclose(found.log_prob[0], found.unmixed[0], abs_tol=1e-6)

  def total(states, name):
    return jnp.sum(getattr(call("log_prob", states, y[1:], mask[1:]), name))

  for name in ("log_prob", "unmixed"):
    assert not np.asarray(jax.grad(total)(states[1:], name)).any()


def test_a_string_far_below_the_escape_is_counted_and_still_has_a_gradient():
  call, states, mask = compiled(Ctc(extra=0), 6, (8, 8), scale=30.0)
  tokens, _ = call("likeliest", -states)
  y = jnp.concatenate([jnp.maximum(tokens[:, :3], 2), jnp.ones((2, 1), int)], 1)

  def total(states, name):
    found = call("log_prob", states, y, mask)
    return jnp.sum(getattr(found, name)), found.escaped

  with_escape, escaped = jax.grad(total, has_aux=True)(states, "log_prob")
  without, _ = jax.grad(total, has_aux=True)(states, "unmixed")
  assert escaped.all()
  assert np.abs(with_escape).max() < 1e-6 < np.abs(without).max()


def test_the_escape_sums_to_one():
  mask = length_mask(jnp.array([5]), 9)
  count = np.arange(400)
  each = [escape_log_prob(jnp.array([n]), mask, 5)[0] for n in count[:3]]
  np.testing.assert_allclose(np.diff(each), math.log(5 / 6 / 3), rtol=1e-5)
  total = np.sum(np.exp(each[0] + count * (each[1] - each[0])) * 3.0**count)
  assert total == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("merge", [True, False])
def test_a_wide_prefix_beam_finds_the_likeliest_strings(merge):
  call, states, mask = compiled(Ctc(extra=0, merge=merge), 4, (5, 4))
  tokens, scores = call("prefix_beam", states, mask, size=70, candidates=2)
  likelihood = jax.vmap(lambda y: call("log_prob", states, y, mask), 1, 1)(
    tokens
  ).unmixed
  reached = np.isfinite(scores)
  assert reached.sum(1).tolist() == [
    len(paths_by_string(np.ones((slots, 3)), merge)) for slots in (5, 4)
  ]
  np.testing.assert_allclose(
    np.where(reached, likelihood, 0), np.where(reached, scores, 0), atol=2e-5
  )
  assert (np.diff(np.where(reached, scores, -1e3)) <= 0).all()
  strings = [tuple(row) for row in tokens[0, reached[0]].tolist()]
  assert len(set(strings)) == len(strings)
  # A narrow beam leaves paths out, but is not below the best path's string.
  narrow, narrow_scores = call("prefix_beam", states, mask, size=3)
  assert (narrow_scores[:, 0] <= scores[:, 0] + 1e-5).all()
  best, _ = call("best", states, mask)
  own = call("log_prob", states, best, mask).unmixed
  assert (scores[:, 0] >= own - 1e-5).all()


def test_a_length_penalty_and_a_blank_penalty_make_strings_longer():
  call, states, mask = compiled(Ctc(), 9, (12, 12))
  plain, _ = call("best", states, mask)
  longer, _ = call("best", states, mask, blank_penalty=5.0)
  assert (token_mask(longer).sum(1) > token_mask(plain).sum(1)).all()
  plain, _ = call("prefix_beam", states, mask, size=8)
  longer, _ = call("prefix_beam", states, mask, size=8, length_penalty=3.0)
  count = token_mask(longer)[:, 0].sum(1) - token_mask(plain)[:, 0].sum(1)
  assert (count >= 0).all() and count.any()


def test_viterbi_is_the_best_walk_of_each_length():
  call, states, mask = compiled(Dag(heads=2), 6, (7, 5))
  likeliest, log_prob = jax.device_get(call("likeliest", states))
  links = np.asarray(call("links", states, mask))
  for penalty, b in itertools.product((0.0, 1.0, 3.0), range(2)):
    size = (7, 5)[b]
    tokens, score = call("viterbi", states, mask, length_penalty=penalty)
    found = []
    for n in range(size - 1):
      for walk in itertools.combinations(range(1, size - 1), n):
        steps = itertools.pairwise((0, *walk, size - 1))
        value = sum(links[b, i, j] for i, j in steps)
        value += sum(log_prob[b, j] for j in walk)
        words_ = (*(int(likeliest[b, j]) for j in walk), EOS)
        found.append((value / (n + 1) ** penalty, value, words_))
    _, value, string = max(found)
    assert tuple(tokens[b, tokens[b] > PAD].tolist()) == string
    np.testing.assert_allclose(score[b], value, rtol=1e-5)


@pytest.mark.parametrize("weight", [None, 0.7])
def test_walks_follow_the_best_link(weight):
  call, states, mask = compiled(Dag(heads=2), 6, (9, 6))
  if weight is None:
    tokens, score = call("best", states, mask)
  else:
    tokens, score = call("lookahead", states, mask, weight=weight)
  likeliest, log_prob = jax.device_get(call("likeliest", states))
  links = np.asarray(call("links", states, mask))
  for b, size in enumerate((9, 6)):
    here, string, total = 0, [], 0.0
    while here < size - 1:
      ahead = log_prob[b] * (np.arange(len(log_prob[b])) < size - 1)
      chosen = int(np.argmax(links[b, here] + (weight or 0) * ahead))
      total += links[b, here, chosen] + ahead[chosen]
      here = chosen
      string.append(int(likeliest[b, here]) if here < size - 1 else EOS)
    assert tokens[b, tokens[b] > PAD].tolist() == string
    np.testing.assert_allclose(score[b], total, rtol=1e-5)


def test_links_are_distributions_over_later_vertices():
  call, states, mask = compiled(Dag(heads=4), 6, (9, 6))
  links = np.exp(call("links", states, mask))
  assert not np.tril(links).any()
  np.testing.assert_allclose(links[0, :-1].sum(1), 1, rtol=1e-5)
  np.testing.assert_allclose(links[1, :5].sum(1), 1, rtol=1e-5)
  assert not links[1, 5:].any() and not links[1, :, 6:].any()


@pytest.mark.parametrize(
  "output", [Factorised(), Ctc(), Dag()], ids=["factorised", "ctc", "dag"]
)
def test_a_low_temperature_draws_what_is_likeliest(output):
  call, states, mask = compiled(output, 9, (6, 4))
  drawn, _ = call("sample", KEY, states, mask, temperature=1e-3)
  np.testing.assert_array_equal(drawn, call("best", states, mask)[0])


# The vocabulary, in parts.


@pytest.fixture
def parts(monkeypatch):
  monkeypatch.setattr(embeddings, "VOCAB_CHUNK", 4)
  monkeypatch.setattr(embeddings, "_FEW_LOGITS", 1)


@pytest.mark.usefixtures("parts")
def test_words_in_parts_are_those_of_one_softmax():
  states = jax.random.normal(KEY, (2, 3, 8))
  table = jax.random.normal(jax.random.key(1), (11, 8))
  logits = jnp.einsum("bud,vd->buv", states, table).at[..., :2].set(-jnp.inf)
  normaliser = jax.nn.logsumexp(logits, axis=-1)
  token, logit, found = words.likeliest(states, table)
  np.testing.assert_array_equal(token, logits.argmax(-1))
  np.testing.assert_allclose(logit, logits.max(-1), rtol=1e-5)
  np.testing.assert_allclose(found, normaliser, rtol=1e-5)
  tokens, best, found = words.top(states, table, 5)
  values, index = lax.top_k(logits, 5)
  np.testing.assert_array_equal(tokens, index)
  np.testing.assert_allclose(best, values, rtol=1e-5)
  np.testing.assert_allclose(found, normaliser, rtol=1e-5)

  def ours(states, table):
    return jnp.sum(jnp.sin(words.log_normaliser(states, table)))

  def plain(states, table):
    logits = jnp.einsum("bud,vd->buv", states, table[2:])
    return jnp.sum(jnp.sin(jax.nn.logsumexp(logits, axis=-1)))

  chex.assert_trees_all_close(
    *(jax.value_and_grad(f, (0, 1))(states, table) for f in (ours, plain)),
    rtol=1e-4,
    atol=1e-5,
  )


@pytest.mark.usefixtures("parts")
def test_words_in_parts_are_drawn_with_their_probabilities():
  states = jax.random.normal(KEY, (1, 2, 8))
  table = jax.random.normal(jax.random.key(1), (11, 8))
  logits = jnp.einsum("bud,vd->buv", states, table)[..., 2:] / 0.5
  keys = jax.random.split(KEY, 4000)[:, None]
  draw = jax.vmap(lambda keys: words.draw(keys, states, table, 0.5))
  tokens, logit, normaliser = jax.jit(draw)(keys)
  np.testing.assert_allclose(
    normaliser[0], jax.nn.logsumexp(logits, axis=-1), rtol=1e-5
  )
  probs = jax.nn.softmax(logits)[0]
  for u in range(2):
    share = np.bincount(np.asarray(tokens[:, 0, u]), minlength=11)[2:] / 4000
    error = np.sqrt(probs[u] * (1 - probs[u]) / 4000)
    assert (np.abs(share - probs[u]) < 5 * error + 1e-3).all()
    own = logits[0, u, tokens[:, 0, u] - 2]
    np.testing.assert_allclose(logit[:, 0, u], own, rtol=1e-4, atol=1e-4)


# What is kept, and dtypes.


@pytest.mark.parametrize("name", ["factorised", "ctc", "dag"])
def test_no_logits_and_no_sums_over_paths_are_kept(name):
  batch, size, positions, vocab = 3, 6, 20, 2 * embeddings.VOCAB_CHUNK
  positions = size if name == "factorised" else positions
  head = Head(OUTPUTS[name], vocab, width=16)
  states = jax.ShapeDtypeStruct((batch, positions, 16), jnp.float32)
  y = jax.ShapeDtypeStruct((batch, size), jnp.int32)
  mask = jax.ShapeDtypeStruct((batch, positions), bool)
  init = functools.partial(head.init, KEY, "log_prob")
  params = jax.eval_shape(init, states, y, mask)

  def loss(params, states, y, mask):
    return jnp.sum(head.apply(params, "log_prob", states, y, mask).log_prob)

  gradient = jax.make_jaxpr(jax.grad(loss, (0, 1)))(params, states, y, mask)
  made = {math.prod(shape): shape for shape in shapes(gradient.jaxpr)}
  # The table's own gradient is the largest array there is, or a part's logits.
  part = batch * positions * embeddings.VOCAB_CHUNK
  table = vocab * 16
  assert not [n for n in made if n > max(part, table)], made
  assert math.prod((batch, size, positions, positions)) not in made
  assert math.prod((batch, positions, vocab)) not in made


@pytest.mark.parametrize("name", ["factorised", "ctc", "dag"])
def test_in_bfloat16_nats_are_still_float32_and_sum_to_one(name):
  positions = 2 if name == "factorised" else 4
  output = OUTPUTS[name]
  if name != "factorised":
    output = output.clone(escape=1e-5)  # little is beyond these strings
  call, states, mask = compiled(
    output, 4, (positions, positions), dtype="bfloat16"
  )
  strings = [(2,), (3,)]
  if name != "factorised":
    most = 3 if name == "dag" else 5
    strings = [
      s for n in range(most) for s in itertools.product((2, 3), repeat=n)
    ]
  y = padded(strings)[:, None]
  evaluate = jax.vmap(lambda y: call("log_prob", states[:1], y, mask[:1]))
  found = jax.jit(evaluate)(y)
  chex.assert_type([found.log_prob, found.unmixed], jnp.float32)
  total = np.exp(found.log_prob).sum()
  np.testing.assert_allclose(total, 1, atol=2e-4)
