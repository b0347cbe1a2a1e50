"""The files of a run directory besides the checkpoints."""

import json
import os
import pathlib
from typing import Any

from latentnmt import config as config_lib
from latentnmt.config import ExperimentConfig
from latentnmt.text import Tokenizer
from latentnmt.types import InputError

_RESULT_KEY = ("metric", "split", "method", "estimator", "step", "batch_size")


def create(
  run: str | os.PathLike, config: ExperimentConfig, tokenizer: Tokenizer
) -> pathlib.Path:
  """Makes a run directory, or checks that an existing one is this run's.

  Raises:
    InputError: if `run` is the directory of a run with another configuration
      (the fields that differ are named), or is some other directory or file
      that is not empty. Nothing is changed then.
  """
  run = pathlib.Path(run)
  if (run / "config.json").is_file():
    differing = config_lib.differences(read_config(run), config)
    if differing:
      raise InputError(
        f"{run} was made with another configuration ("
        + "; ".join(differing)
        + "); use another run directory or the old settings."
      )
    return run
  if run.exists() and not (run.is_dir() and _is_empty(run)):
    raise InputError(
      f"{run} exists but is no run directory (it has no config.json); use"
      " another one."
    )
  try:
    run.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise InputError(f"{run} cannot be made: {error.strerror}.") from None
  tokenizer.save(run / "vocab.model")
  # The configuration last: a directory that has one is complete.
  tree = config_lib.to_dict(config)
  _write(run / "config.json", json.dumps(tree, indent=2) + "\n")
  return run


def _is_empty(run: pathlib.Path) -> bool:
  """Nothing there but what a `create` cut short leaves behind."""
  return all(path.name.startswith("vocab.model") for path in run.iterdir())


def read_config(run: str | os.PathLike) -> ExperimentConfig:
  """The configuration a run was made with.

  Raises:
    InputError: if `run` is no run directory or its config.json is damaged.
  """
  path = pathlib.Path(run) / "config.json"
  try:
    tree = json.loads(path.read_text(encoding="utf-8"))
  except (FileNotFoundError, NotADirectoryError):
    raise InputError(
      f"{run} is not a run directory (no config.json in it); the train binary"
      " makes one."
    ) from None
  except OSError as error:
    raise InputError(f"{path} cannot be read: {error.strerror}.") from None
  except ValueError as error:
    raise InputError(f"{path} is damaged: {error}.") from None
  return config_lib.from_dict(tree)


def finished(run: str | os.PathLike) -> dict[str, Any] | None:
  """How training ended: reason, step, best_step, best_bleu; None if it has not.

  Reasons are "steps" (all were taken) and "patience" (early stopping).
  """
  path = pathlib.Path(run) / "finished.json"
  return json.loads(path.read_text("utf-8")) if path.is_file() else None


def mark_finished(
  run: str | os.PathLike,
  reason: str,
  *,
  step: int,
  best_step: int,
  best_bleu: float,
) -> None:
  """Writes what `finished` reads."""
  end = {
    "reason": reason,
    "step": step,
    "best_step": best_step,
    "best_bleu": best_bleu,
  }
  _write(pathlib.Path(run) / "finished.json", json.dumps(end) + "\n")


def hypotheses_path(
  run: str | os.PathLike, split: str, method: Any
) -> pathlib.Path:
  """Where the translations of a split by a decoding method are."""
  return pathlib.Path(run) / "hypotheses" / f"{split}.{method}.txt"


def write_hypotheses(
  run: str | os.PathLike, split: str, method: Any, lines: list[str]
) -> pathlib.Path:
  """Writes one translation a line and returns the file's path."""
  path = hypotheses_path(run, split, method)
  path.parent.mkdir(parents=True, exist_ok=True)
  # A line break inside a translation would shift every later line.
  text = "".join(line.replace("\n", " ") + "\n" for line in lines)
  return _write(path, text)


def append_result(run: str | os.PathLike, row: dict[str, Any]) -> None:
  """Adds one line to results.jsonl, such as metric, value, split, method."""
  append_line(pathlib.Path(run) / "results.jsonl", row)


def read_results(run: str | os.PathLike) -> list[dict[str, Any]]:
  """Rows of results.jsonl in order of first appearance.

  The last row wins among those of the same metric, split, method, estimator,
  step and batch size: evaluating again replaces a result.
  """
  rows = read_lines(pathlib.Path(run) / "results.jsonl")
  return list(
    {tuple(row.get(k) for k in _RESULT_KEY): row for row in rows}.values()
  )


def append_line(path: pathlib.Path, row: dict[str, Any]) -> None:
  """Adds one JSON line to a file, in place of a last one cut short."""
  with open(path, "a+b") as file:
    file.seek(max(0, file.tell() - 1))
    if file.read() not in (b"", b"\n"):
      file.seek(0)
      file.truncate(file.read().rfind(b"\n") + 1)
    file.write(json.dumps(row).encode() + b"\n")


def read_lines(path: pathlib.Path) -> list[dict[str, Any]]:
  """Rows of a file of JSON lines, none if there is no file.

  A last line that a killed process left unfinished is left out.

  Raises:
    InputError: for any other line that is no JSON.
  """
  if not path.is_file():
    return []
  lines = path.read_text("utf-8").split("\n")
  rows = []
  for number, line in enumerate(lines[:-1], start=1):
    try:
      rows.append(json.loads(line))
    except ValueError as error:
      raise InputError(f"{path}, line {number}: {error}.") from None
  return rows


def write_lines(path: pathlib.Path, rows: list[dict[str, Any]]) -> None:
  """Replaces a file of JSON lines."""
  _write(path, "".join(json.dumps(row) + "\n" for row in rows))


def _write(path: pathlib.Path, text: str) -> pathlib.Path:
  """Writes a text so that the file is there whole or not at all."""
  temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
  temporary.write_text(text, encoding="utf-8", newline="\n")
  return temporary.replace(path)
