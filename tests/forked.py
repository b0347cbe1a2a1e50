"""What a forked test process runs; imported in it, so it imports little."""

import os
from pathlib import Path
import runpy
import sys


def run_binary(name: str, arguments: list[str], folder: Path):
  """Runs the binary of that name; stdin, stdout, stderr are files."""
  os.dup2(os.open(folder / "stdin", os.O_RDONLY), 0)
  for number, file in ((1, "stdout"), (2, "stderr")):
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    os.dup2(os.open(folder / file, flags), number)
  sys.argv = [name, *arguments]
  module = f"latentnmt.experiments.{name}"
  runpy.run_module(module, run_name="__main__", alter_sys=True)
