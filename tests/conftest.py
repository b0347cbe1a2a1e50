"""Strict JAX on CPU, for the tests and for the processes that they start."""

import dataclasses
import multiprocessing
import os

from absl import flags
import forked
import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
# The tests compile much and run little: three times faster compilation is
# worth steps of half the speed.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# Binaries have flags of the same names. Tests that import several of them for
# their functions have them in one process, and never parse flags there.
flags.Flag.allow_override = property(lambda self: True, lambda self, value: 0)
# The package itself imports nothing, so what is slow to import is named.
HEAVY = [
  "latentnmt.train",
  "latentnmt.likelihood",
  "latentnmt.zoo",
  "latentnmt.experiments.app",
]


@pytest.fixture(autouse=True, scope="module")
def programs_of_one_file():
  """Drops what a file compiled: a process may map only so many programs.

  Past the limit, vm.max_map_count of Linux, XLA ends the process.
  """
  yield
  import jax  # once the settings above are made

  jax.clear_caches()


@dataclasses.dataclass(frozen=True)
class Finished:
  """How a binary ended: exit status, standard output and error."""

  status: int
  stdout: str
  stderr: str


@pytest.fixture(scope="session")
def binary(tmp_path_factory):
  """Runs a binary: binary("translate", "--run=...") -> Finished.

  Each is a process of its own, forked from one that has imported everything:
  a call with a mistake in it takes 0.02 seconds instead of three.
  """
  context = multiprocessing.get_context("forkserver")
  context.set_forkserver_preload(HEAVY)
  folder = tmp_path_factory.mktemp("output")

  def run(name: str, *arguments, stdin: str = "") -> Finished:
    (folder / "stdin").write_text(stdin)
    arguments = [str(argument) for argument in arguments]
    process = context.Process(
      target=forked.run_binary, args=(name, arguments, folder)
    )
    process.start()
    process.join()
    outputs = ((folder / n).read_text() for n in ("stdout", "stderr"))
    return Finished(process.exitcode, *outputs)

  return run
