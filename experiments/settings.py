"""What `train` and `sweep` share: flags of a training, its configuration."""

from collections.abc import Iterable
import dataclasses

from absl import flags

from latentnmt import zoo
from latentnmt.config import (
  CustomPriorConfig,
  ExperimentConfig,
  LatentConfig,
  TrainConfig,
  override,
)
from latentnmt.errors import InputError
from latentnmt.models import build


def preset_flag():
  """The flag --preset: a name in `zoo`."""
  return flags.DEFINE_string(
    "preset", None, f"One of {', '.join(zoo.names())}.", required=True
  )


def warm_start_flag():
  """The flag --warm_start: a run whose modules a training starts from."""
  return flags.DEFINE_string(
    "warm_start",
    None,
    "Run to start from: of its best checkpoint, modules of the same name and"
    " shapes are taken over, of a teacher by a student the embedding, encoder"
    " and decoder. The vocabulary must be the same.",
  )


def experiment_config(
  preset: str,
  vocab_size: int,
  settings: Iterable[str],
  prior: str | None = None,
) -> ExperimentConfig:
  """The preset with its prior replaced, then the settings applied.

  Raises:
    InputError: for an unknown preset or field, or a prior that cannot be
      built or given to a model without latents.
  """
  config = ExperimentConfig(
    zoo.config(preset, vocab_size=vocab_size), TrainConfig(), preset=preset
  )
  if prior:
    if not isinstance(config.model, LatentConfig):
      raise InputError(f"{preset} has no latents, so it takes no --prior.")
    model = dataclasses.replace(config.model, prior=CustomPriorConfig(prior))
    config = dataclasses.replace(config, model=model)
  config = override(config, *settings)
  build(config.model)  # a prior that cannot be built says so now
  return config
