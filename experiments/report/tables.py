"""The tables of a report: rows of figures as Markdown, HTML and CSV.

A `Table` is described once, by the format of each column, and printed either
way. What is missing shows as an en dash, and a note below says of what; what
does not apply is an empty cell.
"""

from collections.abc import Mapping, Sequence
import csv
import dataclasses
import html
import io
import re

from latentnmt.experiments.report.collect import SPEED, SPEED_UP
from latentnmt.experiments.report.correlation import correlation

_DELTA = re.compile(r"delta\d+$")  # refinement of a single candidate


@dataclasses.dataclass(frozen=True)
class Table:
  """A table with its notes.

  Attributes:
    title: one line.
    columns: header of each column to how a cell is made of a row's fields, as
      `str.format` takes it. Columns that format numbers are aligned right.
    rows: a line each.
    notes: what the numbers are and depend on, a line each.
  """

  title: str
  columns: Mapping[str, str]
  rows: Sequence[dict]
  notes: Sequence[str] = ()

  def cells(self) -> list[list[str]]:
    """Texts of the rows."""
    templates = self.columns.values()
    return [[_cell(t, row) for t in templates] for row in self.rows]

  def numeric(self) -> list[bool]:
    """Which columns are of numbers."""
    return [":" in template for template in self.columns.values()]

  def missing(self) -> list[str]:
    """A note for each column that has en dashes: which runs and methods."""
    notes = []
    for header, template in self.columns.items():
      lack = [
        f"{row['run']} {row.get('method') or ''}".strip()
        for row in self.rows
        if _cell(template, row) == "–"
      ]
      if lack:
        notes.append(f"– {header} is missing for {', '.join(lack)}.")
    return notes


def _cell(template: str, row: dict) -> str:
  values = [row.get(field) for field in re.findall(r"{(\w+)", template)]
  if "" in values:
    return ""
  return "–" if None in values else template.format(**row)


def as_markdown(table: Table) -> str:
  """A section: title, table, notes."""
  rules = ["---:" if number else "---" for number in table.numeric()]
  cells = [
    [text.replace("|", r"\|") for text in line] for line in table.cells()
  ]
  lines = [list(table.columns), rules, *cells]
  notes = [f"* {note}" for note in (*table.notes, *table.missing())]
  return "\n".join(
    [f"## {table.title}", ""]
    + [f"| {' | '.join(line)} |" for line in lines]
    + ["", *notes, ""]
  )


def as_html(table: Table) -> str:
  """The same section as HTML; wide tables scroll in a box of their own."""
  classes = [' class="n"' if number else "" for number in table.numeric()]

  def line(tag: str, texts) -> str:
    cells = (
      f"<{tag}{c}>{html.escape(text)}</{tag}>"
      for c, text in zip(classes, texts, strict=True)
    )
    return f"<tr>{''.join(cells)}</tr>"

  body = "\n".join(line("td", texts) for texts in table.cells())
  notes = "\n".join(
    f"<li>{html.escape(note)}</li>" for note in (*table.notes, *table.missing())
  )
  return (
    f"<h2>{html.escape(table.title)}</h2>\n"
    f'<div class="wide"><table>\n<thead>{line("th", table.columns)}</thead>\n'
    f"<tbody>\n{body}\n</tbody></table></div>\n"
    f'<ul class="notes">\n{notes}\n</ul>'
  )


def as_csv(rows: list[dict]) -> str:
  """The rows with every field and digit."""
  fields = list(dict.fromkeys(field for row in rows for field in row))
  text = io.StringIO()
  writer = csv.DictWriter(text, fields, lineterminator="\n")
  writer.writeheader()
  writer.writerows(rows)
  return text.getvalue()


# Tables of rows as `results.collect` returns them.

_QUALITY = {
  "run": "{run}",
  "model": "{model}",
  "data": "{data}",
  "decoding": "{method}",
  "BLEU": "{bleu:.2f}",
  "95 %": "{bleu_low:.2f} to {bleu_high:.2f}",
  "chrF": "{chrf:.1f}",
  "log p(y given x)": "{log_likelihood:.3f}",
  "estimator": "{estimator}",
  "K": "{K:d}",
  "ESS": "{ess:.1f}",
  "bits/byte": "{bits_per_byte:.3f}",
  "lee2020": "{lee2020:.3f}",
}


