"""Models of one pass, exact or with latents on source positions."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latentnmt import config as cfg
from latentnmt import models, testing, zoo
from latentnmt.errors import InputError
from latentnmt.masks import lengths, token_mask
from latentnmt.models import glancing
from latentnmt.models.upsample import Upsample
from latentnmt.outputs import Factorised
from latentnmt.types import EOS, PAD, Batch, Source

KEY = jax.random.key(0)
TRANSFORMER = cfg.TransformerConfig(6, width=16, hidden=24, heads=2)
CTC, DAG = cfg.CtcConfig(), cfg.DagConfig(heads=2)
ONE_PASS = cfg.OnePassConfig(TRANSFORMER, 1, 1, CTC)
LATENT = cfg.SourceLatentConfig(
  TRANSFORMER, 1, 1, 1, CTC, channels=4, prior=cfg.GaussianPriorConfig(1)
)
CONFIGS = {
  "ctc": ONE_PASS,
  "dag": dataclasses.replace(ONE_PASS, output=DAG),
  "factorised": dataclasses.replace(ONE_PASS, output=cfg.FactorisedConfig()),
  "ctc_gauss": LATENT,
  "dag_flow": dataclasses.replace(
    LATENT,
    output=DAG,
    prior=cfg.FlowPriorConfig((1, 1), ("c", "c"), hidden=8, heads=1),
  ),
}
X = jnp.array([[4, 5, 3, 1, 0], [3, 1, 0, 0, 0], [0, 0, 0, 0, 0]])
Y = jnp.array([[5, 4, 1, 0], [2, 3, 4, 1], [0, 0, 0, 0]])


@functools.cache
def built(name):
  """A model with perturbed parameters, and its jitted `apply`."""
  model = models.build(CONFIGS[name])
  params = jax.jit(models.init_params, static_argnums=0)(model, KEY)
  variables = {"params": testing.perturb(params, KEY, 0.2)}
  apply = jax.jit(model.apply, static_argnames=("train", "method"))
  return model, functools.partial(apply, variables)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_models_keep_the_contract(name):
  testing.check_model(models.build(CONFIGS[name]), KEY)


@pytest.mark.parametrize("name", ["ctc", "dag"])
def test_training_is_on_what_the_output_makes_without_the_escape(name):
  _, apply = built(name)
  terms, train = (apply(Batch(X, Y), KEY, train=t) for t in (False, True))
  own = np.exp(train.log_py[:2] + np.log1p(-1e-4))
  assert np.all(np.exp(terms.log_py[:2]) > own)
  np.testing.assert_allclose(np.exp(terms.log_py[:2]), own, rtol=0.1)


def test_what_a_ctc_cannot_make_is_counted():
  _, apply = built("ctc")  # two tokens have six slots
  y = jnp.array([[2] * 8 + [EOS], [2] * 3 + [EOS] + [PAD] * 5])
  terms = apply(Batch(X[1:2].repeat(2, 0), y), KEY)
  assert terms.escaped.tolist() == [1, 0]
  assert np.all(np.isfinite(terms.elbo))


def test_a_factorised_model_pays_for_the_length():
  model, apply = built("factorised")
  terms = apply(Batch(X, Y), KEY)
  assert np.all(terms.log_pl[:2] < 0) and terms.log_pl[2] == 0
  assert type(model.output) is Factorised
  np.testing.assert_allclose(terms.elbo, terms.log_py + terms.log_pl)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_a_share_of_nothing_shows_nothing(name):
  _, apply = built(name)
  found = apply(Batch(X, Y), KEY, train=True)
  shown = apply(Batch(X, Y), KEY, train=True, glancing=0.0)
  for field, value in vars(found).items():
    other = getattr(shown, field)
    np.testing.assert_allclose(other, value, rtol=1e-5, err_msg=field)
  assert np.all(
    apply(Batch(X, Y), KEY, train=True, glancing=1.0).log_py[:2]
    != found.log_py[:2]
  )


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_a_share_of_the_wrong_words_is_shown(share):
  random = np.random.default_rng(0)
  word = jnp.array(random.integers(0, 4, (50, 12)))
  guess = jnp.array(random.integers(2, 4, (50, 12)))
  shown = np.array(glancing.choose(word, guess, KEY, share))
  wrong = np.sum((word != PAD) & (guess != word), axis=1)
  assert np.array_equal((shown != PAD).sum(1), np.round(share * wrong))
  assert np.all((shown == PAD) | (shown == word))


def test_any_word_may_be_shown():
  word, guess = jnp.full((400, 5), 3), jnp.full((400, 5), 2)
  shown = np.array(glancing.choose(word, guess, KEY, 0.4)) != PAD
  assert np.all(shown.sum(axis=1) == 2)
  # Each of five places in two of five rows: within four standard errors.
  assert np.all(np.abs(shown.mean(axis=0) - 0.4) < 4 * np.sqrt(0.24 / 400))


def test_a_glimpse_is_of_aligned_words():
  model, _ = built("dag")
  states = jax.random.normal(KEY, (1, 10, 16))
  mask, y = jnp.ones((1, 10), bool), jnp.array([[3, 4, EOS]])
  batch = Batch(X, Y)
  bound = model.bind(model.init(KEY, batch, KEY))
  words = glancing.glimpse(
    bound.output, bound.embedding, states, y, mask, KEY, 1.0
  )
  index, _ = bound.output.alignment(bound.embedding, states, y, mask)
  found = np.array(words)
  here = found != PAD
  assert np.array_equal(found[here], np.array(y)[0][np.array(index)[here]])
  assert not np.any(found == EOS)


@pytest.mark.parametrize("phases", [1, 2, 3])
def test_states_are_spread_evenly(phases):
  length, positions = np.array([4, 3, 1]), np.array([9, 7, 5])
  states = jax.random.normal(KEY, (3, 4, 16))
  module = Upsample(TRANSFORMER, phases)
  found, variables = module.init_with_output(KEY, states, length, positions, 9)
  kernel = variables["params"]["maps"]["kernel"].reshape(16, phases, 16)
  for b in range(3):
    counts = dict.fromkeys(range(length[b]), 0)
    for u in range(positions[b]):
      index = u * length[b] // positions[b]
      phase = min(counts[index], phases - 1)
      counts[index] += 1
      expected = states[b, index] @ kernel[:, phase]
      np.testing.assert_allclose(found[b, u], expected, atol=1e-5)
    assert max(counts.values()) - min(counts.values()) <= 1


def test_lengths_are_drawn_by_their_probability():
  model, apply = built("factorised")
  source = apply(X[:1].repeat(4000, 0), method="precompute")
  keys = jax.random.split(KEY, 4000)
  length, log_prob = apply(keys, source, method="sample_lengths")
  values, first, counts = np.unique(
    length, return_index=True, return_counts=True
  )
  probs = np.exp(np.array(log_prob)[first])
  assert values[0] >= 1
  error = np.sqrt(probs * (1 - probs) / 4000)
  assert np.all(np.abs(counts / 4000 - probs) < 4.5 * error + 1e-3)


def test_latents_have_a_grid_of_their_own():
  model, apply = built("dag_flow")
  source = apply(X, method="precompute")
  grid = apply(token_mask(Y), source, method="latent_mask")
  assert model.prior.length_multiple == 2
  assert grid.shape == (3, 6) and lengths(grid).tolist() == [4, 2, 0]
  mean, _ = apply(Y, token_mask(Y), source, method="posterior")
  assert mean.shape == (3, 6, 4)
  terms = apply(Batch(X, Y), KEY)
  assert terms.num_positions.tolist() == [4, 2, 0]
  assert terms.num_tokens.tolist() == [3, 4, 0] and not np.any(terms.log_pl)


def test_the_posterior_reads_the_target_and_hides_padding():
  _, apply = built("ctc_gauss")
  source = apply(X, method="precompute")
  mean, scale = apply(Y, token_mask(Y), source, method="posterior")
  other, _ = apply(Y.at[0, 0].set(2), token_mask(Y), source, method="posterior")
  assert np.abs(mean[0] - other[0]).max() > 1e-4
  np.testing.assert_allclose(mean[1, :2], other[1, :2], atol=1e-5)
  assert np.all(scale > 0)
  wide = Source(
    jnp.pad(source.states, ((0, 0), (0, 3), (0, 0)), constant_values=9.0),
    jnp.pad(source.mask, ((0, 0), (0, 3))),
  )
  again, _ = apply(Y, token_mask(Y), wide, method="posterior")
  np.testing.assert_allclose(again[0, :4], mean[0, :4], atol=1e-4)


def test_what_does_not_fit_is_refused():
  with pytest.raises(InputError, match="heads=3 must divide width=16"):
    dataclasses.replace(ONE_PASS, output=cfg.DagConfig(heads=3))
  with pytest.raises(InputError, match="Factorised is of a given length"):
    models.build(dataclasses.replace(LATENT, output=cfg.FactorisedConfig()))
  with pytest.raises(InputError, match="scale=0.*above 0"):
    cfg.CtcConfig(scale=0.0)
  with pytest.raises(InputError, match="prior has channels=3 and the model"):
    prior = models.build(dataclasses.replace(LATENT, channels=3)).prior
    models.SourceLatentTransformer(LATENT, prior)


def linear(rows, columns):
  return rows * columns + columns


@pytest.mark.parametrize("size", ["tiny", "small", "base"])
def test_presets_are_transformers_with_another_end(size):
  """Against sizes written out: two stacks alike, and what an output needs."""

  def count(family):
    config = zoo.config(f"{family}_{size}", vocab_size=999)
    return models.num_parameters(config), config.transformer.width

  common, width = count("transformer")
  one = linear(width, width)
  links = 2 * linear(2 * width, width) + linear(2 * width, 4)
  classes = 2 * one + linear(width, 61)
  assert count("ctc")[0] == common + linear(width, 2 * width)
  assert count("dag")[0] == common + linear(width, 4 * width) + links
  assert count("factorised")[0] == common + one + classes
