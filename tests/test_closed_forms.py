"""The models with a known answer, against scipy and their own samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from latentnmt.closed_forms import LinearGaussian, Mixture
from latentnmt.masks import token_mask

Y = np.int32([[7, 30, 4, 1], [9, 1, 0, 0]])


def test_correlated_evidence_is_that_of_scipy():
  model = LinearGaussian(3, noise=0.6, coupling=0.8)
  matrix = np.eye(4) + 0.8 * np.eye(4, k=-1)
  for y, evidence in zip(Y, model.log_evidence(Y), strict=True):
    size = np.count_nonzero(y)
    cut = matrix[:size, :size]
    covariance = cut @ cut.T + 0.36 * np.eye(size)
    values = np.asarray(model.observation(y[:size]))
    expected = stats.multivariate_normal(cov=covariance).logpdf(values.T)
    np.testing.assert_allclose(evidence, np.sum(expected), rtol=1e-5)


def test_mixture_integrates_to_its_evidence():
  model = Mixture(1, separation=3.0)
  grid = np.linspace(-15, 15, 3001, dtype=np.float32)
  y = np.full((3001, 1), 5, np.int32)
  log_py, log_pz = model.log_joint(
    jnp.asarray(grid[:, None, None]), y, token_mask(y), None
  )
  evidence = integrate.trapezoid(np.exp(np.float64(log_py + log_pz)), grid)
  np.testing.assert_allclose(
    np.log(evidence), model.log_evidence(y[:1])[0], rtol=1e-4
  )


@pytest.mark.parametrize(
  "model",
  [LinearGaussian(2, noise=0.5, coupling=0.7), Mixture(2, separation=2.0)],
  ids=["linear", "mixture"],
)
def test_score_of_the_joint_vanishes_on_posterior_samples(model):
  y = np.repeat(Y, 2000, axis=0)
  mask = token_mask(y)
  z = model.posterior_sample(jax.random.key(0), y)

  def total(z):
    log_py, log_pz = model.log_joint(z, y, mask, None)
    return jnp.sum(log_py + log_pz)

  score = np.asarray(jax.grad(total)(z)).reshape(2, 2000, 4, 2)
  error = 5 * score.std(axis=1) / 2000**0.5 + 1e-6
  assert np.all(np.abs(score.mean(axis=1)) < error)
  mean, scale = model.best_posterior(Y)
  draws = np.asarray(z).reshape(2, 2000, 4, 2)
  real = np.asarray(token_mask(Y))
  off = np.abs(draws.mean(axis=1) - mean)[real]
  assert np.all(off < 5 * draws.std(axis=1)[real] / 2000**0.5)
  # The nearest q is never wider than the marginals.
  assert np.all(np.asarray(scale)[real] < 1.1 * draws.std(axis=1)[real])
