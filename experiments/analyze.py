"""One table of a study: how good each model is, by every measure.

  python -m experiments.analyze --study=runs/quickstart

Reads the runs below the study's folder, prints the table and writes it to
report.md and, with all digits, to report.csv: one row per run and decoding
method, the conditions below. Where the data has known log p(y|x), a second
table pairs every estimator with that truth.
"""

import csv
import io
import json
from pathlib import Path
import re

from absl import flags

from experiments import common
from latentnmt import checkpoint
from latentnmt.config import AutoregressiveConfig
from latentnmt.types import InputError

_STUDY = flags.DEFINE_string(
  "study", None, "Folder of run directories.", required=True
)
_SPLIT = common.split_flag()

_ESTIMATORS = ("exact", "iwae", "elbo", "reconstruction", "lee2020")
_SPEED = "sentences_per_second_batch"
# Header of each column, and how its cell is made of a row's fields.
_COLUMNS = {
  "run": "{run}",
  "model": "{model}",
  "data": "{data}",
  "parameters": "{parameters:,}",
  "decoding": "{method}",
  "k": "{k}",
  "BLEU": "{bleu:.2f}",
  "95 %": "{bleu_low:.2f} to {bleu_high:.2f}",
  "chrF": "{chrf:.1f}",
  "log p(y given x)": "{log_likelihood:.3f}",
  "estimator": "{estimator}",
  "K": "{K}",
  "ESS": "{ess:.1f}",
  "lee2020": "{lee2020:.3f}",
  "bits/byte": "{bits_per_byte:.3f}",
  "MB": "{megabytes:.1f}",
}
_TRUTH_COLUMNS = {
  "run": "{run}",
  "estimator": "{estimator}",
  "nats/token": "{per_token:.3f}",
  "truth": "{truth_per_token:.3f}",
  "difference/token": "{difference_per_token:+.3f}",
  "difference/sentence": "{difference:+.3f}",
  "standard error": "{standard_error:.3f}",
  "in standard errors": "{errors:+.1f}",
}


# Tables. A field that is None is missing; one that is "" does not apply.


def table(rows: list[dict]) -> str:
  """Markdown table of rows as `collect` returns them, a line for each.

  What is missing shows as an en dash, what does not apply as an empty cell.
  """
  return _markdown(_columns(rows), rows)


def truth_table(rows: list[dict]) -> str:
  """Markdown table of rows as `compare` returns them."""
  return _markdown(_TRUTH_COLUMNS, rows)


def missing(rows: list[dict]) -> list[str]:
  """A line for each column that has en dashes: which runs and methods."""
  lines = []
  for header, template in _columns(rows).items():
    lack = [
      f"{row['run']} {row['method'] or ''}".strip()
      for row in rows
      if _cell(template, row) == "–"
    ]
    if lack:
      lines.append(f"– {header} is missing for {', '.join(lack)}.")
  return lines


def _columns(rows: list[dict]) -> dict[str, str]:
  """Columns of the main table: one of speed for each batch size measured."""
  fields = {f for row in rows for f in row if f.startswith(_SPEED)}
  sizes = sorted(int(f.removeprefix(_SPEED)) for f in fields)
  speed = {f"sentences/s at {n}": f"{{{_SPEED}{n}:.1f}}" for n in sizes}
  return _COLUMNS | (speed or {"sentences/s": f"{{{_SPEED}1}}"})


def _markdown(columns: dict[str, str], rows: list[dict]) -> str:
  lines = [list(columns), ["---"] + ["---:"] * (len(columns) - 1)]
  lines += [[_cell(cell, row) for cell in columns.values()] for row in rows]
  return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(template: str, row: dict) -> str:
  values = [row.get(field) for field in re.findall(r"{(\w+)", template)]
  if "" in values:
    return ""
  return "–" if None in values else template.format(**row)


def as_csv(rows: list[dict]) -> str:
  """The rows with every field and digit."""
  fields = list(dict.fromkeys(field for row in rows for field in row))
  text = io.StringIO()
  writer = csv.DictWriter(text, fields, lineterminator="\n")
  writer.writeheader()
  writer.writerows(rows)
  return text.getvalue()


# Reading a study.


