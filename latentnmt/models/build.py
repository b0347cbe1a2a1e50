"""From a configuration to its model."""

from flax import linen as nn

from latentnmt import config as cfg
from latentnmt.custom import build_custom
from latentnmt.models.autoregressive import AutoregressiveTransformer
from latentnmt.models.latent import LatentTransformer
from latentnmt.models.one_pass import OnePassTransformer
from latentnmt.models.parameters import count_parameters
from latentnmt.models.source_latent import SourceLatentTransformer


def build(config: cfg.ModelConfig) -> nn.Module:
  """Returns the model that a configuration describes.

  Raises:
    InputError: for a model or prior of the user's own that cannot be built.
  """
  match config:
    case cfg.AutoregressiveConfig():
      return AutoregressiveTransformer(config)
    case cfg.LatentConfig():
      return LatentTransformer(config)
    case cfg.OnePassConfig():
      return OnePassTransformer(config)
    case cfg.SourceLatentConfig():
      return SourceLatentTransformer(config)
    case cfg.CustomModelConfig(target=target, fields=fields):
      return build_custom("model", target, config, **dict(fields))


def num_parameters(config: cfg.ModelConfig) -> int:
  """Returns how many numbers a model has, without making one."""
  return count_parameters(build(config))
