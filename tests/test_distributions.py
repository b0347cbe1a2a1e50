import numpy as np
import pytest
from scipy import integrate, stats

from latentnmt import distributions

CASES = [(0.0, 1.0, 0.5, 2.0), (1.5, 0.3, -1.0, 0.7), (-2.0, 3.0, -2.0, 3.0)]


@pytest.mark.parametrize("mean, scale, other_mean, other_scale", CASES)
def test_log_prob_is_scipys(mean, scale, other_mean, other_scale):
  value = np.linspace(-4, 4, 9)
  np.testing.assert_allclose(
    distributions.normal_log_prob(value, mean, scale),
    stats.norm(mean, scale).logpdf(value),
    rtol=1e-5,
  )
  np.testing.assert_allclose(
    distributions.standard_normal_log_prob(value),
    stats.norm.logpdf(value),
    rtol=1e-5,
  )


@pytest.mark.parametrize("mean, scale, other_mean, other_scale", CASES)
def test_kl_is_the_integral(mean, scale, other_mean, other_scale):
  q, p = stats.norm(mean, scale), stats.norm(other_mean, other_scale)

  def expected(p):
    def integrand(z):
      return q.pdf(z) * (q.logpdf(z) - p.logpdf(z))

    low, high = mean - 12 * scale, mean + 12 * scale
    return integrate.quad(integrand, low, high)[0]

  kl = distributions.kl_normal(mean, scale, other_mean, other_scale)
  np.testing.assert_allclose(kl, expected(p), rtol=1e-4, atol=1e-6)
  kl = distributions.kl_standard_normal(mean, scale)
  np.testing.assert_allclose(kl, expected(stats.norm()), rtol=1e-4, atol=1e-6)