def run_directories(study: Path) -> list[Path]:
  """Runs of a study, autoregressive ones first, then by name.

  Raises:
    InputError: if there are none.
  """
  runs = [path.parent for path in study.glob("*/config.json")]
  if not runs:
    raise InputError(f"{study} has no run directories in it; train a model.")
  return sorted(runs, key=lambda run: (not _is_exact(run), run.name))


def _is_exact(run: Path) -> bool:
  config = checkpoint.read_config(run)
  return isinstance(config.model, AutoregressiveConfig)


def data_kinds(study: Path) -> dict[str, str]:
  """By fingerprint, whether the study's prepared data are raw or distilled.

  Those that the distilled ones were made from may be elsewhere.
  """
  kinds = {}
  for path in study.glob("*/meta.json"):
    meta = json.loads(path.read_text(encoding="utf-8"))
    if targets := meta["made_from"].get("targets"):
      kinds[meta["fingerprint"]] = "distilled"
      kinds.setdefault(targets["data"], "raw")
    else:
      kinds[meta["fingerprint"]] = "raw"
  return kinds


class Results:
  """A run's results of a split, found by their fields.

  Where there are results of several checkpoints, those of the best one by
  dev BLEU are taken, else the last that were found.
  """

  def __init__(self, run: Path, split: str):
    self._best = (checkpoint.finished(run) or {}).get("best_step")
    self._rows = [
      row
      for row in checkpoint.read_results(run)
      if row.get("split", split) == split
    ]

  def find(self, metric: str, **fields) -> dict:
    """The result with these fields; {} if there is none."""
    fields["metric"] = metric
    found = [
      row
      for row in self._rows
      if all(row.get(name) == value for name, value in fields.items())
    ]
    best = [row for row in found if row.get("step") == self._best]
    return (best or found or [{}])[-1]

  def distinct(self, field: str) -> list:
    """The values of a field, in order of first appearance."""
    values = (row.get(field) for row in self._rows)
    return list(dict.fromkeys(v for v in values if v is not None))


def collect(study: Path, split: str) -> list[dict]:
  """A row for each run and decoding method that has results or none at all."""
  kinds = data_kinds(study)
  rows = []
  for run in run_directories(study):
    config, results = checkpoint.read_config(run), Results(run, split)
    # What a model is scored on are the references: trained on these, too.
    scored_on = dict.fromkeys(results.distinct("data"), "raw")
    row = {
      "run": run.name,
      "model": config.preset or type(config.model).__name__,
      "data": (scored_on | kinds).get(config.data),
      "parameters": results.find("parameters").get("value"),
      "megabytes": _megabytes(run),
    }
    row |= _likelihood(results, _is_exact(run))
    for method in results.distinct("method") or [None]:
      rows.append(row | _decoding(results, method))
  return rows


def _likelihood(results: Results, exact: bool) -> dict:
  """Fields on density estimation, the length paid for but in lee2020."""
  estimator = "exact" if exact else "iwae"
  found = results.find("nats_per_token", estimator=estimator)
  lee2020 = results.find("lee2020_per_position").get("value")
  return {
    "log_likelihood": found.get("value"),
    "estimator": estimator,
    "K": "" if exact else found.get("K"),
    "ess": "" if exact else found.get("ess_median"),
    "ess_min": "" if exact else found.get("ess_min"),
    "standard_error": "" if exact else found.get("standard_error"),
    "lee2020": "" if exact else lee2020,
    "bits_per_byte": found.get("bits_per_byte"),
    "step": found.get("step"),
    "sentences": found.get("sentences"),
    "tokens": found.get("tokens"),
    "unknown": found.get("unknown"),
    "truncated": found.get("truncated"),
    "scored_on": found.get("data"),
  }


def _decoding(results: Results, method: str | None) -> dict:
  """Fields on translation with one method."""
  row = {"method": method, "k": _steps(method or "")}
  for name in ("bleu", "chrf"):
    found = results.find(name, method=method)
    row[name] = found.get("value")
    for field in ("low", "high", "signature", "step", "truncated"):
      row[f"{name}_{field}"] = found.get(field)
  for size in results.distinct("batch_size"):
    found = results.find("sentences_per_second", method=method, batch_size=size)
    row[f"{_SPEED}{size}"] = found.get("value")
    row["device"] = found.get("device", row.get("device"))
  return row


