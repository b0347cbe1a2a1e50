"""Flags that several binaries have; each function defines one."""

from collections.abc import Iterable

from absl import flags

from latentnmt import zoo
from latentnmt.errors import InputError


def run_flag(help: str = "Run directory.", required: bool = True):
  """Defines --run: a run directory, `runs/<study>/<run>`."""
  return flags.DEFINE_string("run", None, help, required=required)


def data_flag(help: str = "Prepared data directory.", required: bool = True):
  """Defines --data: a directory that `preprocess` or `distill` wrote."""
  return flags.DEFINE_string("data", None, help, required=required)


def split_flag(default: str = "test"):
  """Defines --split: train, dev or test."""
  return flags.DEFINE_enum(
    "split", default, ["train", "dev", "test"], "Split of the prepared data."
  )


def checkpoint_flag(several: bool = False):
  """Defines --checkpoint: "best" or a step, or "kept" where several may be.

  `loading.checkpoint_steps` says which steps it asks for.
  """
  words = {"best": "(on dev)"}
  if several:
    words["kept"] = "(each that there is)"
  choices = ", ".join(f"{word} {what}" for word, what in words.items())
  flag = flags.DEFINE_string("checkpoint", "best", f"{choices} or a step.")
  flags.register_validator(
    flag,
    lambda value: value in words or value.isdecimal(),
    f"give {', '.join(words)} or a step",
  )
  return flag


def methods_flag(required: bool = True):
  """Defines --methods: names of decoding methods."""
  flag = flags.DEFINE_list(
    "methods",
    None,
    "Decoding methods, for example greedy,beam4 or delta0,delta1-l3.",
    required=required,
  )
  flags.register_validator(flag, lambda names: names != [], "none is given")
  return flag


def teacher_flag():
  """Defines --teacher of what decodes; `loading.rankings` loads it."""
  return flags.DEFINE_string(
    "teacher",
    None,
    "Run directory, of exact likelihood and with the same vocabulary, that"
    " ranks the candidates of methods named -teacher.",
  )


def preset_flag():
  """Defines --preset: a name in `zoo`."""
  return flags.DEFINE_string(
    "preset", None, f"One of {', '.join(zoo.names())}."
  )


def model_flag():
  """Defines --model: instead of a preset, a model of one's own."""
  return flags.DEFINE_string(
    "model",
    None,
    "Instead of --preset, a model of your own, package.module:Class, built as"
    " Class(config, **fields). --set=model.transformer.width=64 sets a size and"
    " --set='model.fields=((\"layers\", 2),)' a field.",
  )


def set_flag():
  """Defines --set: changes of configuration fields, given repeatedly."""
  return flags.DEFINE_multi_string(
    "set",
    [],
    "Changes a field of the configuration: --set=train.steps=500 or"
    " --set=model.transformer.width=64. May be given repeatedly.",
  )


def warm_start_flag():
  """Defines --warm_start: a run whose modules a training starts from."""
  return flags.DEFINE_string(
    "warm_start",
    None,
    "Run to start from: of its best checkpoint, modules of the same name and"
    " shapes are taken over, of a teacher by a student the embedding, encoder"
    " and decoder. The vocabulary must be the same.",
  )


def batch_tokens_flag():
  """Defines --batch_tokens of what decodes."""
  return flags.DEFINE_integer(
    "batch_tokens", 4096, "Sentences times source length of a batch.", 1
  )


def refuse(names: Iterable[str], reason: str) -> None:
  """Raises InputError if one of these flags was given."""
  for name in names:
    if flags.FLAGS[name].present:
      raise InputError(f"--{name} {reason}.")