def quality(rows: list[dict], split: str) -> Table:
  """How good each model is, as a translator and as a density: a row each."""
  rows = [row for row in rows if row["usual"]]
  return Table(
    "Table 1: translations and log-likelihood",
    _QUALITY,
    rows,
    [
      *conditions(rows, split),
      "log p(y given x): nats per token of the corpus, the length paid for;"
      " exact for autoregressive models, for latent ones the"
      " importance-weighted bound (iwae) of K posterior samples. ESS: effective"
      " sample size, median over sentences; near 1 the bound is loose."
      " bits/byte: of the same, per UTF-8 byte of the references.",
      "lee2020: what the public code of Lee et al. (2020) reports, mean over"
      " sentences per position, length given. It is not a likelihood: it"
      " overstates by about the KL term.",
    ],
  )


def conditions(rows: list[dict], split: str) -> list[str]:
  """What all figures of a report depend on."""

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
  normalized = values("reference_normalizers")
  if normalized:
    normalized = f" References normalised: {normalized}."
  return [
    f"Split {split}: {values('sentences')} sentences, {values('tokens')}"
    f" tokens with EOS (EOS that a model appends is not counted); data"
    f" {values('scored_on')}.{''.join(remarks)} Models of distilled data are"
    " scored on the references, too.",
    f"BLEU: sacreBLEU {values('bleu_signature')}, with the 95 % bootstrap"
    f" interval. chrF: {values('chrf_signature')}." + normalized,
  ]


_REFINED = {"BLEU": "{bleu:.2f}", "bound": "{bound:.3f}", "Eq. 3": "{eq3:.3f}"}


def refinement(rows: list[dict]) -> Table | None:
  """BLEU and bounds by the number of refinements; None without any."""
  rows = [row for row in rows if _DELTA.match(row["method"] or "")]
  if not rows:
    return None
  lines = []
  for run in dict.fromkeys(row["run"] for row in rows):
    mine = [row for row in rows if row["run"] == run]
    for figure, template in _REFINED.items():
      values = {f"k{row['k']}": _cell(template, row) for row in mine}
      if set(values.values()) != {"–"}:
        about = {"run": run, "data": mine[0]["data"], "method": figure}
        lines.append(about | values)
  columns = {"run": "{run}", "data": "{data}", "figure": "{method}"}
  steps = sorted({row["k"] for row in rows})
  return Table(
    "Table 3: iterative refinement",
    columns | {f"k = {k}": f"{{k{k}:s}}" for k in steps},
    lines,
    [
      "k: refinements with the delta posterior.",
      "bound, Eq. 3: nats per token of the model's own translations y at the"
      " mean m of their posterior. bound: log p(y given m, x) + log p(m given"
      " x) - log q(m given x, y) + log p(T given x). Eq. 3: the first two of"
      " these; a density of m, whose unit is the model's own: compare it along"
      " a row only.",
    ],
  )


def speed(rows: list[dict]) -> Table:
  """BLEU, speed and size of each run and decoding method."""
  sizes = sorted(
    {int(f.removeprefix(SPEED)) for row in rows for f in row if SPEED in f}
  )
  columns = {
    "run": "{run}",
    "data": "{data}",
    "parameters": "{parameters:,}",
    "MB": "{megabytes:.1f}",
    "decoding": "{method}",
    "BLEU": "{bleu:.2f}",
    "95 %": "{bleu_low:.2f} to {bleu_high:.2f}",
  }
  over = next((row["speed_up_over"] for row in rows), None)
  for n in sizes:
    columns[f"sentences/s at {n}"] = f"{{{SPEED}{n}:.1f}}"
    if over:
      columns[f"speed-up at {n}"] = f"{{{SPEED_UP}{n}:.1f}}x"
  if not sizes:
    columns["sentences/s"] = f"{{{SPEED}1:.1f}}"
  devices = dict.fromkeys(row.get("device") for row in rows)
  devices = ", ".join(d for d in devices if d) or "no device yet"
  notes = [
    "sentences/s at n: n sentences decoded at once, compilation apart, on"
    f" {devices}." + (f" Speed-up: over {over} with beam4." if over else ""),
    "delta<k>: k refinements. MB: parameters on disk. Of models that differ"
    " only in their training data, one may have been measured for all.",
  ]
  return Table("Table 4: speed and size", columns, rows, notes)


