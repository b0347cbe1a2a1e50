"""Binaries: flags, errors in one line, exit statuses.

A binary is

  _RUN = shared_flags.run_flag()

  def main(argv):
    del argv
    ...

  if __name__ == "__main__":
    app.run(main)

where `main` alone reads the flags. This file imports no JAX: `study`, which
only starts other processes, answers at once.
"""

from collections.abc import Callable, Iterator
import contextlib
import os
import signal
import sys

from absl import app, flags, logging

from latentnmt.errors import InputError
from latentnmt.experiments import hardware

_COMPILATION_CACHE = flags.DEFINE_string(
  "compilation_cache",
  None,
  "Folder in which compiled programs are kept from one process to the next;"
  " by default nothing is kept, but by study, in <out>/compilation_cache.",
)


def run(main: Callable[[list[str]], None], jax: bool = True) -> None:
  """Runs `main(argv)` under absl; ends the process.

  Bad flags, `InputError` and files that the system refuses become one line
  "error: ..." on stderr and exit status 2, an interruption exit status 130;
  any other exception is a defect and keeps its traceback.

  Args:
    main: of the binary.
    jax: whether this process computes, and so is to have the compilation
      cache that --compilation_cache asks for.
  """
  # What --help shows: also the flags that this and its like define.
  for module, defined in flags.FLAGS.flags_by_module_dict().items():
    if module.startswith("latentnmt.experiments."):
      for flag in defined:
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
  with reader_may_leave():
    app.run(lambda argv: _guarded(main, argv, jax), flags_parser=_parse_flags)


@contextlib.contextmanager
def reader_may_leave() -> Iterator[None]:
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
    if jax and _COMPILATION_CACHE.value:
      hardware.enable_compilation_cache(_COMPILATION_CACHE.value)
    main(argv)
  except KeyboardInterrupt:
    print("interrupted; run again to continue.", file=sys.stderr)
    sys.exit(130)
  except OSError as error:
    if error.filename is None:
      raise
    fail(f"{error.filename2 or error.filename}: {error.strerror}.")
  except InputError as error:
    fail(str(error))


def fail(message: str) -> None:
  """Prints one line "error: message" on stderr and exits with status 2."""
  print("error:", " ".join(message.split()), file=sys.stderr)
  sys.exit(2)


def compilation_cache() -> str | None:
  """Returns the value of --compilation_cache."""
  return _COMPILATION_CACHE.value
