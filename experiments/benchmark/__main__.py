"""Measures how fast models decode, train and score translations.

  python -m experiments.benchmark --run=RUN --data=DATA --methods=beam4
  python -m experiments.benchmark --preset=gauss_base --methods=delta0,delta1
  python -m experiments.benchmark --preset=flow_base \
    --tasks=decode,train,likelihood

With --run, sentences are those of about median length in a split, and
measurements are added to the run's results.jsonl. With --preset, parameters and
sentences are random and lengths are as given: each translation has exactly
--target_length tokens, and measurements are printed as JSON lines. A table
comes last. Compilation is apart. --set changes what a preset is or how it is
trained, for example --set=model.transformer.dtype=bfloat16.

Utilisation is that of the fastest product of two large matrices on the same
machine, measured first. The floor beside a figure is the time that its matrix
products take at that speed, or reading their weights from memory, whichever is
longer. Memory is the most that the process has had until then.

Whole tables, each line of them measured in a process of its own:

  python -m experiments.benchmark --suite=cpu --peers     about 35 minutes
      Base presets at batch 1 and 64 on two cores, in float32 and with products
      of bfloat16 numbers, beside CTranslate2 and Hugging Face's Marian
      (pip install 'latentnmt[peers]').
  python -m experiments.benchmark --suite=gpu     about an hour
      Every preset in bfloat16 at batch 1 and 256. With --preset, that alone.
  python -m experiments.benchmark --suite=compile     about 40 minutes
      Compilation of every preset, and loading from the persistent cache. With
      --preset, that alone.
"""

from collections.abc import Iterator, Sequence
import dataclasses
import json
from pathlib import Path
import subprocess
import sys
import tempfile

from absl import flags
import numpy as np

from latentnmt import checkpoint, data, decode, zoo
from latentnmt.config import (
  AutoregressiveConfig,
  ExperimentConfig,
  LatentConfig,
  TrainConfig,
  override,
)
from latentnmt.errors import InputError
from latentnmt.experiments import app, hardware, shared_flags
from latentnmt.experiments.benchmark import (
  baselines as peers,
)
from latentnmt.experiments.benchmark import (
  roofline as floors,
)
from latentnmt.experiments.benchmark import (
  suites as speeds,
)
from latentnmt.experiments.benchmark import (
  workloads,
)
from latentnmt.experiments.progress import progress
from latentnmt.types import Batch

_RUN = shared_flags.run_flag(required=False)
shared_flags.checkpoint_flag()
_DATA = shared_flags.data_flag(required=False)
_SPLIT = shared_flags.split_flag()
shared_flags.teacher_flag()
_PRESET = flags.DEFINE_string("preset", None, "Instead of --run: a preset.")
_SET = shared_flags.set_flag()
_VOCAB_SIZE = flags.DEFINE_integer("vocab_size", 32_000, "V, with --preset.", 4)
_SOURCE_LENGTH = flags.DEFINE_integer(
  "source_length", 26, "Tokens of each source sentence, with --preset.", 1
)
_TARGET_LENGTH = flags.DEFINE_integer(
  "target_length", 28, "Tokens of each translation, with --preset.", 1
)
_TASKS = flags.DEFINE_list(
  "tasks", ["decode"], "What to measure: decode,train,likelihood."
)
_METHODS = shared_flags.methods_flag(required=False)
_BATCH_SIZES = flags.DEFINE_list(
  "batch_sizes", ["1", "64"], "Numbers of sentences decoded at once."
)
_BATCHES = flags.DEFINE_integer("batches", 4, "Batches of a repetition.", 1)
_REPEATS = flags.DEFINE_integer("repeats", 5, "Repetitions.", 1)
_TRAIN_TOKENS = flags.DEFINE_integer(
  "train_tokens", 2048, "Target tokens of a step of training, about.", 1
)
_SAMPLES = flags.DEFINE_integer("samples", 1000, "K of the likelihood.", 1)
_SYSTEM = flags.DEFINE_enum(
  "system", "latentnmt", ["latentnmt", *peers.SYSTEMS], "What is measured."
)
_PEERS = flags.DEFINE_bool(
  "peers", False, f"Also measure {', '.join(peers.SYSTEMS)}."
)
_MACHINE = flags.DEFINE_bool(
  "machine", True, "Measure the machine first, where there are floors."
)
_SUITE = flags.DEFINE_enum(
  "suite", None, list(speeds.SUITES), "A whole table of measurements."
)
# What may be given with --suite, for all that it measures.
_COMMON = (
  "vocab_size source_length target_length repeats train_tokens samples set"
).split()
_STEP = 8  # lengths of sources are rounded up to a multiple