_FOOTING = {
  "run": "{run}",
  "data": "{data}",
  "log p(y given x)": "{log_p:.3f}",
  "95 %": "{log_p_low:.3f} to {log_p_high:.3f}",
  "estimator": "{estimator}",
  "rank": "{log_p_rank:d}",
  "ELBO": "{elbo:.3f}",
  "KL": "{kl:.3f}",
  "paper's convention": "{lee2020:.3f}",
  "its 95 %": "{lee2020_low:.3f} to {lee2020_high:.3f}",
  "its rank": "{lee2020_rank:d}",
  "BLEU": "{bleu:.2f}",
  "rank by BLEU": "{bleu_rank:d}",
}


def footing(rows: list[dict]) -> Table | None:
  """Rows as `sentences.footing` returns them; None without any."""
  if not rows:
    return None
  return Table(
    "Table 5: all models on one footing, and by the paper's convention",
    _FOOTING,
    rows,
    [
      "log p(y given x): nats per token of the corpus, the same tokens for all:"
      " the length is paid for, and EOS that a model appends is paid for but"
      " not counted. annealed is taken where every latent model has it. All"
      " but exact are lower bounds. ELBO: likewise. KL: log q(z given x, y) -"
      " log p(z given x), mean over the samples.",
      "paper's convention: what it most likely reports. Latent models:"
      " lee2020, the true length given, per position, mean over sentences; no"
      " likelihood. Autoregressive models: log p(y given x) per token.",
      "95 %: bootstrap over sentences, 1,000 resamples; the noise of sampling z"
      " is in report.csv.",
      *_rank_correlations(rows),
    ],
  )


def _rank_correlations(rows: list[dict]) -> list[str]:
  """How the models' order by each figure goes with their order by BLEU."""
  names = {"log_p": "log p(y given x)", "lee2020": "the paper's figure"}
  rows = [r for r in rows if None not in (r["bleu"], r["log_p"], r["lee2020"])]
  told = []
  for field, name in names.items():
    found = correlation([(row[field], row["bleu"]) for row in rows])
    if found["spearman"] != "":
      told.append(f"{found['spearman']:+.2f} by {name}")
  if not told:
    return []
  return [
    f"Spearman's correlation with BLEU over these {len(rows)} models:"
    f" {', '.join(told)}."
  ]


# Tables of other rows.

_CORRELATION = {
  "run": "{run}",
  "data": "{data}",
  "decoding": "{method}",
  "log-likelihood": "{figure}",
  "n": "{n:d}",
  "Pearson (95 %)": (
    "{pearson:+.3f} ({pearson_low:+.2f} to {pearson_high:+.2f})"
  ),
  "Spearman (95 %)": (
    "{spearman:+.3f} ({spearman_low:+.2f} to {spearman_high:+.2f})"
  ),
  "remark": "{remark}",
}
_TRUTH = {
  "run": "{run}",
  "estimator": "{estimator}",
  "nats/token": "{per_token:.3f}",
  "truth": "{truth_per_token:.3f}",
  "difference/token": "{difference_per_token:+.3f}",
  "difference/sentence": "{difference:+.3f}",
  "standard error": "{standard_error:.3f}",
  "in standard errors": "{errors:+.1f}",
}


def agreement(rows: list[dict]) -> Table | None:
  """Rows as `correlation.correlations` returns them; None without any."""
  if not rows:
    return None
  return Table(
    "Table 2: correlation of log-likelihood and BLEU across checkpoints",
    _CORRELATION,
    rows,
    [
      f"n checkpoints of each run, on split {rows[0]['split']}. Intervals are"
      " Fisher's z, for Spearman with the variance of Bonett and Wright (2000);"
      " they take checkpoints for independent, which those of one training are"
      " not. Those of latent models are from after the start of the KL term.",
      "exact, iwae, elbo: nats per token, the length paid for. lee2020: the"
      " paper's figure, which is not a likelihood.",
    ],
  )


def truth(rows: list[dict]) -> Table | None:
  """Rows as `results.compare` returns them; None without any."""
  if not rows:
    return None
  return Table(
    "Against the known log p(y given x)",
    _TRUTH,
    rows,
    [
      *verdict(rows),
      "Differences are estimator - truth in nats, paired by sentence, the"
      " length paid for; the standard error is of the mean over sentences.",
    ],
  )


def verdict(rows: list[dict]) -> list[str]:
  """What the comparison with the truth says, a line for each likelihood."""
  return [
    f"{row['run']}: {row['estimator']} exceeds the truth by"
    f" {row['errors']:.1f} standard errors; it cannot be a bound."
    for row in rows
    if row["estimator"] in ("exact", "annealed", "iwae", "elbo")
    and (row["errors"] or 0) > 2
  ] or ["No likelihood or bound exceeds the truth by two standard errors."]
