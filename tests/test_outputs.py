import jax
import pytest

from latentnmt.outputs import Ctc, Dag, Factorised
from latentnmt.testing_outputs import check_output

KEY = jax.random.key(0)

OUTPUTS = {
  "factorised": Factorised(),
  "ctc": Ctc(scale=2.0, extra=1),
  "ctc_without_merging": Ctc(scale=1.5, extra=2, merge=False),
  "dag": Dag(scale=3.0, heads=2),
  "dag_of_one_head": Dag(scale=2.0, extra=2, heads=1, escape=1e-2),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_contract(name):
  check_output(OUTPUTS[name], jax.random.key(1))