def main(argv):
  """Measures every task, and every method at every batch size."""
  del argv
  _check_flags()
  rows, machines = [], {}
  for row in _suite() if _SUITE.value else _alone():
    if row["metric"] == "machine":
      machines[row["products"]] = floors.Machine(
        row["flops_per_second"], row["bytes_per_second"]
      )
    row = speeds.beside_floor(row, machines)
    rows.append(row)
    if _RUN.value:
      checkpoint.append_result(_RUN.value, row)
    else:
      print(json.dumps(row), flush=True)
  print(speeds.table(rows))
  if any(row["metric"] == "failed" for row in rows):
    sys.exit(1)


def _check_flags() -> None:
  unknown = set(_TASKS.value) - {"machine", "decode", "train", "likelihood"}
  if unknown or not _TASKS.value:
    raise InputError(
      f"--tasks={','.join(_TASKS.value)}; valid are decode, train, likelihood."
    )
  if not all(n.isdecimal() and int(n) for n in _BATCH_SIZES.value):
    names = ",".join(_BATCH_SIZES.value)
    raise InputError(f"--batch_sizes={names}: give numbers above 0.")
  if (_RUN.value is None) == (_PRESET.value is None) and not _SUITE.value:
    raise InputError("Give either --run or --preset, or a --suite.")
  if _RUN.value:
    names = "vocab_size source_length target_length set system peers suite"
    shared_flags.refuse(names.split(), "is for --preset")
  else:
    shared_flags.refuse(
      ["data", "split", "checkpoint", "teacher"], "is for --run"
    )
  if _SUITE.value:
    names = "tasks methods batch_sizes batches system machine"
    shared_flags.refuse(names.split(), "is what --suite chooses")
  if _PEERS.value or _SYSTEM.value in peers.SYSTEMS:
    peers.check()


# Measurements of one process.


def _alone() -> Iterator[dict]:
  """Rows that this process measures, then those of its peers."""
  config = checkpoint.read_config(_RUN.value) if _RUN.value else _configured()
  sizes, tasks = config.model.transformer, set(_TASKS.value)
  if _PEERS.value or _SYSTEM.value in peers.SYSTEMS:
    peers.check_config(config.model)
  if "machine" in tasks:
    yield _machine(sizes.product_dtype)
  elif _MACHINE.value and (_PRESET.value or tasks - {"decode"}):
    # In another process, and before this one takes memory.
    products = f"--set=model.transformer.products={sizes.product_dtype}"
    yield from _child(
      ["--preset=transformer_tiny", "--tasks=machine", products]
    )
  name = _PRESET.value or Path(_RUN.value).name
  about = {
    "model": name,
    "system": _SYSTEM.value,
    "dtype": sizes.dtype,
    "products": sizes.product_dtype,
  }
  measure = _ours if _SYSTEM.value == "latentnmt" else _of_peer
  for row in measure(_trained(config) if _RUN.value else _random(config)):
    yield about | row
  for system in peers.SYSTEMS if _PEERS.value else ():
    yield from _child([*sys.argv[1:], "--nopeers", f"--system={system}"])


def _machine(products: str) -> dict:
  machine = floors.measure_machine(products)
  device = {"products": products, "device": hardware.device_description()}
  return {"metric": "machine", **dataclasses.asdict(machine), **device}


def _ours(subject: workloads.Subject) -> Iterator[dict]:
  repeats = _REPEATS.value
  if "decode" in _TASKS.value:
    yield {"metric": "parameters", "value": subject.num_parameters}
    for method in _methods(subject.config.model):
      for size in map(int, _BATCH_SIZES.value):
        yield workloads.decoding(subject, method, size, _BATCHES.value, repeats)
  if "train" in _TASKS.value:
    yield workloads.training(subject, _TRAIN_TOKENS.value, repeats)
  if "likelihood" in _TASKS.value:
    yield workloads.scoring(subject, _SAMPLES.value, 1, repeats)


