import dataclasses

import chex
from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latentnmt import config as cfg
from latentnmt import distributions, testing
from latentnmt.bijections import ActNorm, Chain
from latentnmt.errors import InputError
from latentnmt.masks import length_mask, masked_sum
from latentnmt.models import (
  AutoregressiveTransformer,
  LatentTransformer,
  initialise_prior,
  starts_from_data,
)
from latentnmt.priors import (
  FlowPrior,
  GaussianPrior,
  StandardNormalPrior,
  build_prior,
)
from latentnmt.types import Source

KEY = jax.random.key(0)
TRANSFORMER = cfg.TransformerConfig(20, width=16, hidden=32, heads=2)

FLOW = cfg.FlowPriorConfig((1, 1), ("t", "c"), hidden=8, heads=1)


class Asinh(nn.Module):
  """A bijection of one's own."""

  length_multiple: int = 1

  def forward(self, e, mask, source):
    log_det = -0.5 * jnp.log1p(e**2)
    return jnp.arcsinh(e), masked_sum(log_det, mask)

  def inverse(self, z, mask, source):
    return jnp.sinh(z), masked_sum(jnp.log(jnp.cosh(z)), mask)


PRIORS = {
  "standard_normal": lambda: StandardNormalPrior(channels=3),
  "standard_normal_of_even_length": lambda: StandardNormalPrior(3, 2),
  "gaussian": lambda: GaussianPrior(3, 2, TRANSFORMER),
  "flow": lambda: build_prior(
    cfg.LatentConfig(TRANSFORMER, channels=4, prior=FLOW)
  ),
  "flow_of_ones_own": lambda: FlowPrior(
    Chain((Asinh(), ActNorm())), channels=3
  ),
}


@pytest.mark.parametrize("name", PRIORS)
def test_contract(name):
  testing.check_prior(PRIORS[name](), jax.random.key(1))


@pytest.mark.parametrize("name", PRIORS)
def test_without_temperature_the_centre_is_drawn(name):
  prior = PRIORS[name]()
  source = Source(jax.random.normal(KEY, (2, 3, 16)), jnp.ones((2, 3), bool))
  mask = length_mask(jnp.array([4, 2]), 4)
  z = jnp.zeros((2, 4, prior.channels))

  @jax.jit
  def draw_and_center():
    params = prior.init(KEY, z, mask, source, method="log_prob")
    bound = prior.bind(testing.perturb(params, KEY))
    draw = bound.sample(KEY, mask, source, temperature=0.0)
    return draw, bound.center(mask, source)

  np.testing.assert_allclose(*draw_and_center(), atol=1e-6)


class SeesPadding(StandardNormalPrior):
  def log_prob(self, z, mask, source):
    return jnp.sum(distributions.standard_normal_log_prob(z), axis=(1, 2))


class TooWide(StandardNormalPrior):
  def sample(self, key, mask, source, *, temperature=1.0):
    return 1.2 * super().sample(key, mask, source, temperature=temperature)


class IgnoresKey(StandardNormalPrior):
  def sample(self, key, mask, source, *, temperature=1.0):
    key = jax.random.key(0)
    return super().sample(key, mask, source, temperature=temperature)


class Unnormalised(StandardNormalPrior):
  def log_prob(self, z, mask, source):
    count = jnp.sum(mask, axis=1, dtype=jnp.float32)
    return super().log_prob(z, mask, source) + 0.5 * count


class WrongKl(StandardNormalPrior):
  def kl(self, mean, scale, mask, source):
    return 2 * super().kl(mean, scale, mask, source)


class NeverTrained(StandardNormalPrior):
  """Its mean is a product of two numbers, and both start at zero."""

  def setup(self):
    zero = nn.initializers.zeros
    self.factors = self.param("a", zero, ()), self.param("b", zero, ())

  def log_prob(self, z, mask, source):
    a, b = self.factors
    return super().log_prob(z - a * b, mask, source)


