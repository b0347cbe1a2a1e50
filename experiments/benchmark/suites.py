"""Tables of speed: what `benchmark --suite` measures, and how it is shown."""

from collections.abc import Sequence
import dataclasses

from latentnmt import zoo
from latentnmt.experiments.benchmark import (
  baselines as peers,
)
from latentnmt.experiments.benchmark import (
  roofline as floors,
)


@dataclasses.dataclass(frozen=True)
class Process:
  """One process of a suite.

  Attributes:
    flags: of `benchmark`.
    cached: whether to start it twice, with a compilation cache that is empty
      at first.
  """

  flags: tuple[str, ...]
  cached: bool = False


def _process(text: str, cached: bool = False) -> Process:
  return Process(tuple(f"--{word}" for word in text.split()), cached)


_ROUNDED = "set=model.transformer.products=bfloat16"


def _cpu(with_peers: bool, preset: str | None) -> list[Process]:
  """Base presets, at batch 1 and 64, and what needs much memory.

  In float32, and once more with products of bfloat16 numbers.
  """
  base = "transformer_base", "gauss_base", "flow_base"
  systems = peers.SYSTEMS if with_peers else ()
  single = "batch_sizes=1 batches=4"
  large = "batch_sizes=64 batches=1 repeats=3"
  processes = []
  for shape, cached in ((single, True), (large, False)):
    processes.append(_process(f"preset={base[0]} {shape}", cached))
    processes += [
      _process(f"preset={base[0]} {shape} system={system}")
      for system in systems
    ]
    processes += [_process(f"preset={p} {shape}", cached) for p in base[1:]]
  train = "tasks=train repeats=3"
  processes += [_process(f"preset={name} {train}", True) for name in base]
  if with_peers:
    processes.append(_process(f"preset={base[0]} {train} system=huggingface"))
  processes += [
    _process(f"preset={name} tasks=likelihood repeats=3", True)
    for name in base[1:]
  ]
  processes += [
    _process(f"preset={name} {shape} {_ROUNDED}")
    for shape in (single, large, train)
    for name in base
  ]
  processes += [
    _process(f"preset={name} tasks=likelihood repeats=3 {_ROUNDED}")
    for name in base[1:]
  ]
  memory = "preset=transformer_large batch_sizes=64 batches=1 repeats=1"
  processes.append(_process(memory))
  return _chosen(processes, ["", _ROUNDED], preset)


def _gpu(with_peers: bool, preset: str | None) -> list[Process]:
  """Every preset in bfloat16, at batch 1 and 256."""
  del with_peers  # which are for CPUs
  dtype = "set=model.transformer.dtype=bfloat16"
  processes = []
  for name in _full_size():
    processes += [
      _process(f"preset={name} batch_sizes=1 batches=16 {dtype}"),
      _process(f"preset={name} batch_sizes=256 batches=4 {dtype}"),
      _process(f"preset={name} tasks=train train_tokens=16384 {dtype}"),
      _process(f"preset={name} tasks=likelihood {dtype}"),
    ]
  return _chosen(processes, [dtype], preset)


def _compile(with_peers: bool, preset: str | None) -> list[Process]:
  """Programs of every preset, compiled and then loaded from the cache."""
  del with_peers
  processes = [
    _process(f"preset={name} tasks={task} batch_sizes=1 repeats=1", True)
    for name in _full_size()
    for task in ("decode", "train", "likelihood")
  ]
  return _chosen(processes, [""], preset)


def _full_size() -> list[str]:
  return [name for name in zoo.names() if not name.endswith("_tiny")]


def _chosen(processes, dtypes, preset: str | None) -> list[Process]:
  """The machine first, then the processes, of one preset where it is given."""
  own = [
    p for p in processes if preset is None or f"--preset={preset}" in p.flags
  ]
  machine = "preset=transformer_tiny tasks=machine"
  return [*(_process(f"{machine} {dtype}") for dtype in dtypes), *own]


SUITES = {"cpu": _cpu, "gpu": _gpu, "compile": _compile}


# Showing them.


def beside_floor(row: dict, machines: dict[str, floors.Machine]) -> dict:
  """A row with its "floor_seconds" and "utilisation", where they are known.

  Args:
    row: a measurement.
    machines: the machine by the dtype of products.
  """
  machine = machines.get(row.get("products"))
  if machine is None or "flops" not in row:
    return row
  work = floors.Work(row["flops"], row["weight_bytes"])
  achieved = row["flops"] / row["seconds"]
  return row | {
    "floor_seconds": machine.floor(work),
    "utilisation": achieved / machine.flops_per_second,
  }


