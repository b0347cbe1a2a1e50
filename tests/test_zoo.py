import time

import pytest

from latentnmt import config as cfg
from latentnmt import zoo
from latentnmt.errors import InputError
from latentnmt.models import num_parameters

# Millions of parameters at V = 31,500, from the size formulas of the paper's
# public code, verified there against its graph. They count its 32 target-space
# rows, of which it uses one and we have none; for flows see below.
COUNTS = {
  "transformer_small": 17.27,
  "transformer_base": 60.25,
  "transformer_large": 208.58,
  "gauss_base": 74.46,
  "gauss_large": 95.46,
  "gauss_base_iwslt": 21.89,
}
FLOWS = {
  "flow_small": 54_401_597,
  "flow_base": 68_897_597,
  "flow_base_75m": 74_808_893,
  "flow_small_iwslt": 35_160_381,
  "flow_base_iwslt": 44_528_957,
}


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_counts(name):
  count = num_parameters(zoo.config(name, vocab_size=31_500)) / 1e6
  assert count == pytest.approx(COUNTS[name], rel=0.005)


@pytest.mark.parametrize("name", FLOWS)
def test_flows_differ_from_the_public_graph_by_what_it_counts(name):
  config = zoo.config(name, vocab_size=31_500)
  count = num_parameters(config)
  assert count == pytest.approx(FLOWS[name], rel=0.015)
  steps = list(zip(config.prior.steps, config.prior.plans, strict=True))
  convs = sum(k * len(set(plan) - {"t"}) for k, plan in steps)
  heads = convs * config.channels // 32
  # P as an order rather than a matrix, and L, U and log s in one matrix.
  saved = heads * ((32 * 32 - 32) + (32 * 32 + 32))
  # ActNorms that share no parameters with the first of their step.
  own = sum(k * (len(plan) - 1) for k, plan in steps) * 2 * config.channels
  target_space = 32 * config.transformer.width
  assert count == FLOWS[name] - saved + own - target_space


def test_every_shape_within_five_seconds():
  for name in zoo.names():
    start = time.process_time()
    assert num_parameters(zoo.config(name, vocab_size=31_500)) > 1e6
    assert time.process_time() - start < 5, name


def test_changes_reach_groups_and_channels_leave_the_width_alone():
  config = zoo.config(
    "gauss_base", vocab_size=99, channels=8, transformer=dict(dropout=0.0)
  )
  assert config.channels == 8
  assert config.transformer == cfg.TransformerConfig(99, heads=4, dropout=0.0)
  config = zoo.config("flow_base", vocab_size=99, prior=dict(steps=(1, 1, 1)))
  assert config.prior.steps == (1, 1, 1)


def test_unknown_preset_and_field_name_the_valid_ones():
  with pytest.raises(InputError, match="gauss_huge.*transformer_base.*gauss"):
    zoo.config("gauss_huge", vocab_size=9)
  with pytest.raises(InputError, match="chanels.*channels"):
    zoo.config("gauss_base", vocab_size=9, chanels=8)
  with pytest.raises(InputError, match="TransformerConfig.*widht.*width"):
    zoo.config("gauss_base", vocab_size=9, transformer=dict(widht=8))
