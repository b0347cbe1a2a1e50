"""What the binaries share: entry point, flags, progress, JSON, hardware.

A binary is

  _RUN = common.run_flag()

  def main(argv):
    del argv
    ...

  if __name__ == "__main__":
    common.run(main)

This file imports no JAX: `study`, which only starts other processes, answers
at once.
"""

from collections.abc import Iterable, Iterator
import contextlib
import json
import os
from pathlib import Path
import platform
import signal
import sys
from typing import Any
import zlib

from absl import app, flags, logging
from tqdm import tqdm

_COMPILATION_CACHE = flags.DEFINE_string(
  "compilation_cache",
  None,
  "Folder in which compiled programs are kept from one process to the next;"
  " by default nothing is kept, but by study, in <out>/compilation_cache.",
)


def run_flag(help: str = "Run directory.", required: bool = True):
  """The flag --run: a run directory, `runs/<study>/<run>`."""
  return flags.DEFINE_string("run", None, help, required=required)


def data_flag(help: str = "Prepared data directory.", required: bool = True):
  """The flag --data: a directory that `preprocess` or `distill` wrote."""
  return flags.DEFINE_string("data", None, help, required=required)


def split_flag(default: str = "test"):
  """The flag --split: train, dev or test."""
  return flags.DEFINE_enum(
    "split", default, ["train", "dev", "test"], "Split of the prepared data."
  )


