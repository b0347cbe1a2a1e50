import dataclasses
import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from latentnmt import config as cfg
from latentnmt import models, testing
from latentnmt.decode import Beam, Delta, Greedy, Sample
from latentnmt.errors import InputError
from latentnmt.masks import length_mask
from latentnmt.priors import StandardNormalPrior
from latentnmt.types import EOS, Batch, Source

KEY = jax.random.key(0)
TRANSFORMER = cfg.TransformerConfig(6, width=16, hidden=24, heads=2)
AUTOREGRESSIVE = cfg.AutoregressiveConfig(TRANSFORMER, 1, 1)
GAUSS = cfg.LatentConfig(
  TRANSFORMER, 1, 1, 1, channels=3, prior=cfg.GaussianPriorConfig(1)
)
NORMAL = dataclasses.replace(
  GAUSS, prior=cfg.StandardNormalPriorConfig(), length_multiple=4
)
CONFIGS = dict(autoregressive=AUTOREGRESSIVE, gauss=GAUSS, normal=NORMAL)


@functools.cache
def built(name: str):
  """A model with perturbed parameters, and its jitted `apply`."""
  model = models.build(CONFIGS[name])
  batch = testing.random_batch(KEY, vocab_size=6)
  init = jax.jit(model.init, static_argnames="train")
  params = testing.perturb(init(KEY, batch, KEY)["params"], KEY, 0.2)
  variables = {"params": params}
  apply = jax.jit(model.apply, static_argnames=("method", "train", "tails"))
  return model, variables, functools.partial(apply, variables)


def start(name: str, x, length: int, hypotheses: int):
  model, variables, _ = built(name)
  return model.apply(variables, x, length, hypotheses, method="start")


@pytest.mark.parametrize("name", CONFIGS)
def test_a_model_says_what_it_is(name):
  model, *_ = built(name)
  assert model.exact == (name == "autoregressive")
  first = (Greedy, Beam) if model.exact else (Delta,)
  assert model.methods == (*first, Sample)
  assert model.config is CONFIGS[name]


def test_nothing_is_computed_to_count_parameters():
  config = dataclasses.replace(TRANSFORMER, vocab_size=10**6, width=1 << 14)
  huge = dataclasses.replace(AUTOREGRESSIVE, transformer=config)
  assert models.num_parameters(huge) > 16e9
  _, variables, _ = built("gauss")
  shapes = models.abstract_params(models.build(GAUSS))
  chex.assert_trees_all_equal_shapes_and_dtypes(variables["params"], shapes)
  count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
  assert models.num_parameters(GAUSS) == count


@pytest.mark.parametrize("name", CONFIGS)
def test_terms_of_a_row_do_not_depend_on_its_batch(name):
  *_, apply = built(name)
  x = jnp.array([[4, 5, 1, 0, 0], [3, 1, 0, 0, 0], [0, 0, 0, 0, 0]])
  y = jnp.array([[5, 1, 0, 0], [2, 3, 4, 1], [0, 0, 0, 0]])
  terms = apply(Batch(x, y), KEY)
  # The noise of a row depends on where it stands: compare the first row, and
  # everything without noise for the second.
  alone = apply(Batch(x[:1], y[:1]), KEY)
  for name, value in vars(alone).items():
    np.testing.assert_allclose(
      value[0], getattr(terms, name)[0], rtol=1e-4, atol=1e-4, err_msg=name
    )
  shorter = apply(Batch(x[1:2, :2], y[1:2]), KEY)
  for name in ("kl_standard", "log_pl", "num_tokens", "num_positions"):
    np.testing.assert_allclose(
      getattr(shorter, name)[0], getattr(terms, name)[1], rtol=1e-4, atol=1e-5
    )
  for name, value in vars(terms).items():
    chex.assert_shape(value, (3,))
    chex.assert_type(value, jnp.float32)
    assert value[2] == 0, f"{name} of an empty row"


def test_autoregressive_sums_to_one():
  """Over all strings up to length 3, plus all prefixes without an end."""
  *_, apply = built("autoregressive")
  tokens = [t for t in range(6) if t != EOS]
  ended, open_ = [], []
  for size in range(3):
    for prefix in itertools.product(tokens, repeat=size):
      ended.append([*prefix, EOS])
  for prefix in itertools.product(tokens, repeat=3):
    open_.append(list(prefix))

  # PAD as a token cannot be scored (it hides itself); its share is what the
  # step distributions leave, so sum those without it.
  def log_prob(sentences):
    y = jnp.array([s + [0] * (3 - len(s)) for s in sentences])
    x = jnp.broadcast_to(jnp.array([[4, 5, 1]]), (len(sentences), 3))
    return np.asarray(apply(Batch(x, y), KEY).log_py)

  ended = [s for s in ended if 0 not in s]
  open_ = [s for s in open_ if 0 not in s]
  total = np.exp(log_prob(ended)).sum() + np.exp(log_prob(open_)).sum()
  assert total < 1
  assert total + _mass_of_pad(apply) == pytest.approx(1, abs=1e-4)


