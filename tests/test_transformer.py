import dataclasses

import chex
import jax
from jax import flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from latentnmt import config as cfg
from latentnmt import transformer
from latentnmt.masks import length_mask
from latentnmt.testing import perturb
from latentnmt.types import Source

CONFIG = cfg.TransformerConfig(11, width=16, hidden=24, heads=2)
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def decoder():
  """A causal stack of two layers, its parameters, input and source."""
  stack = transformer.DecoderStack(CONFIG, 2, causal=True)
  x = jax.random.normal(KEY, (3, 5, 16))
  mask = length_mask(jnp.array([5, 3, 0]), 5)
  source = Source(
    jax.random.normal(KEY, (3, 4, 16)), length_mask(jnp.array([4, 2, 0]), 4)
  )

  def call(module, x, mask, source):
    return module(x, mask, module.precompute(source))

  params = stack.init(KEY, x, mask, source, method=call)
  return stack, perturb(params, KEY), call, x, mask, source


def attention_oracle(params, x, source, mask):
  """Multi-head attention of one sentence, written out in numpy."""
  query, key, value = (
    np.einsum("td,dhk->thk", states, params[name]["kernel"])
    for name, states in (("query", x), ("key", source), ("value", source))
  )
  logits = np.einsum("thk,shk->hts", query, key) / np.sqrt(query.shape[-1])
  weights = special.softmax(np.where(mask, logits, -np.inf), axis=-1)
  heads = np.einsum("hts,shk->thk", weights, value)
  return np.einsum("thk,hkd->td", heads, params["out"]["kernel"])


def test_attention_is_the_formula():
  module = transformer.Attention(CONFIG)
  x = jax.random.normal(KEY, (2, 3, 16))
  source = jax.random.normal(jax.random.key(1), (2, 4, 16))
  mask = jnp.array([[[True, True, False, True]], [[True, True, True, True]]])

  def call(module, x, source, mask):
    return module(x, *module.keys_values(source), mask)

  params = module.init(KEY, x, source, mask, method=call)
  out = module.apply(params, x, source, mask, method=call)
  for b in range(2):
    expected = attention_oracle(params["params"], x[b], source[b], mask[b])
    np.testing.assert_allclose(out[b], expected, rtol=1e-4, atol=1e-5)