def _of_peer(subject: workloads.Subject) -> Iterator[dict]:
  system, repeats = _SYSTEM.value, _REPEATS.value
  if "decode" in _TASKS.value:
    for method in _methods(subject.config.model):
      for size in map(int, _BATCH_SIZES.value):
        yield peers.decoding(
          subject, system, method, size, _BATCHES.value, repeats
        )
  if "train" in _TASKS.value and system == "huggingface":
    yield peers.training(subject, _TRAIN_TOKENS.value, repeats)


def _methods(config) -> list[decode.Method]:
  exact = isinstance(config, AutoregressiveConfig)
  usual = ["beam4"] if exact else ["delta0", "delta1", "delta4"]
  return [decode.parse_method(name) for name in _METHODS.value or usual]


def _trained(config: ExperimentConfig) -> workloads.Subject:
  if not _DATA.value:
    raise InputError("Give --data for the sentences to decode with --run.")
  prepared = data.PreparedData.open(_DATA.value)
  (step,) = shared_flags.checkpoint_steps(_RUN.value)
  _, params, tokenizer = checkpoint.load(_RUN.value, step)
  rankings = shared_flags.rankings(_methods(config.model), tokenizer)
  return workloads.Subject(
    config,
    lambda: params,
    of_median_length(
      tokenizer.encode(prepared.sources(_SPLIT.value)),
      tokenizer.encode(prepared.targets(_SPLIT.value)),
    ),
    _SPLIT.value,
    {method: score for method, (score, _) in rankings.items()},
  )


def of_median_length(x: list[list[int]], y: list[list[int]]) -> Batch:
  """Pairs whose source length rounds up as the median does."""
  lengths = np.array([-len(ids) // _STEP * -_STEP for ids in x])
  size = int(np.quantile(lengths, 0.5, method="inverted_cdf"))
  chosen = np.flatnonzero(lengths == size)
  longest = max(len(y[i]) for i in chosen)
  return Batch(
    np.array([x[i] + [0] * (size - len(x[i])) for i in chosen], np.int32),
    np.array([y[i] + [0] * (longest - len(y[i])) for i in chosen], np.int32),
  )


def _configured() -> ExperimentConfig:
  model = zoo.config(_PRESET.value, vocab_size=_VOCAB_SIZE.value)
  if isinstance(model, LatentConfig):
    # A posterior that sees its target: else all refinements would be the same.
    model = dataclasses.replace(model, posterior_gain=2.0)
  config = ExperimentConfig(model, TrainConfig(), _PRESET.value)
  return override(config, *_SET.value)


def _random(config: ExperimentConfig) -> workloads.Subject:
  return workloads.random_subject(
    config, 256, _SOURCE_LENGTH.value, _TARGET_LENGTH.value
  )


# Measurements of other processes.


def _suite() -> Iterator[dict]:
  """Rows of the processes of a suite, one after the other."""
  given = [
    f"--{name}={value}"
    for name in _COMMON
    if flags.FLAGS[name].present
    for value in (_SET.value if name == "set" else [flags.FLAGS[name].value])
  ]
  suite = speeds.SUITES[_SUITE.value](_PEERS.value, _PRESET.value)
  for process in progress(suite, desc=_SUITE.value):
    arguments = [*process.flags, *given]
    if not process.cached:
      yield from _child(arguments)
      continue
    with tempfile.TemporaryDirectory() as folder:
      arguments.append(f"--compilation_cache={folder}")
      rows = list(_child(arguments))
      again = list(_child([*arguments, "--repeats=1"]))
      yield from _with_cached(rows, again)


def _with_cached(rows: list[dict], again: list[dict]) -> list[dict]:
  """Rows with the compile_seconds of the same ones measured once more."""
  name = "compile_seconds"
  if len(rows) != len(again):  # one of the two failed
    return rows
  return [
    row | ({f"cached_{name}": other[name]} if name in other else {})
    for row, other in zip(rows, again, strict=True)
  ]


def _child(arguments: Sequence[str]) -> Iterator[dict]:
  """Rows that a process of this binary prints, or that it failed."""
  command = [sys.executable, "-m", "experiments.benchmark", *arguments]
  with subprocess.Popen(
    [*command, "--nomachine"], stdout=subprocess.PIPE, text=True
  ) as process:
    for line in process.stdout:
      if line.startswith("{"):
        yield json.loads(line)
  if process.returncode:
    status = process.returncode
    yield {"metric": "failed", "value": status, "flags": " ".join(arguments)}


if __name__ == "__main__":
  app.run(main)
