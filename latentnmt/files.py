"""Files that appear whole or not at all, and files of JSON lines.

A process may be killed at any time. A file is written beside its place and
renamed, and a file of lines grows by whole lines, so that whoever reads finds
what was there before or what is there now. Nothing here imports JAX.
"""

from collections.abc import Iterator, Mapping
import contextlib
import json
import os
from pathlib import Path
from typing import Any

from latentnmt.errors import InputError


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
  """Gives a file to write, which then becomes `path`, unless writing failed."""
  path = Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
  try:
    yield partial
    os.replace(partial, path)
  finally:
    partial.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> Path:
  """Writes a text file in UTF-8 and returns its path."""
  with replacing(path) as partial:
    partial.write_text(text, encoding="utf-8", newline="\n")
  return Path(path)


def write_json(path: str | os.PathLike, value: Any) -> Path:
  """Writes a JSON file, indented for people, and returns its path."""
  text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
  return write_text(path, text)


def read_json(path: str | os.PathLike) -> Any:
  """Returns the content of a JSON file, or None where there is no file.

  Raises:
    InputError: for a file that is no JSON or cannot be read.
  """
  try:
    return json.loads(Path(path).read_text(encoding="utf-8"))
  except (FileNotFoundError, NotADirectoryError):
    return None
  except OSError as error:
    raise InputError(f"{path} cannot be read: {error.strerror}.") from None
  except ValueError as error:
    raise InputError(f"{path} is damaged: {error}; delete it.") from None


def append_json_line(path: Path, row: Mapping[str, Any]) -> None:
  """Adds one JSON line to a file, in place of a last one cut short."""
  path.parent.mkdir(parents=True, exist_ok=True)
  with open(path, "a+b") as file:
    file.seek(max(0, file.tell() - 1))
    if file.read() not in (b"", b"\n"):
      file.seek(0)
      file.truncate(file.read().rfind(b"\n") + 1)
    file.write(json.dumps(row).encode() + b"\n")


def read_json_lines(path: Path) -> list[dict[str, Any]]:
  """Returns the rows of a file of JSON lines, none where there is no file.

  A last line that a killed process left unfinished is left out.

  Raises:
    InputError: for any other line that is no JSON.
  """
  if not path.is_file():
    return []
  rows = []
  lines = path.read_text("utf-8").split("\n")
  for number, line in enumerate(lines[:-1], start=1):
    try:
      rows.append(json.loads(line))
    except ValueError as error:
      raise InputError(f"{path}, line {number}: {error}.") from None
  return rows


def write_json_lines(path: Path, rows: list[dict[str, Any]]) -> None:
  """Replaces a file of JSON lines."""
  write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def check_made_from(
  path: str | os.PathLike, old: Mapping, new: Mapping, remedy: str
) -> None:
  """Refuses what is already at `path` if it was made from something else.

  Args:
    path: what is there, for the message.
    old: what that was made from, by field; None where a field is missing.
    new: what it would be made from now.
    remedy: what the user may do about it.

  Raises:
    InputError: naming every field that differs.
  """
  differing = [
    f"{name}: {_shown(old.get(name))} -> {_shown(new.get(name))}"
    for name in {**old, **new}
    if old.get(name) != new.get(name)
  ]
  if differing:
    raise InputError(
      f"{path} was made otherwise ({'; '.join(differing)}); {remedy}."
    )


def _shown(value: Any) -> Any:
  # An empty text would leave a hole in the message.
  return value if value != "" else "''"
