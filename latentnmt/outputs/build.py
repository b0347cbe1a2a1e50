"""From a configuration to its output."""

from flax import linen as nn

from latentnmt import config as cfg
from latentnmt.custom import build_custom
from latentnmt.outputs.ctc import Ctc
from latentnmt.outputs.dag import Dag
from latentnmt.outputs.factorised import Factorised


def build_output(config: cfg.OutputConfig) -> nn.Module:
  """Returns the output that a configuration describes.

  Raises:
    InputError: for a custom output that cannot be imported or built.
  """
  match config:  # nothing else tells outputs' configurations apart
    case cfg.FactorisedConfig():
      return Factorised()
    case cfg.CtcConfig(scale, extra, merge, escape):
      return Ctc(scale, extra, merge, escape)
    case cfg.DagConfig(scale, extra, heads, escape):
      return Dag(scale, extra, heads, escape)
    case cfg.CustomOutputConfig(target, fields):
      return build_custom("output", target, **dict(fields))
