"""Measures how fast models decode, train and score translations.

  latentnmt benchmark --run=RUN --data=DATA --methods=beam4
  latentnmt benchmark --preset=gauss_base --methods=delta0,delta1
  latentnmt benchmark --preset=flow_base --tasks=decode,train,likelihood

With --run, sentences are those of about median length in a split, and
measurements are added to the run's results.jsonl. With --preset, parameters and
sentences are random and lengths are as given: each translation has exactly
--target_length tokens, and measurements are printed as JSON lines. A table
comes last. Compilation is apart. --set changes what a preset is or how it is
trained, for example --set=model.transformer.dtype=bfloat16.

Utilisation is that of the fastest product of two large matrices on the same
machine, measured first. The roofline beside a figure is a lower bound: the time
that its matrix products take at that speed, or reading their weights from
memory, whichever is longer. Memory is the most that the process has had until
then.

Whole tables, each line of them measured in a process of its own:

  latentnmt benchmark --suite=cpu --baselines     about 35 minutes
      Base presets on two cores, beside CTranslate2 and Hugging Face's Marian
      (pip install 'latentnmt[baselines]').
  latentnmt benchmark --suite=gpu     about an hour
      Every preset in bfloat16. With --preset, that alone.
  latentnmt benchmark --suite=compile     about 40 minutes
      Compilation of every preset, and loading from the persistent cache.
"""

from collections.abc import Iterable, Iterator
import dataclasses
import functools
import itertools
import json
import sys

from absl import flags

from latentnmt import checkpoint, data, decode, models, zoo
from latentnmt.config import (
  ExperimentConfig,
  TrainConfig,
  TransformerConfig,
  override,
)
from latentnmt.errors import InputError
from latentnmt.experiments import app, hardware, loading, shared_flags
from latentnmt.experiments.benchmark import baselines, roofline, suites, table
from latentnmt.experiments.benchmark.workloads import (
  decoding,
  likelihood,
  subjects,
  timing,
  training,
)
from latentnmt.experiments.benchmark.workloads.subjects import Subject
from latentnmt.runs import Result, RunDirectory
from latentnmt.train import quick_method

_RUN = shared_flags.run_flag(required=False)
_CHECKPOINT = shared_flags.checkpoint_flag()
_DATA = shared_flags.data_flag(required=False)
_SPLIT = shared_flags.split_flag()
_TEACHER = shared_flags.teacher_flag()
_PRESET = flags.DEFINE_string("preset", None, "Instead of --run: a preset.")
_SET = shared_flags.set_flag()
_VOCAB_SIZE = flags.DEFINE_integer("vocab_size", 32_000, "V, with --preset.", 4)
_LENGTHS = [
  flags.DEFINE_integer("source_length", 26, "Of sources, with --preset.", 1),
  flags.DEFINE_integer("target_length", 28, "Of targets, with --preset.", 1),
]
_TASKS = flags.DEFINE_list("tasks", ["decode"], "Of decode,train,likelihood.")
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
  "system", "latentnmt", ["latentnmt", *baselines.SYSTEMS], "What is measured."
)
_BASELINES = flags.DEFINE_bool(
  "baselines", False, f"Also measure {', '.join(baselines.SYSTEMS)}."
)
_MACHINE = flags.DEFINE_bool(
  "machine", True, "Measure the machine first, where there are rooflines."
)
_SUITE = flags.DEFINE_enum(
  "suite", None, list(suites.SUITES), "A whole table of measurements."
)
# What may be given with --suite, for all that it measures.
_COMMON = [_VOCAB_SIZE, *_LENGTHS, _REPEATS, _TRAIN_TOKENS, _SAMPLES, _SET]
_USUAL = "beam4", "delta0", "delta1", "delta4"


@dataclasses.dataclass(frozen=True)
class Plan:
  """Measurements of one process; fields are the flags of the same names."""

  system: str
  tasks: list[str]
  methods: list[str] | None
  batch_sizes: list[str]
  batches: int
  repeats: int
  train_tokens: int
  samples: int


def main(argv):
  """Measures every task, and every method at every batch size."""
  del argv
  _check_flags()
  run = RunDirectory(_RUN.value) if _RUN.value else None
  if _SUITE.value:
    suite = _SUITE.value, _BASELINES.value, _PRESET.value
    given = [flags.FLAGS[f.name].serialize() for f in _COMMON if f.present]
    _report(suites.run(*suite, "\n".join(given).splitlines()), run)
    return
  plan = Plan(
    _SYSTEM.value, _TASKS.value, _METHODS.value, _BATCH_SIZES.value,
    _BATCHES.value, _REPEATS.value, _TRAIN_TOKENS.value, _SAMPLES.value,
  )  # fmt: skip
  if run:
    config, name = run.config(), run.name
    where = run, _CHECKPOINT.value, _DATA.value, _SPLIT.value
    make = functools.partial(_trained, *where, plan.methods, _TEACHER.value)
  else:
    config, name = _preset(_PRESET.value, _VOCAB_SIZE.value), _PRESET.value
    config = override(config, *_SET.value)
    lengths = [flag.value for flag in _LENGTHS]
    make = functools.partial(subjects.random_subject, config, 256, *lengths)
  others = baselines.SYSTEMS if _BASELINES.value else ()
  if others or plan.system in baselines.SYSTEMS:
    baselines.check_config(config.model)
  apart = _MACHINE.value and (not run or plan.tasks != ["decode"])
  measured = _measured(plan, name, config.model.transformer, make, apart)
  again = [*sys.argv[1:], "--nobaselines"]
  found = (suites.child([*again, f"--system={system}"]) for system in others)
  _report(itertools.chain(measured, *found), run)


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
    names = "vocab_size source_length target_length set system baselines suite"
    shared_flags.refuse(names.split(), "is for --preset")
    if not _DATA.value:
      raise InputError("Give --data for the sentences to decode with --run.")
  else:
    names = "data split checkpoint teacher"
    shared_flags.refuse(names.split(), "is for --run")
  if _SUITE.value:
    names = "tasks methods batch_sizes batches system machine"
    shared_flags.refuse(names.split(), "is what --suite chooses")
  if _BASELINES.value or _SYSTEM.value in baselines.SYSTEMS:
    baselines.check()


