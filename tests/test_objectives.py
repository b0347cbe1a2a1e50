"""The loss against a sum written out sentence by sentence."""

import jax.numpy as jnp
import numpy as np
import pytest

from latentnmt import metrics, objectives
from latentnmt.types import Terms

_POSITIONS = np.array([4.0, 6.0, 2.0])
_TOKENS = np.array([3.0, 6.0, 2.0])


def _terms(padding_rows=0) -> Terms:
  random = np.random.default_rng(0)
  nats = {
    name: np.abs(random.normal(size=3)) * sign
    for name, sign in dict(
      log_py=-9, log_py_uniform=-20, log_pz=-5, log_qz=-3, kl=4,
      kl_standard=6, log_pl=-2,
    ).items()
  }  # fmt: skip
  escaped = np.array([0.0, 1.0, 0.0])
  counts = {"num_tokens": _TOKENS, "num_positions": _POSITIONS}
  fields = {**nats, **counts, "escaped": escaped}
  return Terms(
    **{
      name: jnp.asarray(np.pad(values, (0, padding_rows)), jnp.float32)
      for name, values in fields.items()
    }
  )


def _loss(terms, beta, alpha, smoothing, mix, free=0.0):
  scale = max(1, free * _POSITIONS.sum() / float(terms.kl.sum()))
  loss = 0.0
  for b in range(3):
    log_py = (1 - smoothing) * terms.log_py[b]
    log_py += smoothing * terms.log_py_uniform[b]
    kl, standard = scale * terms.kl[b], terms.kl_standard[b]
    if mix:
      kl = beta * ((1 - alpha) * kl + alpha * standard)
    else:
      kl = beta * kl + alpha * standard
    loss += (kl - log_py) / _POSITIONS.sum() - terms.log_pl[b] / 3
  return loss


@pytest.mark.parametrize("free", [0.0, 0.1, 3.0])
@pytest.mark.parametrize("mix", [False, True])
@pytest.mark.parametrize(
  ("beta", "alpha", "smoothing"),
  [(1.0, 0.0, 0.0), (0.3, 0.2, 0.1), (0.0, 0.5, 0.1)],
)
def test_loss_is_the_sum_written_out(beta, alpha, smoothing, mix, free):
  loss, metrics = objectives.negative_elbo(
    _terms(),
    beta=beta,
    alpha=alpha,
    free_nats=free,
    label_smoothing=smoothing,
    alpha_mix=mix,
  )
  expected = _loss(_terms(), beta, alpha, smoothing, mix, free)
  np.testing.assert_allclose(loss, expected, rtol=1e-5)
  assert metrics["loss"] == loss


def test_rows_of_padding_change_nothing():
  kwargs = dict(beta=0.5, alpha=0.1, label_smoothing=0.1)
  loss, metrics = objectives.negative_elbo(_terms(), **kwargs)
  padded, padded_metrics = objectives.negative_elbo(_terms(5), **kwargs)
  np.testing.assert_allclose(padded, loss, rtol=1e-6)
  for name, value in metrics.items():
    np.testing.assert_allclose(padded_metrics[name], value, rtol=1e-6)
  assert metrics["num_sentences"] == 3


def test_a_batch_of_padding_costs_nothing():
  terms = Terms(*[jnp.zeros(4)] * 10)
  assert objectives.negative_elbo(terms)[0] == 0


def test_terms_per_token_divides_the_sum_over_batches_once():
  sums = objectives.add([objectives.totals(_terms())] * 2)
  nats, terms = metrics.terms_per_token(sums), _terms()
  for name, expected in {
    "elbo": terms.log_py - terms.kl + terms.log_pl,
    "elbo_given_length": terms.log_py - terms.kl,
    "log_pl": terms.log_pl,
  }.items():
    np.testing.assert_allclose(
      nats[name], expected.sum() / _TOKENS.sum(), rtol=1e-6
    )


def test_the_bound_pays_for_the_length():
  terms = _terms()
  np.testing.assert_allclose(
    terms.elbo - terms.given_length, terms.log_pl, rtol=1e-5
  )
