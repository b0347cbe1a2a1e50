r"""Trains a model on prepared data, or continues a run that was cut off.

  latentnmt train --preset=gauss_tiny --data=data/embedded \
    --run=runs/my/gauss --set=train.steps=2000 --set=model.channels=16

A model of your own takes the place of a preset, --model=my_module:MyModel.
With --show_config the configuration is printed and nothing is trained.

On several hosts, start the same command on each with --coordinator=HOST:PORT
(of the first), --num_processes=N and --process_id=0 to N - 1; all must see
the same --data and --run.
"""

from absl import flags

from latentnmt import files, sharding
from latentnmt.config import flatten
from latentnmt.data import PreparedData
from latentnmt.errors import InputError
from latentnmt.experiments import app, shared_flags
from latentnmt.experiments.progress import progress
from latentnmt.experiments.settings import experiment_config
from latentnmt.train import as_trained, fit

_RUN = shared_flags.run_flag()
_DATA = shared_flags.data_flag()
_SET = shared_flags.set_flag()
_SETTINGS_FROM = flags.DEFINE_string(
  "settings_from", None, "File of `sweep`: what it chose is set after --set."
)
_PRESET = shared_flags.preset_flag()
_MODEL = shared_flags.model_flag()
_PRIOR = flags.DEFINE_string(
  "prior",
  None,
  "Prior of your own for a latent model, package.module:Class, built as"
  " Class(channels=C).",
)
_OUTPUT = flags.DEFINE_string(
  "output",
  None,
  "Output of your own for a one-pass model, package.module:Class, built as"
  " Class().",
)
_WARM_START = shared_flags.warm_start_flag()
_SHOW_CONFIG = flags.DEFINE_bool(
  "show_config", False, "Only print every setting, as the run would have it."
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
  """Trains, or shows what would be trained."""
  del argv
  if _COORDINATOR.value:
    sharding.initialize(
      _COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value
    )
  else:
    shared_flags.refuse(["num_processes", "process_id"], "needs --coordinator")
  data = PreparedData.open(_DATA.value)
  config = experiment_config(
    data.tokenizer.vocab_size,
    [*_SET.value, *chosen_settings(_SETTINGS_FROM.value)],
    preset=_PRESET.value,
    model=_MODEL.value,
    prior=_PRIOR.value,
    output=_OUTPUT.value,
  )
  if _SHOW_CONFIG.value:
    shown = flatten(as_trained(config, data, _WARM_START.value))
    print("\n".join(f"{path}={value}" for path, value in shown.items()))
    return
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
  """Returns what a sweep chose; nothing without a file.

  Raises:
    InputError: for a file that is missing, damaged or not of `sweep`.
  """
  if path is None:
    return []
  found = files.read_json(path)
  if not isinstance(found, dict) or "chosen" not in found:
    raise InputError(
      f"--settings_from={path}: no file of `latentnmt sweep`; run that first."
    )
  return found["chosen"]


if __name__ == "__main__":
  app.run(main)
