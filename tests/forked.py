"""What a forked test process runs; imported in it, so it imports little."""

import os
from pathlib import Path
import runpy
import sys


def run_binary(name: str, arguments: list[str], stdout: Path, stderr: Path):
  """Runs a binary as `python -m experiments.NAME`, its output into files."""
  for number, path in ((1, stdout), (2, stderr)):
    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
  sys.argv = [name, *arguments]
  runpy.run_module(f"experiments.{name}", run_name="__main__", alter_sys=True)