@pytest.mark.parametrize(
  "broken, message",
  [
    (SeesPadding, "padded"),
    (IgnoresKey, "ignores its key"),
    (TooWide, "agree|dimensions"),
    (Unnormalised, "integrate"),
    (WrongKl, "kl is not"),
    (NeverTrained, "'a'.* never gets a gradient"),
  ],
)
def test_the_check_catches(broken, message):
  with pytest.raises(AssertionError, match=message):
    testing.check_prior(broken(channels=3), jax.random.key(0))


class Laplace(nn.Module):
  """A prior of one's own, without a closed-form KL."""

  channels: int
  length_multiple: int = 1
  scale: float = 1.0

  def log_prob(self, z, mask, source):
    return masked_sum(-jnp.abs(z) / self.scale - jnp.log(2 * self.scale), mask)

  def sample(self, key, mask, source, *, temperature=1.0):
    noise = jax.random.laplace(key, (*mask.shape, self.channels))
    return jnp.where(mask[..., None], temperature * self.scale * noise, 0)

  def center(self, mask, source):
    return jnp.zeros((*mask.shape, self.channels))


def test_a_custom_prior_is_built_from_its_path_and_keeps_the_contract():
  config = cfg.LatentConfig(TRANSFORMER, channels=3)
  target = f"{__name__}:Laplace"
  prior = build_prior(
    dataclasses.replace(
      config, prior=cfg.CustomPriorConfig(target, (("scale", 0.7),))
    )
  )
  assert prior.scale == 0.7 and prior.channels == 3
  testing.check_prior(prior, jax.random.key(0))


def test_a_flow_starts_from_posterior_samples_of_a_batch():
  config = cfg.LatentConfig(
    TRANSFORMER, 1, 1, 1, channels=8, posterior_gain=1.0
  )
  model = LatentTransformer(config, FlowPrior(ActNorm(), channels=8))
  batch = testing.random_batch(KEY, rows=64, length=12)
  params = jax.jit(model.init)(KEY, batch, KEY)["params"]
  chex.assert_trees_all_equal(
    params["prior"], jax.tree.map(jnp.zeros_like, params["prior"])
  )
  assert starts_from_data(model)
  start = jax.jit(initialise_prior, static_argnums=0)
  started = start(model, params, batch, jax.random.key(1))
  chex.assert_trees_all_equal_shapes(started, params)
  for name in params.keys() - {"prior"}:
    chex.assert_trees_all_equal(started[name], params[name])

  @jax.jit
  def base(params):
    """Posterior samples of another key, in the flow's base space."""
    bound = model.bind({"params": params})
    source = bound.encode(batch.x)
    y, mask = bound.targets(batch.y)
    mean, scale = bound.posterior(y, mask, source)
    z = mean + scale * jax.random.normal(KEY, mean.shape)
    return bound.prior.bijection.inverse(z, mask, source)[0], mask

  e, mask = jax.device_get(base(started))
  assert np.abs(e[mask].mean(axis=0)).max() < 0.2
  np.testing.assert_allclose(e[mask].std(axis=0), 1, atol=0.2)


def test_other_priors_keep_their_parameters():
  params, batch = {"prior": {}}, testing.random_batch(KEY)
  gaussian = LatentTransformer(cfg.LatentConfig(TRANSFORMER, channels=8))
  autoregressive = AutoregressiveTransformer(
    cfg.AutoregressiveConfig(TRANSFORMER)
  )
  for model in (gaussian, autoregressive):
    assert not starts_from_data(model)
    assert initialise_prior(model, params, batch, KEY) is params


def test_a_flow_needs_channels_in_fours():
  with pytest.raises(InputError, match="channels=6; .* multiple of 4"):
    LatentTransformer(cfg.LatentConfig(TRANSFORMER, channels=6, prior=FLOW))


@pytest.mark.parametrize(
  "target",
  [
    "math",
    "math:Nothing",
    "no_such_module:Prior",
    "math:sqrt",
    ":X",
    "collections:OrderedDict",
  ],
)
def test_a_prior_that_cannot_be_built_is_one_line(target):
  config = cfg.LatentConfig(TRANSFORMER, prior=cfg.CustomPriorConfig(target))
  with pytest.raises(InputError, match=target):
    build_prior(config)