_UNITS = {
  "sentences_per_second": "sentences/s",
  "target_tokens_per_second": "target tokens/s",
  "likelihood_seconds_per_sentence": "s/sentence",
}
_REFERENCES = "ctranslate2-float32", "ctranslate2-int8", "huggingface"


def table(rows: Sequence[dict]) -> str:
  """Markdown: a line for each measurement, what was measured beside it."""
  measured = [row for row in rows if row["metric"] in _UNITS]
  references = [
    system
    for system in _REFERENCES
    if any(row["system"] == system for row in measured)
  ]
  names = [
    "model", "task", "system", "batch", "figure", "range", "s/batch", "floor s",
    "of peak", "compile s", "cached s", "GB", *(f"x {r}" for r in references),
  ]  # fmt: skip
  lines = [*_conditions(rows), "", f"| {' | '.join(names)} |"]
  lines.append("|---|---|---|" + "---:|" * (len(names) - 3))
  for row in measured:
    cells = _cells(row) + [_ratio(row, measured, r) for r in references]
    lines.append(f"| {' | '.join(cells)} |")
  return "\n".join(lines)


def _conditions(rows: Sequence[dict]) -> list[str]:
  lines = []
  for row in rows:
    if row["metric"] == "failed":
      lines.append(f"Not measured, status {row['value']}: {row['flags']}")
    elif row["metric"] == "machine":
      lines.append(
        f"{row['device']}: {row['flops_per_second'] / 1e9:,.0f} GFLOP/s in"
        f" {row['products']} matrix products,"
        f" {row['bytes_per_second'] / 1e9:,.0f} GB/s of memory"
      )
    elif row["metric"] == "parameters":
      lines.append(f"{row['model']}: {row['value']:,} parameters")
    elif row["metric"] in _UNITS and row["system"] == "latentnmt":
      target = f" and {row['target_length']} target" if "steps" in row else ""
      layers = ", layers apart" if row.get("layers") == "apart" else ""
      lines.append(
        f"{row['source_length']} source{target} tokens ({row['split']}),"
        f" {row['dtype']}{layers}, {row['device']}"
      )
    if "version" in row:
      lines.append(f"{row['system']}: {row['version']}, {row['model']}")
  return list(dict.fromkeys(lines))


def _cells(row: dict) -> list[str]:
  samples = row.get("K")
  task = {
    "sentences_per_second": row.get("method", ""),
    "target_tokens_per_second": "training",
    "likelihood_seconds_per_sentence": (
      f"likelihood, K = {samples:,}" if samples else "likelihood"
    ),
  }[row["metric"]]
  threads = f" (threads {row['threads']})" if "threads" in row else ""
  rate = _number(row["value"])
  return [
    row["model"],
    task,
    row["system"] + threads + _products(row),
    str(row["batch_size"]),
    f"{rate} {_UNITS[row['metric']]}",
    f"{_number(row['lowest'])}-{_number(row['highest'])}",
    _number(row["seconds"]),
    _number(row.get("floor_seconds")),
    f"{row['utilisation']:.0%}" if "utilisation" in row else "",
    _number(row.get("compile_seconds")),
    _number(row.get("cached_compile_seconds")),
    f"{row['peak_bytes'] / 1e9:.1f}" if "peak_bytes" in row else "",
  ]


def _products(row: dict) -> str:
  """What our products are of, where that is not what all else is."""
  if row["system"] != "latentnmt" or row["products"] == row["dtype"]:
    return ""
  return f", {row['products']} products"


def _ratio(row: dict, rows: Sequence[dict], system: str) -> str:
  """How many times as fast as what a peer does at the same batch size."""
  for other in rows:
    same = all(row[n] == other[n] for n in ("metric", "batch_size"))
    if other["system"] == system and same and _size(row) == _size(other):
      return f"{row['value'] / other['value']:.2f}"
  return ""


def _size(row: dict) -> str:
  return row["model"].rpartition("_")[2]


def _number(value: float | None) -> str:
  """Three digits: 0.0123, 1.23, 123, 1,230."""
  if value is None:
    return ""
  if value >= 100:
    return f"{value:,.0f}"
  return f"{value:#.3g}"
