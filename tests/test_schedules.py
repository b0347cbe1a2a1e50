"""The KL weight and the learning rate along training."""

import jax.numpy as jnp
import numpy as np

from latentnmt import schedules
from latentnmt.config import TrainConfig


def test_kl_weight_is_zero_then_linear_then_one():
  config = TrainConfig(kl_start=10, kl_ramp=20)
  steps = [0, 10, 11, 20, 30, 31, 1000]
  beta = [float(schedules.kl_weight(step, config)) for step in steps]
  np.testing.assert_allclose(beta, [0, 0, 0.05, 0.5, 1, 1, 1], rtol=1e-6)
  sudden = TrainConfig(kl_start=10, kl_ramp=0)
  assert schedules.kl_weight(9, sudden) == 0
  assert schedules.kl_weight(10, sudden) == 1


def test_learning_rate_warms_up_decays_and_restarts():
  config = TrainConfig(learning_rate=2.0, warmup=8, schedule_restart=20)
  expected = []
  for step in range(40):
    t = step + 1 if step < 20 else step - 19
    expected.append(2 * 64**-0.5 * min(t**-0.5, t * 8**-1.5))
  rates = schedules.learning_rate(jnp.arange(40), config, 64)
  np.testing.assert_allclose(rates, expected, rtol=1e-6)


def test_glancing_goes_evenly_from_value_to_value():
  config = TrainConfig(steps=101, glancing=(0.5, 0.1, 0.3))
  found = [float(schedules.glancing(t, config)) for t in (0, 25, 50, 75, 100)]
  np.testing.assert_allclose(found, [0.5, 0.3, 0.1, 0.2, 0.3], atol=1e-6)
  assert schedules.glancing(0, TrainConfig()) is None
