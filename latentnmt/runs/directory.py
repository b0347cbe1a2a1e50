"""`RunDirectory`: every path of a run, and what stands in its small files."""

from collections.abc import Mapping
import dataclasses
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import latentnmt
from latentnmt import config as cfg
from latentnmt import files
from latentnmt.config import ExperimentConfig
from latentnmt.errors import InputError
from latentnmt.runs.results import Result

if TYPE_CHECKING:
  from latentnmt.text import Tokenizer


@dataclasses.dataclass(frozen=True)
class RunDirectory:
  """A run directory, there already or still to be made.

  Attributes:
    path: of the directory.
  """

  path: Path

  def __init__(self, path: "str | os.PathLike"):
    object.__setattr__(self, "path", Path(path))

  def __fspath__(self) -> str:
    """Lets a run stand wherever a path does."""
    return str(self.path)

  def __str__(self) -> str:
    return str(self.path)

  @property
  def name(self) -> str:
    """Name of the directory itself."""
    return self.path.name

  # Paths.

  @property
  def config_path(self) -> Path:
    """The configuration, written last: a directory that has it is complete."""
    return self.path / "config.json"

  @property
  def vocabulary_path(self) -> Path:
    """The tokenizer."""
    return self.path / "vocab.model"

  @property
  def checkpoints_path(self) -> Path:
    """The folder of checkpoints, absolute as Orbax wants it."""
    return (self.path / "checkpoints").resolve()

  @property
  def metrics_path(self) -> Path:
    """A line for each log point and dev evaluation."""
    return self.path / "metrics.jsonl"

  @property
  def finished_path(self) -> Path:
    """Says that training is over, and why."""
    return self.path / "finished.json"

  @property
  def results_path(self) -> Path:
    """A line for each `Result`."""
    return self.path / "results.jsonl"

  @property
  def tensorboard_path(self) -> Path:
    """The folder of TensorBoard events."""
    return self.path / "tensorboard"

  @property
  def figures_path(self) -> Path:
    """The folder of pictures."""
    return self.path / "figures"

  def hypotheses_path(self, split: str, name: object) -> Path:
    """Translations of a split; `name` is a method, or with ".step<N>"."""
    return self.path / "hypotheses" / f"{split}.{name}.txt"

  def about_hypotheses_path(self, split: str, name: object) -> Path:
    """File that says what these translations are of."""
    return self.hypotheses_path(split, name).with_suffix(".json")

  def hypotheses_paths(self) -> list[Path]:
    """All files of translations, in order of their names."""
    return sorted((self.path / "hypotheses").glob("*.*.txt"))

  def likelihood_path(self, split: str, step: int) -> Path:
    """Figures of each sentence of a split by the checkpoint of a step."""
    return self.path / "likelihood" / f"{split}.{step}.npz"

  # Configuration.

  def create(self, config: ExperimentConfig, tokenizer: "Tokenizer") -> None:
    """Makes the directory, or checks that an existing one is this run's.

    Raises:
      InputError: if it is that of a run with another configuration (the
        fields that differ are named), or some other directory or file that is
        not empty. Nothing is changed then.
    """
    if self.config_path.is_file():
      files.check_made_from(
        self, cfg.flatten(self.config()), cfg.flatten(config),
        "use another run directory or the old settings",
      )  # fmt: skip
      return
    if self.path.exists() and not self._is_empty():
      raise InputError(
        f"{self} exists but is no run directory (it has no config.json); use"
        " another one."
      )
    try:
      self.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
      raise InputError(f"{self} cannot be made: {error.strerror}.") from None
    # The configuration last: a directory that has one is complete.
    tokenizer.save(self.vocabulary_path)
    tree = {"version": latentnmt.__version__, **cfg.to_dict(config)}
    files.write_json(self.config_path, tree)

  def _is_empty(self) -> bool:
    """Says if all that is there is what a `create` cut short leaves behind."""
    return self.path.is_dir() and all(
      file.name.startswith("vocab.model") for file in self.path.iterdir()
    )

  def config_tree(self) -> dict[str, Any]:
    """Returns config.json as it stands.

    Raises:
      InputError: if this is no run directory or its config.json is damaged.
    """
    tree = files.read_json(self.config_path)
    if tree is None:
      raise InputError(
        f"{self} is not a run directory (no config.json in it);"
        " `latentnmt train` makes one."
      )
    return tree

  def config(self) -> ExperimentConfig:
    """Returns the configuration that the run was made with.

    Raises:
      InputError: as `config_tree`; for settings that this version lacks.
    """
    tree = dict(self.config_tree())
    tree.pop("version", None)
    try:
      return cfg.from_dict(tree)
    except InputError as error:
      raise InputError(
        f"{self.config_path}: {error} {self.made_by()}"
      ) from None

  def made_by(self) -> str:
    """Returns a sentence on the versions that made and that read the run."""
    version = self.config_tree().get("version", "before 0.2")
    return (
      f"The run was made by latentnmt {version} and this is"
      f" {latentnmt.__version__}: read it with that version, or train it again."
    )

  def tokenizer(self) -> "Tokenizer":
    """Returns the run's tokenizer."""
    from latentnmt.text import Tokenizer  # imports JAX, which takes a second

    return Tokenizer.load(self.vocabulary_path)

  # Training.

  def finished(self) -> dict[str, Any] | None:
    """Returns reason, step, best_step, best_score, select; None before the end.

    Reasons are "steps" (all were taken) and "patience" (early stopping); the
    score is what `train.select` says, on dev.
    """
    end = files.read_json(self.finished_path)
    if end and "best_bleu" in end:  # of an earlier version
      end |= {"best_score": end.pop("best_bleu"), "select": "bleu"}
    return end

  def mark_finished(
    self,
    reason: str,
    *,
    step: int,
    best_step: int,
    best_score: float,
    select: str = "bleu",
  ) -> None:
    """Writes what `finished` returns."""
    end = dict(
      reason=reason,
      step=step,
      best_step=best_step,
      best_score=best_score,
      select=select,
    )
    files.write_text(self.finished_path, json.dumps(end) + "\n")

  def metrics(self) -> list[dict[str, Any]]:
    """Returns the rows of metrics.jsonl, in order of their steps."""
    return [_with_both_bounds(row) for row in self._metrics_rows()]

  def _metrics_rows(self) -> list[dict[str, Any]]:
    return files.read_json_lines(self.metrics_path)

  # Evaluations.

  def write_hypotheses(
    self,
    split: str,
    name: object,
    lines: list[str],
    about: Mapping[str, Any] | None = None,
  ) -> Path:
    """Writes one translation a line, and beside it what is known of them.

    Returns:
      The path of the translations.
    """
    about_path = self.about_hypotheses_path(split, name)
    # Killed in between, new translations must not stand beside what was said
    # of the old ones.
    about_path.unlink(missing_ok=True)
    # A line break inside a translation would shift every later line.
    text = "".join(line.replace("\n", " ") + "\n" for line in lines)
    path = files.write_text(self.hypotheses_path(split, name), text)
    if about is not None:
      files.write_json(about_path, about)
    return path

  def append_result(self, result: Result) -> None:
    """Adds a line to results.jsonl."""
    files.append_json_line(self.results_path, result.as_row())

  def results(self) -> list[Result]:
    """Returns the results in order of first appearance.

    The last one wins among those of the same `Result.key`: evaluating again
    replaces a result.
    """
    rows = files.read_json_lines(self.results_path)
    results = [Result.from_row(row) for row in rows]
    return list({result.key: result for result in results}.values())

  def write_likelihood(self, split: str, step: int, **columns) -> None:
    """Writes figures of each sentence, by name."""
    with files.replacing(self.likelihood_path(split, step)) as partial:
      with open(partial, "wb") as file:  # savez adds .npz to a mere name
        np.savez(file, **columns)

  def likelihood(self, split: str, step: int) -> dict[str, np.ndarray]:
    """Returns what `write_likelihood` wrote; {} where there is nothing."""
    path = self.likelihood_path(split, step)
    if not path.is_file():
      return {}
    with np.load(path) as found:
      return _with_escapes(_with_length_paid(dict(found)))


