r"""Trains a preset on prepared data, or continues a run that was cut off.

  python -m experiments.train --preset=gauss_tiny --data=data/embedded \
    --run=runs/my/gauss --set=train.steps=2000 --set=model.channels=16

On several hosts, start the same command on each with --coordinator=HOST:PORT
(of the first), --num_processes=N and --process_id=0 to N - 1; all must see
the same --data and --run.
"""

from absl import flags

from latentnmt import files, sharding
from latentnmt.data import PreparedData
from latentnmt.errors import InputError
from latentnmt.experiments import app, shared_flags
from latentnmt.experiments import settings as training
from latentnmt.experiments.progress import progress
from latentnmt.train import fit

_RUN = shared_flags.run_flag()
_DATA = shared_flags.data_flag()
_SET = shared_flags.set_flag()
_SETTINGS_FROM = flags.DEFINE_string(
  "settings_from", None, "File of `sweep`: what it chose is set after --set."
)
_PRESET = training.preset_flag()
_PRIOR = flags.DEFINE_string(
  "prior",
  None,
  "Prior of your own for a latent model, package.module:Class, built as"
  " Class(channels=C).",
)
_WARM_START = training.warm_start_flag()
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
    shared_flags.refuse(["num_processes", "process_id"], "needs --coordinator")
  data = PreparedData.open(_DATA.value)
  config = training.experiment_config(
    _PRESET.value,
    data.tokenizer.vocab_size,
    [*_SET.value, *chosen_settings(_SETTINGS_FROM.value)],
    _PRIOR.value,
  )
  try:
    fit(
      config,
      data,
      _RUN.value,
      warm_start=_WARM_START.value,
      progress=progress,
      tensorboard=_TENSORBOARD.value,
    )
  except FloatingPointError as error:
    app.fail(str(error))


def chosen_settings(path: str | None) -> list[str]:
  """What `sweep` chose; nothing without a file.

  Raises:
    InputError: for a file that is missing, damaged or not of `sweep`.
  """
  if path is None:
    return []
  found = files.read_json(path)
  if not isinstance(found, dict) or "chosen" not in found:
    raise InputError(
      f"--settings_from={path}: no file of the sweep binary; run that first."
    )
  return found["chosen"]


if __name__ == "__main__":
  app.run(main)
