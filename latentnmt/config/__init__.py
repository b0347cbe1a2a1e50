"""Frozen configuration, `override` for changes, JSON for the run directory.

A model is described by an `AutoregressiveConfig`, a `LatentConfig` or, where it
is the user's own, a `CustomModelConfig`; its training by a `TrainConfig`. An
`ExperimentConfig` holds both and is what `config.json` in a run directory
contains. Defaults live here and nowhere else. Nothing here imports JAX.
"""

from latentnmt.config.edit import (
  field_names,
  flatten,
  from_dict,
  override,
  to_dict,
)
from latentnmt.config.model import (
  AutoregressiveConfig,
  CustomModelConfig,
  CustomPriorConfig,
  FlowPriorConfig,
  GaussianPriorConfig,
  LatentConfig,
  ModelConfig,
  PriorConfig,
  StandardNormalPriorConfig,
  TransformerConfig,
)
from latentnmt.config.train import ExperimentConfig, TrainConfig

__all__ = [
  "AutoregressiveConfig",
  "CustomModelConfig",
  "CustomPriorConfig",
  "ExperimentConfig",
  "FlowPriorConfig",
  "GaussianPriorConfig",
  "LatentConfig",
  "ModelConfig",
  "PriorConfig",
  "StandardNormalPriorConfig",
  "TrainConfig",
  "TransformerConfig",
  "field_names",
  "flatten",
  "from_dict",
  "override",
  "to_dict",
]
