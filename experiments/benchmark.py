"""Measures how fast a model decodes, and counts its parameters.

  python -m experiments.benchmark --run=RUN --data=DATA --methods=beam4
  python -m experiments.benchmark --preset=gauss_base --methods=delta0,delta1

With --run, sentences are those of about median length in the test set, and
measurements are added to the run's results.jsonl. With --preset, parameters
and sentences are random, so the translations are as long as the model allows,
and measurements are printed as JSON lines. Either way a table comes last.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import json
import statistics
import time

from absl import flags
from flax import linen as nn
import jax
import numpy as np

from experiments import common
from latentnmt import checkpoint, data, decode, models, zoo
from latentnmt.types import InputError, Params

_RUN = common.run_flag(required=False)
common.checkpoint_flag()
_DATA = common.data_flag(required=False)
_SPLIT = common.split_flag()
_PRESET = flags.DEFINE_string("preset", None, "Instead of --run: a preset.")
_VOCAB_SIZE = flags.DEFINE_integer("vocab_size", 32_000, "V, with --preset.", 4)
_LENGTH = flags.DEFINE_integer(
  "length", 24, "Tokens of each source sentence, with --preset.", 1
)
_METHODS = common.methods_flag()
common.teacher_flag()
_BATCH_SIZES = flags.DEFINE_list(
  "batch_sizes", ["1", "32"], "Numbers of sentences decoded at once."
)
_BATCHES = flags.DEFINE_integer("batches", 4, "Batches of a repetition.", 1)
_REPEATS = flags.DEFINE_integer("repeats", 5, "Repetitions.", 1)
_STEP = 8  # lengths of sources are rounded up to a multiple


@dataclasses.dataclass(frozen=True)
class Subject:
  """What is measured.

  Attributes:
    name: of the run or preset.
    model: the model.
    params: its parameters.
    sources: int32[n, S], sentences of about the same length.
    source: where the sentences are from, a split or "random".
    scores: what ranks the candidates of methods that a teacher judges.
  """

  name: str
  model: nn.Module
  params: Params
  sources: np.ndarray
  source: str
  scores: Mapping[decode.Method, decode.Score | None]


def main(argv):
  """Measures every method at every batch size."""
  del argv
  methods = [decode.parse_method(name) for name in _METHODS.value]
  sizes = _batch_sizes(_BATCH_SIZES.value)
  if (_RUN.value is None) == (_PRESET.value is None):
    raise InputError("Give either --run or --preset.")
  if _RUN.value:
    common.refuse(["vocab_size", "length"], "is for --preset")
  else:
    common.refuse(["data", "split", "checkpoint", "teacher"], "is for --run")
  subject = _trained(methods) if _RUN.value else _random()
  rows = [_parameters(subject)]
  for method in methods:
    rows += [_speed(subject, method, size) for size in sizes]
  for row in rows:
    if _RUN.value:
      checkpoint.append_result(_RUN.value, row)
    else:
      print(json.dumps({"preset": _PRESET.value, **row}))
  print(_table(subject, rows))


def _batch_sizes(names: Sequence[str]) -> list[int]:
  if not all(name.isdecimal() and int(name) for name in names):
    raise InputError(f"--batch_sizes={','.join(names)}: give numbers above 0.")
  return [int(name) for name in names]


def _trained(methods: Sequence[decode.Method]) -> Subject:
  if not _DATA.value:
    raise InputError("Give --data for the sentences to decode with --run.")
  sources = data.PreparedData.open(_DATA.value).sources(_SPLIT.value)
  (step,) = common.checkpoint_steps(_RUN.value)
  model, params, tokenizer = checkpoint.load(_RUN.value, step)
  x = _of_median_length(tokenizer.encode(sources))
  rankings = common.rankings(methods, tokenizer)
  scores = {method: score for method, (score, _) in rankings.items()}
  return Subject(_RUN.value, model, params, x, _SPLIT.value, scores)


def _of_median_length(sequences: list[list[int]]) -> np.ndarray:
  """int32[n, S]: the sentences whose length rounds up as the median does."""
  lengths = np.array([-len(ids) // _STEP * -_STEP for ids in sequences])
  size = int(np.quantile(lengths, 0.5, method="inverted_cdf"))
  chosen = [sequences[i] for i in np.flatnonzero(lengths == size)]
  return np.array([ids + [0] * (size - len(ids)) for ids in chosen], np.int32)


def _random() -> Subject:
  config = zoo.config(_PRESET.value, vocab_size=_VOCAB_SIZE.value)
  model = models.build(config)
  key = jax.random.key(0)
  batch = checkpoint.example_batch()
  params = jax.jit(model.init)(key, batch, key)["params"]
  rng = np.random.default_rng(0)
  shape = 64, _LENGTH.value
  x = rng.integers(3, config.transformer.vocab_size, shape, np.int32)
  x[:, -1] = 1
  return Subject(_PRESET.value, model, params, x, "random", {})


def _parameters(subject: Subject) -> dict:
  count = sum(leaf.size for leaf in jax.tree.leaves(subject.params))
  return {"metric": "parameters", "value": count}


def _speed(subject: Subject, method: decode.Method, size: int) -> dict:
  """One row: median and range of sentences/s, compilation apart."""
  score = subject.scores.get(method)
  index = np.arange(_BATCHES.value * size) % len(subject.sources)
  batches = subject.sources[index.reshape(_BATCHES.value, size)]

  def seconds() -> float:
    start = time.perf_counter()
    for x in batches:
      found = decode.translate(subject.model, subject.params, x, method, score)
      jax.block_until_ready(found)
    return time.perf_counter() - start

  first = seconds()
  times = [
    seconds()
    for _ in common.progress(range(_REPEATS.value), desc=f"{method} x {size}")
  ]
  rates = [index.size / t for t in times]
  return {
    "metric": "sentences_per_second",
    "value": statistics.median(rates),
    "lowest": min(rates),
    "highest": max(rates),
    "split": subject.source,
    "method": str(method),
    "batch_size": size,
    "source_length": batches.shape[-1],
    # Loading, where the compilation cache is on and has the program.
    "compile_seconds": max(first - statistics.median(times), 0.0),
    "device": common.device_description(),
  }


def _table(subject: Subject, rows: list[dict]) -> str:
  parameters, *speeds = rows
  lines = [
    f"{subject.name}: {parameters['value']:,} parameters,"
    f" {common.device_description()}, {speeds[0]['source_length']} source"
    f" tokens ({subject.source})",
    "",
    "| method | batch | sentences/s | range | compile s |",
    "|---|---:|---:|---:|---:|",
  ]
  for row in speeds:
    lines.append(
      f"| {row['method']} | {row['batch_size']} | {row['value']:.1f}"
      f" | {row['lowest']:.1f}-{row['highest']:.1f}"
      f" | {row['compile_seconds']:.1f} |"
    )
  return "\n".join(lines)


if __name__ == "__main__":
  common.run(main)
