"""Suites: processes that `benchmark --suite` starts one after the other."""

from collections.abc import Iterator, Sequence
import json
import subprocess
import sys
import tempfile
from typing import NamedTuple

from latentnmt import zoo
from latentnmt.experiments.benchmark import baselines
from latentnmt.experiments.progress import progress

_BASE = "transformer_base", "gauss_base", "flow_base"
MACHINE = "--preset=transformer_tiny", "--tasks=machine"
_DTYPE = "set=model.transformer.dtype=bfloat16"
_ROUNDED = "set=model.transformer.matmul_dtype=bfloat16"


class Process(NamedTuple):
  """One process of a suite: flags of `benchmark`."""

  flags: tuple[str, ...]
  cached: bool = False  # whether to start it again, with its compiled programs


def _process(text: str, cached: bool = False) -> Process:
  return Process(tuple(f"--{word}" for word in text.split()), cached)


def _machine(*settings: str) -> list[Process]:
  return [Process((*MACHINE, *_process(s).flags)) for s in settings]


def _cpu(systems: Sequence[str]) -> list[Process]:
  """Base presets, at batch 1 and 64, and what needs much memory.

  In float32, and once more with products of bfloat16 numbers.
  """
  single = "batch_sizes=1 batches=4"
  large = "batch_sizes=64 batches=1 repeats=3"
  train, score = "tasks=train repeats=3", "tasks=likelihood repeats=3"
  processes = _machine("", _ROUNDED)
  for shape, cached in ((single, True), (large, False)):
    ours = [_process(f"preset={name} {shape}", cached) for name in _BASE]
    others = [f"preset={_BASE[0]} {shape} system={s}" for s in systems]
    processes += [ours[0], *map(_process, others), *ours[1:]]
  processes += [_process(f"preset={name} {train}", True) for name in _BASE]
  if systems:
    processes.append(_process(f"preset={_BASE[0]} {train} system=huggingface"))
  processes += [_process(f"preset={name} {score}", True) for name in _BASE[1:]]
  for task in (single, large, train, score):
    names = _BASE[1:] if task == score else _BASE
    processes += [_process(f"preset={n} {task} {_ROUNDED}") for n in names]
  memory = "preset=transformer_large batch_sizes=64 batches=1 repeats=1"
  return [*processes, _process(memory)]


def _gpu(systems: Sequence[str]) -> list[Process]:
  """Every preset in bfloat16, at batch 1 and 256."""
  del systems  # which are for CPUs
  tasks = (
    "batch_sizes=1 batches=16",
    "batch_sizes=256 batches=4",
    "tasks=train train_tokens=16384",
    "tasks=likelihood",
  )
  return _machine(_DTYPE) + [
    _process(f"preset={name} {task} {_DTYPE}")
    for name in _full_size()
    for task in tasks
  ]


def _compile(systems: Sequence[str]) -> list[Process]:
  """Programs of every preset, compiled and then loaded from the cache."""
  del systems
  return _machine("") + [
    _process(f"preset={name} tasks={task} batch_sizes=1 repeats=1", True)
    for name in _full_size()
    for task in ("decode", "train", "likelihood")
  ]


def _full_size() -> list[str]:
  return [name for name in zoo.names() if not name.endswith("_tiny")]


SUITES = {"cpu": _cpu, "gpu": _gpu, "compile": _compile}


def processes(
  name: str, with_baselines: bool, preset: str | None
) -> list[Process]:
  """Returns a suite: the machine first, then all, or one preset's alone."""
  found = SUITES[name](baselines.SYSTEMS if with_baselines else ())
  wanted = {"--tasks=machine", f"--preset={preset}"}
  return [p for p in found if preset is None or wanted & {*p.flags}]


def run(
  name: str, with_baselines: bool, preset: str | None, given: Sequence[str]
) -> Iterator[dict]:
  """Yields the rows of a suite's processes; all get the flags `given`."""
  for process in progress(processes(name, with_baselines, preset), desc=name):
    arguments = [*process.flags, *given]
    if not process.cached:
      yield from child(arguments)
      continue
    with tempfile.TemporaryDirectory() as folder:
      arguments.append(f"--compilation_cache={folder}")
      rows = list(child(arguments))
      again = list(child([*arguments, "--repeats=1"]))
      yield from _with_cached(rows, again)


def _with_cached(rows: list[dict], again: list[dict]) -> list[dict]:
  """Adds to rows the compile_seconds of the same ones, measured once more."""
  name = "compile_seconds"
  if len(rows) != len(again):  # one of the two failed
    return rows
  return [
    row | ({f"cached_{name}": other[name]} if name in other else {})
    for row, other in zip(rows, again, strict=True)
  ]


def child(arguments: Sequence[str]) -> Iterator[dict]:
  """Yields rows that a process of `benchmark` prints, or that it failed."""
  command = [sys.executable, "-m", "latentnmt.experiments.benchmark"]
  with subprocess.Popen(
    [*command, *arguments, "--nomachine"], stdout=subprocess.PIPE, text=True
  ) as process:
    for line in process.stdout:
      if line.startswith("{"):
        yield json.loads(line)
  if process.returncode:
    status = process.returncode
    yield {"metric": "failed", "value": status, "flags": " ".join(arguments)}
