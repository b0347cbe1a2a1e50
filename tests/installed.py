"""Checks an installation, from outside a clone: `python tests/installed.py`.

Every command answers --help, and every command that the package's texts name
(help, error messages, what a study is going to run) is there with its flags.
"""

import ast
import concurrent.futures
from importlib import metadata
from pathlib import Path
import re
import subprocess
import sys

import latentnmt
from latentnmt.experiments import cli

COMMAND = Path(sys.executable).parent / "latentnmt"
# `latentnmt train`, and latentnmt train --flag=value --flag=value
NAMED = re.compile(r"latentnmt ([a-z_]+)((?:[\s\\]+--\w+(?:=[^\s`]+)?)+)|"
                   r"`latentnmt ([a-z_]+)")  # fmt: skip


def run(*arguments) -> str:
  """Returns what a command prints; it must succeed."""
  process = subprocess.run(
    [COMMAND, *arguments], capture_output=True, text=True
  )
  assert process.returncode == 0, (arguments, process.stderr)
  return process.stdout


def helps() -> dict[str, str]:
  """Returns what every command's --help prints."""
  names = list(cli.commands())
  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    shown = pool.map(lambda name: run(name, "--help"), names)
    return dict(zip(names, shown, strict=True))


def text(node) -> str:
  """Returns a string of the source; what an f-string fills in is X."""
  if isinstance(node, ast.JoinedStr):
    return "".join(map(text, node.values))
  return node.value if isinstance(node, ast.Constant) else "X"


def texts():
  """Yields each string in the installed package."""
  # In a clone the commands lie beside the library.
  folders = {Path(module.__file__).parent for module in (latentnmt, cli)}
  for path in {path for top in folders for path in top.rglob("*.py")}:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
      if isinstance(node, ast.Constant | ast.JoinedStr):
        yield str(text(node))


def check_named(shown: str, known: dict[str, str]) -> int:
  """Asserts that the commands named in a text exist; returns their number."""
  for extra in re.findall(r"latentnmt\[(\w+)\]", shown):
    assert extra in metadata.metadata("latentnmt").get_all("Provides-Extra")
  found = NAMED.findall(shown)
  for name, flags, alone in found:
    help = known[name or alone].replace("--[no]", "--")
    for flag in set(re.findall(r"--(\w+)", flags)) - {"help"}:
      either = f"--{flag}:", f"--{flag.removeprefix('no')}:"
      assert any(f in help for f in either), f"{name} has no --{flag}"
  return len(found)


def main():
  """Checks all, and prints a line."""
  files = metadata.files("latentnmt")
  tops = {file.parts[0] for file in files if file.suffix == ".py"}
  assert tops <= {"latentnmt"} or any("editable" in str(f) for f in files), tops
  assert run("--version") == f"latentnmt {metadata.version('latentnmt')}\n"
  known = helps() | {"list": run("list")}
  assert run().count("\n") >= len(known)
  plan = run("study", "--recipe=quickstart", "--dry_run")
  assert not any("python -m experiments" in shown for shown in texts())
  named = sum(check_named(shown, known) for shown in [plan, *texts()])
  assert named > 20, named
  print(f"installed: {len(known)} commands; {named} named in texts are there.")


if __name__ == "__main__":
  main()
