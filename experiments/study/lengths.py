"""Refusing data that a stage after hours of training would refuse."""

from pathlib import Path

from latentnmt.errors import InputError
from latentnmt.experiments.study.schema import Recipe


def check_lengths(recipe: Recipe, path: Path, truncate: bool) -> None:
  """Refuses data with sentences that a model of the recipe cannot take.

  Dev sources are translated while a model trains, test pairs are translated
  and scored, and dev pairs where checkpoints are; `truncate` allows all but the
  first to be too long.

  Raises:
    InputError: names the split, the side and the first line.
  """
  # JAX comes with it: only studies of one's own data wait for that.
  from latentnmt.data import PreparedData

  prepared = PreparedData.open(path)
  limits = _limits(recipe, prepared.tokenizer.vocab_size)
  name = min(limits, key=limits.get)
  sides = [("dev", "source", 0)]
  if not truncate:
    sides += [("test", "source", 0), ("test", "target", 1)]
    sides += [("dev", "target", 1)] if recipe.checkpoint_samples else []
  for split, side, column in sides:
    lengths = prepared.store(split).lengths[:, column]
    long = (lengths > limits[name]).nonzero()[0]
    if len(long):
      raise InputError(
        f"{path}: {len(long):,} of {len(lengths):,} {split} {side}s are longer"
        f" than the {limits[name]} tokens that {name} takes, the first in line"
        f" {long[0] + 1} ({lengths[long[0]]} tokens); shorten or remove them"
        + ("." if (split, column) == ("dev", 0) else " or give --truncate.")
      )


def _limits(recipe: Recipe, vocab_size: int) -> dict[str, int]:
  """Returns how many tokens each run's model takes."""
  from latentnmt.experiments.settings import experiment_config

  return {
    name: experiment_config(
      vocab_size, run.settings, preset=run.preset, model=run.model
    ).model.transformer.max_length
    for name, run in recipe.runs.items()
  }