def test_padding_and_future_are_invisible(decoder):
  stack, params, call, x, mask, source = decoder
  out = stack.apply(params, x, mask, source, method=call)
  garbage = jnp.where(mask[..., None], x, 9.0)
  states = jnp.where(source.mask[..., None], source.states, -9.0)
  other = stack.apply(
    params, garbage, mask, Source(states, source.mask), method=call
  )
  np.testing.assert_allclose(other[mask], out[mask], rtol=1e-5, atol=1e-5)
  later = x.at[:, 3:].set(7.0)
  other = stack.apply(params, later, mask, source, method=call)
  np.testing.assert_allclose(other[:2, :3], out[:2, :3], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("changes", [{"scan_layers": False}, {"remat": True}])
def test_how_layers_are_run_changes_nothing(decoder, changes):
  stack, params, call, x, mask, source = decoder
  config = dataclasses.replace(CONFIG, **changes)
  other = transformer.DecoderStack(config, 2, causal=True)

  def loss(stack):
    def value(params):
      out = stack.apply(params, x, mask, source, method=call)
      return jnp.sum(jnp.where(mask[..., None], jnp.square(out), 0))

    return jax.value_and_grad(value)(params)

  chex.assert_trees_all_close(loss(other), loss(stack), rtol=1e-3, atol=1e-4)


def test_products_of_rounded_numbers(decoder):
  """About the same, of the same parameters and with gradients like them."""
  stack, params, call, x, mask, source = decoder
  config = dataclasses.replace(CONFIG, matmul_dtype="bfloat16")
  other = transformer.DecoderStack(config, 2, causal=True)
  weight = jax.random.normal(jax.random.key(3), x.shape) * mask[..., None]

  def computed(stack):
    def value(params):
      out = stack.apply(params, x, mask, source, method=call)
      return jnp.sum(weight * out), out * mask[..., None]

    gradient, out = jax.grad(value, has_aux=True)(params)
    return out, gradient

  def norm(tree):
    return np.linalg.norm(flatten_util.ravel_pytree(tree)[0])

  exact, rounded = computed(stack), computed(other)
  chex.assert_trees_all_equal_shapes_and_dtypes(rounded, exact)
  for found, expected in zip(rounded, exact, strict=True):
    difference = jax.tree.map(jnp.subtract, found, expected)
    error = norm(difference) / norm(expected)
    assert 1e-4 < error < 0.02


@pytest.mark.parametrize("rounded", [False, True])
def test_cached_steps_are_the_full_pass(decoder, rounded):
  stack, params, call, x, mask, source = decoder
  if rounded:
    config = dataclasses.replace(CONFIG, matmul_dtype="bfloat16")
    stack = transformer.DecoderStack(config, 2, causal=True)
  expected = stack.apply(params, x, mask, source, method=call)
  cache = stack.apply(params, source, method="precompute")
  # Two hypotheses a sentence: the second is the first, one step behind in
  # which slot it used, as after a re-ordered beam.
  context, caches = stack.apply(params, cache, 5, 2, method="start")
  chex.assert_type(jax.tree.leaves(caches), np.uint16 if rounded else float)
  # Kernels rounded in either, but sums of attention in another order.
  near = 0.03 if rounded else 1e-4
  owner = np.array([[0, 1, 0, 1, 0], [1, 0, 1, 0, 1]])  # [N, T]
  for t in range(5):
    slots = owner[:, :, None] == np.arange(2)[None, None]
    history = slots & (np.arange(5) <= t)[None, :, None]
    history[:, t] = np.eye(2, dtype=bool)
    history = jnp.broadcast_to(history, (3, *history.shape))
    step = jnp.stack([x[:, t], x[:, t]], axis=1)
    out, caches = stack.apply(
      params, step, t, caches, history, context, method="step"
    )
    for n in range(2):
      np.testing.assert_allclose(
        out[:2, n][mask[:2, t]],
        expected[:2, t][mask[:2, t]],
        rtol=near,
        atol=near,
      )


def test_dropout_needs_an_rng_and_is_shared_along_the_length():
  module = transformer.Dropout(0.5, shared=(-2,))
  x = jnp.ones((2, 6, 8))
  np.testing.assert_array_equal(module.apply({}, x), x)
  dropped = module.apply({}, x, rngs={"dropout": KEY})
  assert set(np.unique(dropped)) == {0.0, 2.0}
  assert (dropped == dropped[:, :1]).all()


def test_dropout_of_its_own_for_every_number():
  module = transformer.Dropout(0.25)
  x = jnp.ones((8, 16, 37))  # no multiple of four
  np.testing.assert_array_equal(module.apply({}, x), x)
  dropped = module.apply({}, x, rngs={"dropout": KEY})
  np.testing.assert_allclose(np.unique(dropped), [0, 4 / 3], rtol=1e-6)
  # Everywhere alike: over sentences, positions and channels.
  for axis in range(3):
    others = tuple({0, 1, 2} - {axis})
    share = (dropped == 0).mean(axis=others)
    spread = (0.25 * 0.75 / (x.size / x.shape[axis])) ** 0.5
    assert abs(share - 0.25).max() < 4.5 * spread
  # And without relation between neighbours, in a word of noise or not.
  for axis in range(3):
    pairs = np.moveaxis(np.asarray(dropped == 0), axis, 0)
    both = (pairs[1:] & pairs[:-1]).mean()
    assert abs(both - 0.25**2) < 4.5 * (0.25**2 / x.size) ** 0.5


@pytest.mark.parametrize("shared", [True, False])
def test_a_stack_draws_dropout_that_sentences_share_or_do_not(shared):
  config = dataclasses.replace(
    CONFIG, attention_dropout=0.0, shared_dropout=shared
  )
  stack = transformer.EncoderStack(config, 1)
  x, mask = jnp.ones((2, 4, config.width)), jnp.ones((2, 4), bool)
  params = stack.init(KEY, x, mask)
  out = stack.apply(params, x, mask, rngs={"dropout": KEY})
  assert np.isclose(out, out[:, :1], atol=1e-6).all() == shared


def test_weight_norm_starts_at_zero_and_ignores_the_kernels_length():
  module = transformer.WeightNormDense(3)
  x = jax.random.normal(KEY, (2, 5))
  params = module.init(KEY, x)
  assert not np.asarray(module.apply(params, x)).any()
  params = perturb(params, KEY)
  out = module.apply(params, x)
  params["params"]["Dense_0"]["kernel"] *= 7.0
  np.testing.assert_allclose(module.apply(params, x), out, rtol=1e-5)
