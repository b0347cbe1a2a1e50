import time

import pytest

from latentnmt import config as cfg
from latentnmt import zoo
from latentnmt.models import num_parameters
from latentnmt.types import InputError

# Millions of parameters at V = 31,500, from the size formulas of the paper's
# public code, verified there against its graph. They count its 32 target-space
# rows, of which it uses one and we have none.
COUNTS = {
  "transformer_small": 17.27,
  "transformer_base": 60.25,
  "transformer_large": 208.58,
  "gauss_base": 74.46,
  "gauss_large": 95.46,
  "gauss_base_iwslt": 21.89,
}


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_counts(name):
  count = num_parameters(zoo.config(name, vocab_size=31_500)) / 1e6
  assert count == pytest.approx(COUNTS[name], rel=0.005)


def test_every_shape_within_five_seconds():
  for name in zoo.names():
    start = time.monotonic()
    assert num_parameters(zoo.config(name, vocab_size=31_500)) > 1e6
    assert time.monotonic() - start < 5, name


def test_changes_reach_groups_and_channels_leave_the_width_alone():
  config = zoo.config(
    "gauss_base", vocab_size=99, channels=8, transformer=dict(dropout=0.0)
  )
  assert config.channels == 8
  assert config.transformer == cfg.TransformerConfig(99, heads=4, dropout=0.0)


def test_unknown_preset_and_field_name_the_valid_ones():
  with pytest.raises(InputError, match="gauss_huge.*transformer_base.*gauss"):
    zoo.config("gauss_huge", vocab_size=9)
  with pytest.raises(InputError, match="chanels.*channels"):
    zoo.config("gauss_base", vocab_size=9, chanels=8)
  with pytest.raises(InputError, match="TransformerConfig.*widht.*width"):
    zoo.config("gauss_base", vocab_size=9, transformer=dict(widht=8))
