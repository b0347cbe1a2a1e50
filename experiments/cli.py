"""The command `latentnmt`: one name for all binaries.

  latentnmt                         the commands, with a line each
  latentnmt train --help            what one does, and its flags
  latentnmt list presets            also recipes, methods
  latentnmt --version

`latentnmt train --flags` is `python -m latentnmt.experiments.train --flags`.
Nothing of a binary is imported before it is asked for, so that the list of
commands comes at once.
"""

import ast
from collections.abc import Iterator
import difflib
import os
from pathlib import Path
import runpy
import sys

import latentnmt
from latentnmt.errors import InputError
from latentnmt.experiments import app
from latentnmt.experiments.study.recipes import RECIPES

_FOLDER = Path(__file__).parent
_HELP = "--help", "-h", "help"
_LIST = "list presets|recipes|methods"


def commands() -> dict[str, str]:
  """Returns the first line of each binary's docstring, by the binary's name.

  A binary is any file here that ends in the line that runs it: there is nothing
  to register.
  """
  files = {path.stem: path for path in _FOLDER.glob("*.py")}
  files |= {path.parent.name: path for path in _FOLDER.glob("*/__main__.py")}
  texts = {n: files[n].read_text(encoding="utf-8") for n in sorted(files)}
  return {
    name: ast.get_docstring(ast.parse(text)).split("\n")[0]
    for name, text in texts.items()
    if '\nif __name__ == "__main__":\n' in text
  }


def main() -> None:
  """Runs `latentnmt` with the arguments of the process."""
  with app.reader_may_leave():
    try:
      _dispatch(*sys.argv[1:])
    except InputError as error:
      app.fail(str(error))


def _dispatch(name: str = "--help", *arguments: str) -> None:
  if name in _HELP:
    _print_table(commands() | {_LIST: "Prints what names there are."})
    print("\nlatentnmt COMMAND --help shows what a command does and its flags.")
  elif name == "--version":
    print("latentnmt", latentnmt.__version__)
  elif name == "list":
    _list(*arguments)
  else:
    _check(name, [*commands(), "list"], "command")
    _run(name)


def _run(name: str) -> None:
  """Runs a binary as `python -m` would."""
  del sys.argv[0]
  # The current folder, where a model or prior of one's own may lie.
  if not sys.flags.safe_path:
    sys.path.insert(0, os.getcwd())
  runpy.run_module(
    f"latentnmt.experiments.{name}", run_name="__main__", alter_sys=True
  )


def _list(kind: str = "--help", *_) -> None:
  kinds = {"presets": _presets, "recipes": _recipes, "methods": _methods}
  if kind in _HELP:
    print(f"latentnmt {_LIST}")
    return
  _check(kind, kinds, "list")
  for name, line in kinds[kind]():
    print(f"{name:18} {line}", flush=True)


def _check(name: str, names, what: str) -> None:
  """Raises InputError, with the nearest of some names, for another name."""
  if name not in names:
    nearest, *_ = difflib.get_close_matches(name, names, n=1, cutoff=0)
    raise InputError(
      f"Unknown {what} {name!r}; did you mean {nearest!r}? They are:"
      f" {', '.join(names)}."
    )


def _presets() -> Iterator[tuple[str, str]]:
  """Yields parameters, with the paper's V, and family of each preset."""
  for name in latentnmt.zoo.names():
    config = latentnmt.zoo.config(name, vocab_size=31_500)
    millions = latentnmt.num_parameters(config) / 1e6
    width = config.transformer.width
    yield name, f"{millions:5.1f}M parameters, width {width}, {config.family}"


def _recipes() -> Iterator[tuple[str, str]]:
  for name, recipe in RECIPES.items():
    yield name, recipe.summary


def _methods() -> Iterator[tuple[str, str]]:
  for cls in latentnmt.decode.METHODS:
    name, *others = cls.examples
    also = f" Also {', '.join(others)}." if others else ""
    yield name, cls.__doc__.split("\n")[0] + also


def _print_table(lines: dict[str, str]) -> None:
  for name, line in lines.items():
    print(f"  {name:30} {line}")
