"""Rows of measurements as people read them."""

from collections.abc import Sequence

from latentnmt.experiments.benchmark.baselines import SYSTEMS
from latentnmt.experiments.benchmark.roofline import Machine, Work

_UNITS = {
  "sentences_per_second": "sentences/s",
  "target_tokens_per_second": "target tokens/s",
  "likelihood_seconds_per_sentence": "s/sentence",
}


def beside_roofline(row: dict, machines: dict[str, Machine]) -> dict:
  """Returns a row with "roofline_seconds" and "utilisation", where known.

  `machines` are the machine by the dtype of what it multiplies.
  """
  machine = machines.get(row.get("matmul_dtype"))
  if machine is None or "flops" not in row:
    return row
  achieved = row["flops"] / row["seconds"]
  work = Work(row["flops"], row["weight_bytes"])
  return row | {
    "roofline_seconds": machine.lower_bound(work),
    "utilisation": achieved / machine.flops_per_second,
  }


def table(rows: Sequence[dict]) -> str:
  """Returns Markdown: what was measured, and a line for each measurement."""
  measured = [row for row in rows if row["metric"] in _UNITS]
  present = {row["system"] for row in measured}
  baselines = [system for system in SYSTEMS if system in present]
  cells = [
    _cells(row) | {f"x {s}": _ratio(row, measured, s) for s in baselines}
    for row in measured
  ]
  if not measured:  # of a machine alone there is no table
    return "\n".join(_conditions(rows))
  rule = "|---|---|---|" + "---:|" * (len(cells[0]) - 3)
  lines = [cells[0].keys(), *(each.values() for each in cells)]
  head, *body = (f"| {' | '.join(line)} |" for line in lines)
  return "\n".join([*_conditions(rows), "", head, rule, *body])


def _conditions(rows: Sequence[dict]) -> list[str]:
  lines = []
  for row in rows:
    if row["metric"] == "failed":
      lines.append(f"Not measured, status {row['value']}: {row['flags']}")
    elif row["metric"] == "machine":
      lines.append(
        f"{row['device']}: {row['flops_per_second'] / 1e9:,.0f} GFLOP/s in"
        f" {row['matmul_dtype']} matrix products,"
        f" {row['bytes_per_second'] / 1e9:,.0f} GB/s of memory"
      )
    elif row["metric"] == "parameters":
      lines.append(f"{row['model']}: {row['value']:,} parameters")
    elif row["metric"] in _UNITS and row["system"] == "latentnmt":
      target = f" and {row['target_length']} target" if "steps" in row else ""
      unstacked = row.get("layers") == "unstacked"
      layers = ", layers unstacked" if unstacked else ""
      lines.append(
        f"{row['source_length']} source{target} tokens ({row['split']}),"
        f" {row['dtype']}{layers}, {row['device']}"
      )
    if "version" in row:
      lines.append(f"{row['system']}: {row['version']}, {row['model']}")
  return list(dict.fromkeys(lines))


def _cells(row: dict) -> dict[str, str]:
  utilisation, peak = row.get("utilisation"), row.get("peak_bytes")
  return {
    "model": row["model"],
    "task": _task(row),
    "system": _system(row),
    "batch": str(row["batch_size"]),
    "figure": f"{_number(row['value'])} {_UNITS[row['metric']]}",
    "range": f"{_number(row['lowest'])}-{_number(row['highest'])}",
    "s/batch": _number(row["seconds"]),
    "roofline s": _number(row.get("roofline_seconds")),
    "of peak": "" if utilisation is None else f"{utilisation:.0%}",
    "compile s": _number(row.get("compile_seconds")),
    "cached s": _number(row.get("cached_compile_seconds")),
    "GB": "" if peak is None else f"{peak / 1e9:.1f}",
  }


def _task(row: dict) -> str:
  if row["metric"] == "target_tokens_per_second":
    return "training"
  if row["metric"] == "sentences_per_second":
    return row["method"]
  samples = row["samples"]
  return f"likelihood, K = {samples:,}" if samples else "likelihood"


def _system(row: dict) -> str:
  """Names the system, and what makes it another one than by default."""
  threads = f" (threads {row['threads']})" if "threads" in row else ""
  rounds = row["system"] == "latentnmt" and row["matmul_dtype"] != row["dtype"]
  products = f", {row['matmul_dtype']} products" if rounds else ""
  return row["system"] + threads + products


def _ratio(row: dict, rows: Sequence[dict], system: str) -> str:
  """Says how many times as fast as a baseline at the same batch size."""
  for other in rows:
    same = all(row[n] == other[n] for n in ("metric", "batch_size"))
    if other["system"] == system and same and _size(row) == _size(other):
      return f"{row['value'] / other['value']:.2f}"
  return ""


def _size(row: dict) -> str:
  return row["model"].rpartition("_")[2]


def _number(value: float | None) -> str:
  """Writes three digits: 0.0123, 1.23, 123, 1,230."""
  if value is None:
    return ""
  return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}"
