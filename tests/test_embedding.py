import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
from jaxprs import equations
import numpy as np
import pytest
from scipy import special

from latentnmt import config as cfg
from latentnmt import embedding as embeddings
from latentnmt.embedding import Embedding, log_normaliser

CONFIG = cfg.TransformerConfig(11, width=16, hidden=24, heads=2)
KEY = jax.random.key(0)


def test_log_probs_are_the_log_softmax():
  embedding = Embedding(CONFIG)
  states = jax.random.normal(KEY, (2, 3, 16))
  tokens = jnp.array([[1, 5, 10], [3, 0, 2]])
  params = embedding.init(KEY, states, tokens, method="log_probs")
  logits = embedding.apply(params, states, method="logits")
  log_softmax = special.log_softmax(np.asarray(logits), axis=-1)
  own, mean = embedding.apply(params, states, tokens, method="log_probs")
  expected = np.take_along_axis(log_softmax, tokens[..., None], -1)[..., 0]
  np.testing.assert_allclose(own, expected, rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(mean, log_softmax.mean(-1), rtol=1e-5, atol=1e-5)


@pytest.fixture(params=[4, 64])
def part(request, monkeypatch):
  """Logits by parts, of which the last is not full, and all at once."""
  monkeypatch.setattr(embeddings, "VOCAB_CHUNK", request.param)
  monkeypatch.setattr(embeddings, "_FEW_LOGITS", 1)


@pytest.mark.usefixtures("part")
def test_the_likeliest_token_is_the_first_of_the_largest_logits():
  embedding = Embedding(CONFIG)
  states = jax.random.normal(KEY, (2, 30, 16))
  params = embedding.init(KEY, states, method="logits")
  table = params["params"]["table"]
  table = table.at[7].set(table[2]).at[0].set(2 * table[3])
  params = {"params": {"table": table}}
  logits = np.array(embedding.apply(params, states, method="logits"))
  log_softmax = special.log_softmax(logits, axis=-1)
  token, log_prob = embedding.apply(params, states, method="likeliest")
  logits[..., 0] = -np.inf
  np.testing.assert_array_equal(token, logits.argmax(-1))
  assert {2, 3} <= set(np.unique(token))
  best = np.take_along_axis(log_softmax, logits.argmax(-1)[..., None], -1)
  np.testing.assert_allclose(log_prob, best[..., 0], rtol=1e-5, atol=1e-5)


def test_logits_of_a_whole_vocabulary_are_kept_once_and_for_gradients_alone():
  vocab = 2 * embeddings.VOCAB_CHUNK
  embedding = Embedding(dataclasses.replace(CONFIG, vocab_size=vocab))
  states, tokens = jnp.ones((2, 20, 16)), jnp.ones((2, 20), jnp.int32)
  init = functools.partial(embedding.init, method="log_probs")
  params = jax.eval_shape(init, KEY, states, tokens)

  def loss(params, states):
    return embedding.apply(params, states, tokens, method="log_probs")[0].sum()

  def whole(function):
    """What makes an array as large as all logits, calls of functions apart."""
    jaxpr = jax.make_jaxpr(function)(params, states).jaxpr
    return [
      equation.primitive.name
      for equation in equations(jaxpr)
      for made in equation.outvars
      if made.aval.size >= 2 * 20 * vocab and equation.primitive.name != "jit"
    ]

  assert not whole(loss)
  gradient = whole(jax.grad(loss, argnums=(0, 1)))
  # The scan that makes them, part by part.
  assert gradient == ["scan"]


@pytest.mark.usefixtures("part")
def test_the_normalisers_gradient_is_autodiffs():
  states = jax.random.normal(KEY, (2, 3, 16))
  table = jax.random.normal(jax.random.key(1), (11, 16))
  weight = jax.random.normal(jax.random.key(2), (2, 3))

  def ours(states, table):
    return jnp.sum(weight * log_normaliser(states, table))

  def plain(states, table):
    logits = jnp.einsum("btd,vd->btv", states, table)
    return jnp.sum(weight * jax.nn.logsumexp(logits, axis=-1))

  chex.assert_trees_all_close(
    jax.value_and_grad(ours, argnums=(0, 1))(states, table),
    jax.value_and_grad(plain, argnums=(0, 1))(states, table),
    rtol=1e-4,
    atol=1e-5,
  )


def test_padding_embeds_to_zero():
  embedding = Embedding(CONFIG)
  tokens = jnp.array([[4, 0]])
  params = embedding.init(KEY, tokens)
  rows = embedding.apply(params, tokens)
  table = params["params"]["table"]
  np.testing.assert_allclose(rows[0, 0], 4 * table[4], rtol=1e-6)
  assert not np.asarray(rows[0, 1]).any()


@pytest.mark.parametrize("name", ["dtype", "matmul_dtype"])
def test_in_bfloat16_probabilities_still_sum_to_one(name):
  config = dataclasses.replace(CONFIG, vocab_size=50, **{name: "bfloat16"})
  embedding = Embedding(config)
  states = 3 * jax.random.normal(KEY, (1, 20, 16), config.dtype)
  every = jnp.broadcast_to(jnp.arange(50)[:, None, None], (50, 1, 20))
  params = embedding.init(KEY, every[0])

  def log_probs(tokens):
    return embedding.apply(params, states, tokens, method="log_probs")

  own, mean = jax.jit(jax.vmap(log_probs))(every)  # [V, 1, T]
  chex.assert_shape([own, mean], [(50, 1, 20)] * 2)
  chex.assert_type([own, mean], jnp.float32)
  np.testing.assert_allclose(jnp.exp(own).sum(0), 1, atol=1e-5)
  np.testing.assert_allclose(own.mean(0), mean[0], rtol=1e-5)