def _report(found: Iterable[dict], run: RunDirectory | None) -> None:
  """Writes rows as they come, then shows them all."""
  rows, machines = [], {}
  for row in found:
    if row["metric"] == "machine":
      speeds = row["flops_per_second"], row["bytes_per_second"]
      machines[row["matmul_dtype"]] = roofline.Machine(*speeds)
    row = table.beside_roofline(row, machines)
    rows.append(row)
    if run:
      run.append_result(Result.from_row(row))
    else:
      print(json.dumps(row), flush=True)
  print(table.table(rows))
  if any(row["metric"] == "failed" for row in rows):
    sys.exit(1)


def _measured(
  plan: Plan, name: str, sizes: TransformerConfig, make, apart: bool
) -> Iterator[dict]:
  """Yields what this process measures of a model, after the machine.

  `make` makes the `Subject`; `apart` leaves the machine to another process.
  """
  dtype, about = sizes.operand_dtype, {"matmul_dtype": sizes.operand_dtype}
  if apart and "machine" not in plan.tasks:
    # Before this process starts a backend, which takes an accelerator's memory.
    rounded = f"--set=model.transformer.matmul_dtype={dtype}"
    yield from suites.child([*suites.MACHINE, rounded])
  device = hardware.device_description()
  if "machine" in plan.tasks:
    machine = dataclasses.asdict(roofline.measure_machine(dtype))
    yield {"metric": "machine", **machine, **about, "device": device}
  about |= {"model": name, "system": plan.system, "dtype": sizes.dtype}
  subject, ours = make(), plan.system == "latentnmt"
  if ours and "decode" in plan.tasks:
    parameters = models.num_parameters(subject.config.model)
    yield {**about, "metric": "parameters", "value": parameters}
  for row in _workloads(subject, plan, ours):
    peak = {"peak_bytes": timing.peak_bytes()} if ours else {}
    yield {**about, **row, **peak, "split": subject.source, "device": device}


def _workloads(subject: Subject, plan: Plan, ours: bool) -> Iterator[dict]:
  translate, train = decoding.measure, training.measure
  if not ours:
    translate = functools.partial(baselines.measure_decoding, plan.system)
    train = baselines.measure_training
  if "decode" in plan.tasks:
    found = methods(subject.model, plan.methods)
    for method, size in itertools.product(found, plan.batch_sizes):
      x = subject.batches(plan.batches, int(size))
      yield translate(subject, method, x, plan.repeats)
  if "train" in plan.tasks and not plan.system.startswith("ctranslate2"):
    yield train(subject, plan.train_tokens, plan.repeats)
  if "likelihood" in plan.tasks and ours:
    yield likelihood.measure(subject, plan.samples, 1, plan.repeats)


def methods(model, names: list[str] | None) -> list[decode.Method]:
  """Returns the methods of these names; by default usual ones of the model."""
  if names:
    return loading.decoding_methods(model, names)
  usual = [decode.parse_method(name) for name in _USUAL]
  own = [method for method in usual if isinstance(method, model.methods)]
  return own or [quick_method(model)]


def _trained(
  run: RunDirectory, asked: str, folder: str, split: str, names, teacher
) -> Subject:
  """Loads a run, with pairs of a split; see the flags."""
  prepared = data.PreparedData.open(folder)
  (step,) = loading.checkpoint_steps(run, asked)
  model, params, tokenizer = checkpoint.load(run, step)
  ranked = loading.rankings(methods(model, names), tokenizer, teacher)
  sides = prepared.sources(split), prepared.targets(split)
  batch = subjects.of_median_length(*map(tokenizer.encode, sides))
  scores = {method: score for method, (score, _) in ranked.items()}
  return Subject(run.config(), batch, split, trained=params, scores=scores)


def _preset(name: str, vocab_size: int) -> ExperimentConfig:
  model = zoo.config(name, vocab_size=vocab_size)
  if hasattr(model, "posterior_gain"):
    # A posterior that sees its target: else all refinements would be the same.
    model = dataclasses.replace(model, posterior_gain=2.0)
  return ExperimentConfig(model, TrainConfig(), name)


if __name__ == "__main__":
  app.run(main)
