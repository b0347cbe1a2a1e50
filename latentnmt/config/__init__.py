"""Frozen configuration, `override` for changes, JSON for the run directory.

A model is described by one of `ModelConfig`, a class for each family and
`CustomModelConfig` for the user's own; its training by a `TrainConfig`. An
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
  OnePassConfig,
  PriorConfig,
  SourceLatentConfig,
  StandardNormalPriorConfig,
  TransformerConfig,
)
from latentnmt.config.outputs import (
  CtcConfig,
  CustomOutputConfig,
  DagConfig,
  FactorisedConfig,
  OutputConfig,
)
from latentnmt.config.train import ExperimentConfig, TrainConfig

__all__ = [
  "AutoregressiveConfig",
  "CtcConfig",
  "CustomModelConfig",
  "CustomOutputConfig",
  "CustomPriorConfig",
  "DagConfig",
  "ExperimentConfig",
  "FactorisedConfig",
  "FlowPriorConfig",
  "GaussianPriorConfig",
  "LatentConfig",
  "ModelConfig",
  "OnePassConfig",
  "OutputConfig",
  "PriorConfig",
  "SourceLatentConfig",
  "StandardNormalPriorConfig",
  "TrainConfig",
  "TransformerConfig",
  "field_names",
  "flatten",
  "from_dict",
  "override",
  "to_dict",
]