# What versions before 0.2 wrote left the length unpaid: `log_likelihood`,
# `elbo` and `annealed` were of log p(y|x, T), with log p(T|x) in a column
# beside them.


def _with_length_paid(columns: dict[str, Any]) -> dict[str, Any]:
  """Converts the columns of an older likelihood file to this version's."""
  if "given_length" in columns:
    return columns
  paid = {
    name: columns[name] + columns["log_pl"]
    for name in ("log_likelihood", "elbo", "annealed")
    if name in columns
  }
  if "sweep" in columns:
    paid["sweep"] = columns["sweep"] + columns["log_pl"][:, None]
  return {**columns, **paid, "given_length": columns["log_likelihood"]}


def _with_escapes(columns: dict[str, Any]) -> dict[str, Any]:
  """Adds a column to a file from before models had an escape."""
  zeros = np.zeros(len(columns["num_tokens"]), np.float32)
  return {"escaped": zeros, **columns}


def _with_both_bounds(row: dict[str, Any]) -> dict[str, Any]:
  """Converts a row of an older metrics.jsonl to this version's."""
  for prefix in ("", "dev_"):
    elbo, log_pl = row.get(f"{prefix}elbo"), row.get(f"{prefix}log_pl")
    if f"{prefix}elbo_given_length" in row or None in (elbo, log_pl):
      continue
    row |= {f"{prefix}elbo": elbo + log_pl, f"{prefix}elbo_given_length": elbo}
  return row