def _mass_of_pad(apply) -> float:
  """Probability that one of the first three tokens is PAD."""
  x = jnp.array([[4, 5, 1]])
  context, cache = start("autoregressive", x, 3, 1)
  others = [t for t in range(2, 6)]
  mass, prefixes = 0.0, [((), 0.0, cache)]
  for t in range(3):
    longer = []
    for prefix, log_prob, cache in prefixes:
      history = (jnp.arange(3) <= t)[None, None, :, None]
      last = jnp.array([[prefix[-1] if prefix else 0]])
      logits, after = apply(last, t, cache, history, context, method="step")
      log_probs = np.asarray(jax.nn.log_softmax(logits))[0, 0]
      mass += np.exp(log_prob + log_probs[0])
      longer += [((*prefix, o), log_prob + log_probs[o], after) for o in others]
    prefixes = longer
  return mass


def test_start_needs_static_sizes_and_steps_equal_teacher_forcing():
  *_, apply = built("autoregressive")
  x, y = jnp.array([[4, 5, 1]]), jnp.array([[3, 2, 1]])
  context, cache = start("autoregressive", x, 3, 1)
  total = 0.0
  for t, (before, token) in enumerate([(0, 3), (3, 2), (2, 1)]):
    history = (jnp.arange(3) <= t)[None, None, :, None]
    logits, cache = apply(
      jnp.array([[before]]), t, cache, history, context, method="step"
    )
    total += jax.nn.log_softmax(logits)[0, 0, token]
  expected = apply(Batch(x, y), KEY).log_py[0]
  np.testing.assert_allclose(total, expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["gauss", "normal"])
def test_what_is_precomputed_changes_nothing(name):
  *_, apply = built(name)
  batch = testing.random_batch(jax.random.key(3), vocab_size=6)
  source = apply(batch.x, method="encode")
  y, mask = apply(batch.y, method="targets")
  precomputed = apply(batch.x, method="precompute")
  z = jax.random.normal(KEY, (*mask.shape, 3))
  for method, *args in (
    ("posterior", y, mask),
    ("log_joint", z, y, mask),
    ("center", mask),
    ("sample", KEY, mask),
  ):
    chex.assert_trees_all_close(
      apply(*args, precomputed, method=method),
      apply(*args, source, method=method),
      rtol=1e-5,
    )


@pytest.mark.parametrize("name", ["gauss", "normal"])
def test_terms_are_the_densities_scipy_knows(name):
  *_, apply = built(name)
  batch = testing.random_batch(jax.random.key(3), vocab_size=6)
  terms = apply(batch, KEY)
  source = apply(batch.x, method="encode")
  y, mask = apply(batch.y, method="targets")
  mean, scale = apply(y, mask, source, method="posterior")
  z = mean + scale * jax.random.normal(KEY, mean.shape)
  logits = apply(z, mask, source, method="decode")
  real = np.asarray(mask)[..., None]

  log_qz = (stats.norm(mean, scale).logpdf(z) * real).sum((1, 2))
  np.testing.assert_allclose(terms.log_qz, log_qz, rtol=1e-4)
  log_probs = np.asarray(jax.nn.log_softmax(logits))
  own = np.take_along_axis(log_probs, np.asarray(y)[..., None], -1)
  np.testing.assert_allclose(terms.log_py, (own * real).sum((1, 2)), rtol=1e-4)
  np.testing.assert_allclose(
    terms.log_py_uniform, (log_probs.mean(-1) * real[..., 0]).sum(1), rtol=1e-4
  )
  log_py, log_pz = apply(z, y, mask, source, method="log_joint")
  np.testing.assert_allclose(terms.log_py, log_py, rtol=1e-5)
  np.testing.assert_allclose(terms.log_pz, log_pz, rtol=1e-5)
  standard = StandardNormalPrior(3).apply({}, mean, scale, mask, source,
                                          method="kl")  # fmt: skip
  np.testing.assert_allclose(terms.kl_standard, standard, rtol=1e-5)


def test_appended_eos_count_as_positions_and_not_as_tokens():
  *_, apply = built("normal")
  batch = Batch(jnp.array([[3, 1]]), jnp.array([[2, 3, 4, 5, 1]]))
  terms = apply(batch, KEY)
  assert terms.num_tokens[0] == 5 and terms.num_positions[0] == 8