def checkpoint_flag(several: bool = False):
  """The flag --checkpoint: "best" or a step, or "kept" where several may be.

  `checkpoint_steps` says which steps it asks for.
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


def checkpoint_steps(run) -> list[int]:
  """Steps of a run that --checkpoint asks for, in order.

  Raises:
    InputError: if there are none.
  """
  from latentnmt import checkpoint  # imports JAX, which takes seconds

  value = flags.FLAGS.checkpoint
  if value == "kept":
    return checkpoint.steps(run) or [checkpoint.find_step(run)]
  step = None if value == "best" else int(value)
  return [checkpoint.find_step(run, step)]


def methods_flag(required: bool = True):
  """The flag --methods: names of decoding methods."""
  flag = flags.DEFINE_list(
    "methods",
    None,
    "Decoding methods, for example greedy,beam4 or delta0,delta1-l3.",
    required=required,
  )
  flags.register_validator(flag, lambda names: names != [], "none is given")
  return flag


def teacher_flag():
  """The flag --teacher of what decodes; `rankings` loads it."""
  return flags.DEFINE_string(
    "teacher",
    None,
    "Run directory, autoregressive and with the same vocabulary, that ranks the"
    " candidates of methods named -teacher.",
  )


def rankings(methods: Iterable, tokenizer) -> dict:
  """What ranks each method's candidates, and what to say of it.

  Args:
    methods: of `latentnmt.decode`.
    tokenizer: of the run that decodes.

  Returns:
    (score, fields) by method: the score of --teacher and its "teacher" and
    "teacher_step" for those named -teacher, None and {} for others.

  Raises:
    InputError: if --teacher is missing, not needed, or cannot judge.
  """
  # These import JAX, which takes seconds.
  from latentnmt import checkpoint, decode
  from latentnmt.config import AutoregressiveConfig
  from latentnmt.types import InputError

  judged = {method: getattr(method, "teacher", False) for method in methods}
  run = flags.FLAGS.teacher
  if not any(judged.values()):
    refuse(["teacher"], "is for methods such as delta1-l5-teacher")
    return dict.fromkeys(judged, (None, {}))
  if run is None:
    name = next(method for method in judged if judged[method])
    raise InputError(
      f"{name} needs --teacher: an autoregressive run with the same vocabulary."
    )
  if not isinstance(checkpoint.read_config(run).model, AutoregressiveConfig):
    raise InputError(
      f"--teacher={run} is a latent model; give an autoregressive run."
    )
  step = checkpoint.find_step(run)
  model, params, vocabulary = checkpoint.load(run, step)
  if vocabulary != tokenizer:
    raise InputError(
      f"--teacher={run} has another vocabulary than the run that it is to"
      " judge; give one trained on the same prepared data."
    )
  told = {"teacher": Path(run).name, "teacher_step": step}
  ranked = decode.teacher_score(model, params), told
  return {m: ranked if judged[m] else (None, {}) for m in judged}


def set_flag():
  """The flag --set: changes of configuration fields, given repeatedly."""
  return flags.DEFINE_multi_string(
    "set",
    [],
    "Changes a field of the configuration: --set=train.steps=500 or"
    " --set=model.transformer.width=64. May be given repeatedly.",
  )


def batch_tokens_flag():
  """The flag --batch_tokens of what decodes."""
  return flags.DEFINE_integer(
    "batch_tokens", 4096, "Sentences times source length of a batch.", 1
  )


def refuse(names: Iterable[str], reason: str) -> None:
  """Raises InputError if one of these flags was given."""
  from latentnmt.types import InputError  # imports JAX, which takes seconds

  for name in names:
    if flags.FLAGS[name].present:
      raise InputError(f"--{name} {reason}.")


def run(main, jax: bool = True) -> None:
  """Runs `main(argv)` under absl; ends the process.

  `jax` says whether this process computes, and so is to have the compilation
  cache that --compilation_cache asks for.

  Bad flags, `InputError` and files that the system refuses become one line
  "error: ..." on stderr and exit status 2, an interruption exit status 130;
  any other exception is a defect and keeps its traceback.
  """
  # What --help shows: also the flags that this and its like define.
  for module, defined in flags.FLAGS.flags_by_module_dict().items():
    if module.startswith("experiments."):
      for flag in defined:
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
  with _reader_may_leave():
    app.run(lambda argv: _guarded(main, argv, jax), flags_parser=_parse_flags)


@contextlib.contextmanager
def _reader_may_leave() -> Iterator[None]:
  """Ends the process in silence where nobody reads its output any more."""
  try:
    try:
      yield
    finally:
      sys.stdout.flush()
  except BrokenPipeError:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(128 + signal.SIGPIPE)


def _parse_flags(argv: list[str]) -> list[str]:
  try:
    rest = flags.FLAGS(argv)
  except flags.Error as error:
    fail(str(error))
  except SystemExit:  # after --help, which absl counts as a failure
    sys.exit(0)
  if rest[1:]:
    fail(f"Unexpected argument {rest[1]!r}; flags are given as --name=value.")
  return rest


def _guarded(main, argv: list[str], jax: bool) -> None:
  if not flags.FLAGS["verbosity"].present:
    logging.set_verbosity(logging.WARNING)
    # Orbax, which logs to absl's own logger, warns of what is meant so.
    logging.get_absl_logger().setLevel("ERROR")
  try:
    if jax:
      enable_cache()
    main(argv)
  except KeyboardInterrupt:
    print("interrupted; run again to continue.", file=sys.stderr)
    sys.exit(130)
  except OSError as error:
    if error.filename is None:
      raise
    fail(f"{error.filename2 or error.filename}: {error.strerror}.")
  except ValueError as error:
    from latentnmt.types import InputError  # imports JAX, which takes seconds

    if not isinstance(error, InputError):
      raise
    fail(str(error))


def fail(message: str) -> None:
  """Prints one line "error: message" on stderr and exits with status 2."""
  print("error:", " ".join(message.split()), file=sys.stderr)
  sys.exit(2)


def compilation_cache() -> str | None:
  """The value of --compilation_cache."""
  return _COMPILATION_CACHE.value


def enable_cache() -> None:
  """Turns the persistent compilation cache on where --compilation_cache asks.

  Programs compiled by another jaxlib or for another processor can crash the
  process that loads them: each such pair has a folder of its own. (JAX tells
  accelerators apart by itself, and asking for them here would start the
  backend before `jax.distributed.initialize` had its turn.)
  """
  if not _COMPILATION_CACHE.value:
    return
  import jax
  import jaxlib

  features = zlib.crc32(_cpuinfo("flags").encode())
  name = f"jaxlib-{jaxlib.__version__}-{_processor()}-{features:08x}"
  name = "".join(c if c.isalnum() or c in "-." else "_" for c in name)
  folder = Path(_COMPILATION_CACHE.value).absolute() / name
  jax.config.update("jax_compilation_cache_dir", str(folder))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def device_description() -> str:
  """The devices computed on, for reports: "2-core AMD EPYC", "8 x H100"."""
  import jax

  devices = jax.devices()
  if devices[0].platform == "cpu":
    return f"{os.cpu_count()}-core {_processor()}"
  return f"{len(devices)} x {devices[0].device_kind}"


def _processor() -> str:
  return _cpuinfo("model name") or platform.processor() or platform.machine()


def _cpuinfo(field: str) -> str:
  """The first value of a field of /proc/cpuinfo; "" where there is none."""
  try:
    lines = Path("/proc/cpuinfo").read_text().split("\n")
  except OSError:
    return ""
  values = [line.split(":", 1)[1] for line in lines if line.startswith(field)]
  return values[0].strip() if values else ""


class _Lines(tqdm):
  """Progress for a log: a line of its own each time, and nothing to erase."""

  @staticmethod
  def status_printer(file):
    """Returns a function that prints one status."""

    def print_status(status):
      if status:
        file.write(status + "\n")
        file.flush()

    return print_status

  def moveto(self, n):
    """Bars inside bars take their turns."""

  def close(self):
    """Prints the last status, where it is to stay and not over too soon."""
    if not self.disable:
      self.disable = True
      self._decr_instances(self)
      if self.leave and self._time() >= self.start_t + self.delay:
        self.display()


def progress(iterable=None, **options) -> tqdm:
  """`tqdm` on stderr, shown also where stderr is a file or a pipe.

  Args:
    iterable: what to go through; None for manual `update`.
    **options: of tqdm, for example `desc`, `total`, `unit`, `initial`.
  """
  if sys.stderr.isatty():
    return tqdm(iterable, dynamic_ncols=True, **options)
  return _Lines(iterable, mininterval=10, ascii=True, **options)


def read_json(path) -> Any:
  """Returns the content of a JSON file, or None where there is no file.

  Raises:
    InputError: for a file that is no JSON.
  """
  try:
    return json.loads(Path(path).read_text(encoding="utf-8"))
  except FileNotFoundError:
    return None
  except ValueError as error:
    from latentnmt.types import InputError  # imports JAX, which takes seconds

    raise InputError(f"{path} is damaged: {error}; delete it.") from None


def write_json(path, value) -> None:
  """Writes a JSON file so that a killed process leaves the old or the new."""
  text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
  write_text(path, text)


def write_text(path, text: str) -> None:
  """Writes a text file, like `write_json` at once or not at all."""
  with replacing(path) as partial:
    partial.write_text(text, encoding="utf-8", newline="\n")


@contextlib.contextmanager
def replacing(path) -> Iterator[Path]:
  """Gives a file to write, which then becomes `path`, unless it failed."""
  path = Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
  try:
    yield partial
    os.replace(partial, path)
  finally:
    partial.unlink(missing_ok=True)