def _steps(method: str) -> int | str:
  """k, the refinement steps; "" for a method without any."""
  match = re.match(r"delta(\d+)", method)
  return int(match[1]) if match else ""


def _megabytes(run: Path) -> float | None:
  """Size on disk of the parameters that `load` reads."""
  try:
    step = checkpoint.find_step(run)
  except InputError:
    return None
  files = (run / "checkpoints" / str(step) / "params").rglob("*")
  return sum(f.stat().st_size for f in files if f.is_file()) / 1e6


def compare(study: Path, split: str) -> list[dict]:
  """A row for each run and estimator that is paired with the known truth."""
  rows = []
  for run in run_directories(study):
    results = Results(run, split)
    for estimator in _ESTIMATORS:
      found = results.find("difference_to_truth", estimator=estimator)
      if not found:
        continue
      error = found["standard_error"]
      rows.append(
        {
          "run": run.name,
          "estimator": estimator,
          "per_token": found["truth_per_token"] + found["per_token"],
          "truth_per_token": found["truth_per_token"],
          "difference_per_token": found["per_token"],
          "difference": found["value"],
          "standard_error": error,
          "errors": found["value"] / error if error else None,
        }
      )
  return rows


# The report.


def conditions(rows: list[dict], split: str) -> list[str]:
  """What the numbers depend on, a line each."""

  def values(field):
    found = (row.get(field) for row in rows)
    return ", ".join(dict.fromkeys(str(v) for v in found if v))

  remarks = {
    "unknown": "of the tokens are unknown to the vocabulary: nats and bits/byte"
    " are then not of the string.",
    "truncated": "pairs were cut before they were scored.",
    "bleu_truncated": "sources were cut before they were translated.",
  }
  remarks = [f" {values(f)} {text}" for f, text in remarks.items() if values(f)]
  return [
    f"Split {split}: {values('sentences')} sentences, {values('tokens')}"
    f" tokens with EOS (EOS that a model appends is not counted); data"
    f" {values('scored_on')}.{''.join(remarks)}",
    f"BLEU: sacreBLEU {values('bleu_signature')}, with the 95 % bootstrap"
    f" interval. chrF: {values('chrf_signature')}.",
    "log p(y given x): nats per token of the corpus, the length paid for;"
    " exact for autoregressive models, for latent ones the importance-weighted"
    " bound (iwae) of K posterior samples. ESS: effective sample size, median"
    " over sentences; near 1 the bound is loose.",
    "lee2020: what the public code of Lee et al. (2020) reports, mean over"
    " sentences per position, length given. It is not a likelihood: it"
    " overstates by about the KL term.",
    "bits/byte: of the same log p(y given x), per UTF-8 byte of the"
    " references. k: refinement steps. MB: parameters on disk.",
    f"sentences/s at n: n sentences decoded at once, compilation apart, on"
    f" {values('device') or 'no device yet'}.",
  ]


def verdict(rows: list[dict]) -> list[str]:
  """What the comparison with the truth says, a line for each likelihood."""
  return [
    f"{row['run']}: {row['estimator']} exceeds the truth by"
    f" {row['errors']:.1f} standard errors; it cannot be a bound."
    for row in rows
    if row["estimator"] in ("exact", "iwae", "elbo")
    and (row["errors"] or 0) > 2
  ] or ["No likelihood or bound exceeds the truth by two standard errors."]


def report(name: str, rows: list[dict], truths: list[dict], split: str) -> str:
  """The whole of report.md."""
  lines = [f"# {name}", "", table(rows), ""]
  lines += [f"* {line}" for line in conditions(rows, split) + missing(rows)]
  if truths:
    lines += ["", "## Against the known log p(y given x)", ""]
    lines += [truth_table(truths), ""]
    lines += [f"* {line}" for line in verdict(truths)]
    lines += [
      "* Differences are estimator - truth in nats, paired by sentence, the"
      " length paid for; the standard error is of the mean over sentences."
    ]
  return "\n".join(lines) + "\n"


def main(argv):
  """Reports on a study."""
  del argv
  study, split = Path(_STUDY.value), _SPLIT.value
  rows = collect(study, split)
  text = report(study.name, rows, compare(study, split), split)
  common.write_text(study / "report.md", text)
  common.write_text(study / "report.csv", as_csv(rows))
  print(text)


if __name__ == "__main__":
  common.run(main)