@pytest.mark.parametrize(
  "bound, multiple",
  [(30, 1), (30, 2), (30, 4), (1, 1), (2, 2), (4, 4), (5, 4)],
)
@pytest.mark.parametrize("size", [1, 5, 6, 40])
def test_length_probabilities_sum_to_one(bound, multiple, size):
  predictor = models.LengthPredictor(8, bound, multiple, gradient=False)
  source = Source(
    jax.random.normal(KEY, (1, 40, 8)), length_mask(jnp.array([size]), 40)
  )
  params = testing.perturb(predictor.init(KEY, source), KEY, 0.3)
  lengths = multiple * jnp.arange(1, 400 // multiple)

  def log_prob(length):
    return predictor.apply(
      params, length[None], source, True, method="log_prob"
    )

  log_probs = np.asarray(jax.jit(jax.vmap(log_prob))(lengths))
  assert np.isfinite(log_probs).all()
  assert np.exp(log_probs).sum() == pytest.approx(1, abs=1e-4)
  best, log_prob_best = predictor.apply(params, source, 2, method="best")
  assert best[0, 0] % multiple == 0 and best[0, 0] >= 1
  index = np.flatnonzero(np.asarray(lengths) == int(best[0, 0]))[0]
  # An end class shares its mass with its tail.
  assert log_probs[index, 0] <= log_prob_best[0, 0] + 1e-5


def test_length_loss_stops_at_the_encoder_unless_asked():
  batch = testing.random_batch(KEY, vocab_size=6)

  def encoder_gradient(config):
    model = models.build(config)
    params = jax.jit(model.init)(KEY, batch, KEY)["params"]

    def loss(params):
      terms = model.apply({"params": params}, batch, KEY)
      return jnp.sum(terms.log_pl)

    gradient = jax.jit(jax.grad(loss))(params)["encoder"]
    return max(float(jnp.abs(g).max()) for g in jax.tree.leaves(gradient))

  assert encoder_gradient(GAUSS) == 0
  assert encoder_gradient(dataclasses.replace(GAUSS, length_gradient=True)) > 0


def test_dropout_without_training_is_refused():
  model, *_ = built("gauss")
  batch = testing.random_batch(KEY, vocab_size=6)
  with pytest.raises(ValueError, match="train=True"):
    model.init({"params": KEY, "dropout": KEY}, batch, KEY)


def test_training_draws_dropout():
  *_, apply = built("gauss")
  batch = testing.random_batch(KEY, vocab_size=6)
  calm = apply(batch, KEY)
  train = apply(batch, KEY, train=True, rngs={"dropout": KEY})
  assert (calm.log_py != train.log_py).all() and (calm.kl != train.kl).all()


def test_a_prior_can_be_passed_in():
  model = models.LatentTransformer(GAUSS, prior=StandardNormalPrior(3))
  batch = testing.random_batch(KEY, vocab_size=6)
  variables = jax.jit(model.init)(KEY, batch, KEY)
  assert "prior" not in variables["params"]
  bound = model.bind(variables)
  source = bound.encode(batch.x)
  y, mask = bound.targets(batch.y)
  z = jnp.zeros((*mask.shape, 3))
  expected = 3 * stats.norm.logpdf(0) * np.asarray(mask).sum(1)
  np.testing.assert_allclose(
    bound.prior.log_prob(z, mask, source), expected, rtol=1e-5
  )


def test_a_prior_of_other_channels_is_refused():
  with pytest.raises(InputError, match="channels=4 .* channels=3"):
    models.LatentTransformer(GAUSS, prior=StandardNormalPrior(4))


@pytest.mark.parametrize("bound, multiple", [(1, 2), (3, 4), (5, 6)])
def test_one_target_length_alone_is_no_choice(bound, multiple):
  config = dataclasses.replace(
    GAUSS, max_length_difference=bound, length_multiple=multiple
  )
  with pytest.raises(InputError, match=f"set it to {multiple} or more"):
    models.build(config)
  config = dataclasses.replace(config, max_length_difference=multiple)
  assert models.build(config).most_lengths >= 2


def test_bfloat16_stays_close_and_its_nats_are_float32():
  transformer = dataclasses.replace(TRANSFORMER, dtype="bfloat16")
  model = models.build(dataclasses.replace(GAUSS, transformer=transformer))
  exact, *_ = built("gauss")
  batch = testing.random_batch(KEY, vocab_size=6)
  params = jax.jit(exact.init)(KEY, batch, KEY)["params"]
  assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"float32"}
  terms = jax.jit(model.apply)({"params": params}, batch, KEY)
  expected = jax.jit(exact.apply)({"params": params}, batch, KEY)
  assert terms.log_py.dtype == jnp.float32
  np.testing.assert_allclose(terms.log_py, expected.log_py, rtol=0.05)


@pytest.mark.parametrize("gain", [0.0, 2.0])
def test_the_gain_is_what_the_posterior_tells_at_the_start(gain):
  model = models.build(dataclasses.replace(GAUSS, posterior_gain=gain))
  batch = testing.random_batch(KEY, vocab_size=6, rows=32, length=8)
  params = jax.jit(model.init)(KEY, batch, KEY)["params"]
  bound = model.bind({"params": params})
  mean, scale = bound.posterior(*bound.targets(batch.y), bound.encode(batch.x))
  np.testing.assert_array_equal(scale, 1.0)
  assert float(jnp.std(mean)) == pytest.approx(gain, rel=0.3)


@pytest.mark.parametrize(
  "config", [*CONFIGS.values(), dataclasses.replace(GAUSS, posterior_gain=2.0)]
)
def test_training_reaches_every_parameter(config):
  model = models.build(config)
  batch = testing.random_batch(KEY, vocab_size=6, rows=8)

  def loss(params):
    terms = model.apply({"params": params}, batch, KEY)
    return jnp.mean(terms.kl - terms.log_py - terms.log_pl)

  params = jax.jit(model.init)(KEY, batch, KEY)["params"]
  testing.check_start(loss, params, KEY)
