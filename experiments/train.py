"""Trains a preset on prepared data, or continues a run that was cut off.

  python -m experiments.train --preset=gauss_tiny --data=data/embedded \
    --run=runs/my/gauss --set=train.steps=2000 --set=model.channels=16

On several hosts, start the same command on each with --coordinator=HOST:PORT
(of the first), --num_processes=N and --process_id=0 to N - 1; all must see
the same --data and --run.
"""

import dataclasses

from absl import flags

from experiments import common
from latentnmt import sharding, zoo
from latentnmt.config import (
  CustomPriorConfig,
  ExperimentConfig,
  LatentConfig,
  TrainConfig,
  override,
)
from latentnmt.data import PreparedData
from latentnmt.models import build
from latentnmt.train import fit
from latentnmt.types import InputError

_RUN = common.run_flag()
_DATA = common.data_flag()
_SET = common.set_flag()
_PRESET = flags.DEFINE_string(
  "preset", None, f"One of {', '.join(zoo.names())}.", required=True
)
_PRIOR = flags.DEFINE_string(
  "prior",
  None,
  "Prior of your own for a latent model, package.module:Class, built as"
  " Class(channels=C).",
)
_WARM_START = flags.DEFINE_string(
  "warm_start",
  None,
  "Run to start from: of its best checkpoint, modules of the same name and"
  " shapes are taken over, of a teacher by a student the embedding, encoder and"
  " decoder. The vocabulary must be the same.",
)
_TENSORBOARD = flags.DEFINE_bool(
  "tensorboard", False, "Also write TensorBoard events."
)
_COORDINATOR = flags.DEFINE_string(
  "coordinator", None, "host:port of process 0, to train on several hosts."
)
_NUM_PROCESSES = flags.DEFINE_integer(
  "num_processes", 1, "How many processes train together."
)
_PROCESS_ID = flags.DEFINE_integer(
  "process_id", 0, "Number of this process, from 0."
)


def main(argv):
  """Trains."""
  del argv
  if _COORDINATOR.value:
    sharding.initialize(
      _COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value
    )
  else:
    common.refuse(["num_processes", "process_id"], "needs --coordinator")
  data = PreparedData.open(_DATA.value)
  config = experiment_config(
    _PRESET.value, data.tokenizer.vocab_size, _PRIOR.value, _SET.value
  )
  try:
    fit(
      config,
      data,
      _RUN.value,
      warm_start=_WARM_START.value,
      progress=common.progress,
      tensorboard=_TENSORBOARD.value,
    )
  except FloatingPointError as error:
    common.fail(str(error))


def experiment_config(
  preset: str, vocab_size: int, prior: str | None, settings: list[str]
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


if __name__ == "__main__":
  common.run(main)
