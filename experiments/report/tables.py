"""The tables of a report: rows as Markdown and as HTML.

A `Table` is described once, by the format of each column, and printed either
way. What is missing shows as an en dash, and a note below says of what; what
does not apply is an empty cell.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import html
import re
from typing import Any

from latentnmt.experiments.report.correlation import correlation
from latentnmt.experiments.report.rows import (
  NOT_APPLICABLE,
  CorrelationRow,
  ModelRow,
  RankingRow,
  TruthRow,
  by_run,
  columns,
)

_MISSING = "–"


@dataclasses.dataclass(frozen=True)
class Table:
  """A table with its notes.

  Attributes:
    title: one line.
    columns: header and cell of each, as "BLEU {bleu:.2f} | K {K:d}", so that
      no header may contain "|"; the cell is formatted with a row's `columns`.
      Numbers are aligned right.
    rows: a line each; mappings where the columns depend on the data.
    notes: what the numbers are and depend on, a line each.
  """

  title: str
  columns: str
  rows: Sequence[Any]
  notes: Sequence[str] = ()

  @property
  def templates(self) -> dict[str, str]:
    """Formats of the cells by the headers of their columns."""
    parts = (part.partition("{") for part in self.columns.split("|"))
    return {head.strip(): "{" + rest.strip() for head, _, rest in parts}

  def cells(self) -> list[list[str]]:
    """Returns the texts of the rows."""
    templates = self.templates.values()
    return [[_cell(t, columns(row)) for t in templates] for row in self.rows]

  def numeric(self) -> list[bool]:
    """Returns for each column whether it is of numbers."""
    return [":" in template for template in self.templates.values()]

  def missing(self) -> list[str]:
    """Returns a note for each column with en dashes: runs and methods."""
    notes = []
    for header, template in self.templates.items():
      lack = [
        f"{values['run']} {values.get('method') or ''}".strip()
        for values in map(columns, self.rows)
        if _cell(template, values) == _MISSING
      ]
      if lack:
        notes.append(f"{_MISSING} {header} is missing for {', '.join(lack)}.")
    return notes


def _cell(template: str, values: Mapping[str, Any]) -> str:
  found = [values.get(name) for name in re.findall(r"{(\w+)", template)]
  if NOT_APPLICABLE in found:
    return ""
  return _MISSING if None in found else template.format_map(values)


def as_markdown(title: str, tables: Sequence[Table]) -> str:
  """Returns a text of a title and tables with their notes."""
  lines = [f"# {title}", ""]
  for table in tables:
    lines += [f"## {table.title}", ""]
    rules = ["---:" if number else "---" for number in table.numeric()]
    for cells in (table.templates, rules, *table.cells()):
      cells = [text.replace("|", r"\|") for text in cells]
      lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *(f"* {n}" for n in (*table.notes, *table.missing())), ""]
  return "\n".join(lines)


def as_html(table: Table) -> str:
  """Returns the same section; wide tables scroll in a box of their own."""
  classes = [' class="n"' if number else "" for number in table.numeric()]

  def line(tag: str, texts) -> str:
    cells = zip(classes, map(html.escape, texts), strict=True)
    cells = [f"<{tag}{c}>{text}</{tag}>" for c, text in cells]
    return f"<tr>{''.join(cells)}</tr>"

  body = "\n".join(line("td", texts) for texts in table.cells())
  notes = map(html.escape, (*table.notes, *table.missing()))
  notes = "\n".join(f"<li>{note}</li>" for note in notes)
  return (
    f"<h2>{html.escape(table.title)}</h2>\n"
    f'<div class="wide"><table>\n<thead>{line("th", table.templates)}</thead>\n'
    f"<tbody>\n{body}\n</tbody></table></div>\n"
    f'<ul class="notes">\n{notes}\n</ul>'
  )


# Tables of models.

_RUN = "run {run} | data {data}"
_BLEU = "BLEU {bleu:.2f} | 95 % {bleu_low:.2f} to {bleu_high:.2f}"


def quality(rows: list[ModelRow], split: str) -> Table:
  """Shows how good each model is, as a translator and as a density."""
  rows = [row for row in rows if row.primary]
  escaped = any(row.escaped for row in rows) * [
    "escaped: references that the escape of an exact output, a small fixed"
    " weight which reaches every string, has most of the probability of."
  ]
  return Table(
    "Table 1: translations and log-likelihood",
    "run {run} | model {model} | data {data} | decoding {method} | "
    + _BLEU
    + " | chrF {chrf:.1f} | log p(y given x) {log_likelihood:.3f}"
    " | estimator {estimator} | K {K:d} | ESS {ess:.1f}"
    " | bits/byte {bits_per_byte:.3f} | lee2020 {lee2020:.3f}"
    + (" | escaped {escaped:d}" if escaped else ""),
    rows,
    [
      *conditions(rows, split),
      "log p(y given x): nats per token of the corpus, the length paid for;"
      " exact, or the importance-weighted bound (iwae) of K posterior samples."
      " ESS: effective sample size, median over sentences; near 1 the bound is"
      " loose. bits/byte: of the same, per UTF-8 byte of the references.",
      "lee2020: what the public code of Lee et al. (2020) reports, mean over"
      " sentences per position, length given. It is not a likelihood: it"
      " overstates by about the KL term.",
      *escaped,
    ],
  )


def conditions(rows: list[ModelRow], split: str) -> list[str]:
  """Returns notes on what all figures of a report depend on."""

  def values(name: str) -> str:
    found = (columns(row)[name] for row in rows)
    return ", ".join(dict.fromkeys(str(v) for v in found if v))

  remarks = {
    "unknown": "of the tokens are unknown to the vocabulary: nats and bits/byte"
    " are then not of the string.",
    "truncated": "pairs were cut before they were scored.",
    "bleu_truncated": "sources were cut before they were translated.",
  }
  remarks = [f" {values(n)} {text}" for n, text in remarks.items() if values(n)]
  names = values("reference_normalizers")
  return [
    f"Split {split}: {values('sentences')} sentences, {values('tokens')}"
    f" tokens with EOS (EOS that a model appends is not counted); data"
    f" {values('scored_on')}.{''.join(remarks)} Models of distilled data are"
    " scored on the references, too.",
    f"BLEU: sacreBLEU {values('bleu_signature')}, with the 95 % bootstrap"
    f" interval. chrF: {values('chrf_signature')}."
    + (f" References normalised: {names}." if names else ""),
  ]


_REFINED = {"BLEU": "{bleu:.2f}", "bound": "{bound:.3f}", "Eq. 3": "{eq3:.3f}"}


def refinement(rows: list[ModelRow]) -> Table:
  """Shows BLEU and bounds by the number of refinements."""
  # Not those that choose among several candidates.
  rows = [row for row in rows if row.method == f"delta{row.k}"]
  lines = []
  for run in by_run(rows):
    for figure, template in _REFINED.items():
      values = {f"k{row.k}": _cell(template, columns(row)) for row in run}
      if {*values.values()} != {_MISSING}:
        lines.append(columns(run[0]) | {"method": figure} | values)
  return Table(
    "Table 3: iterative refinement",
    _RUN
    + " | figure {method}"
    + "".join(f" | k = {k} {{k{k}:s}}" for k in sorted({r.k for r in rows})),
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


def speed(rows: list[ModelRow]) -> Table:
  """Shows BLEU, speed and size of each run and decoding method."""
  over, speeds = rows[0].speed_up_over, ""
  for n in rows[0].speeds:
    speeds += f" | sentences/s at {n} {{sentences_per_second_batch{n}:.1f}}"
    speeds += f" | speed-up at {n} {{speed_up_batch{n}:.1f}}x" if over else ""
  devices = dict.fromkeys(row.device for row in rows if row.device)
  return Table(
    "Table 4: speed and size",
    _RUN
    + " | parameters {parameters:,} | MB {megabytes:.1f} | decoding {method} | "
    + _BLEU
    + (speeds or " | sentences/s {sentences_per_second_batch1:.1f}"),
    rows,
    [
      "sentences/s at n: n sentences decoded at once, compilation apart, on"
      f" {', '.join(devices) or 'no device yet'}."
      + (f" Speed-up: over {over} with beam4." if over else ""),
      "delta<k>: k refinements. MB: parameters on disk. Of models that differ"
      " only in their training data, one may have been measured for all.",
    ],
  )


def ranking(rows: list[RankingRow]) -> Table:
  """Shows all models with their ranks by likelihood and by BLEU."""
  return Table(
    "Table 5: all models ranked on one scale, and by the paper's convention",
    _RUN + " | log p(y given x) {log_p:.3f}"
    " | 95 % {log_p_low:.3f} to {log_p_high:.3f}"
    " | estimator {estimator} | rank {log_p_rank:d}"
    " | ELBO {elbo:.3f} | KL {kl:.3f} | paper's convention {lee2020:.3f}"
    " | its 95 % {lee2020_low:.3f} to {lee2020_high:.3f}"
    " | its rank {lee2020_rank:d} | BLEU {bleu:.2f}"
    " | rank by BLEU {bleu_rank:d}",
    rows,
    [
      "log p(y given x), ELBO: nats per token of the corpus, the same for all:"
      " the length is paid for, and EOS that a model appends is paid for but"
      " not counted. annealed is taken where every latent model has it. All"
      " but exact are lower bounds. KL: mean of log q(z given x, y) - log p(z"
      " given x) over the samples.",
      "paper's convention: what it most likely reports. Latent models: lee2020,"
      " the true length given, per position, mean over sentences; no"
      " likelihood. Exact models: log p(y given x) per token.",
      "95 %: bootstrap over sentences, 1,000 resamples; the noise of sampling z"
      " is in report.csv.",
      *_rank_correlations(rows),
    ],
  )


def _rank_correlations(rows: list[RankingRow]) -> list[str]:
  """Says how the models' order by each figure goes with that by BLEU."""
  found = [(row.log_p.value, row.lee2020.value, row.bleu.value) for row in rows]
  found = [values for values in found if None not in values]
  parts = []
  for i, name in enumerate(("log p(y given x)", "the paper's figure")):
    _, spearman = correlation([(values[i], values[2]) for values in found])
    if spearman.value is not NOT_APPLICABLE:
      parts.append(f"{spearman.value:+.2f} by {name}")
  return parts and [
    f"Spearman's correlation with BLEU over these {len(found)} models:"
    f" {', '.join(parts)}."
  ]


# Tables of checkpoints and of the known truth.


def agreement(rows: list[CorrelationRow]) -> Table:
  """Shows how likelihood and BLEU agree over checkpoints."""
  split = rows[0].split if rows else None
  return Table(
    "Table 2: correlation of log-likelihood and BLEU across checkpoints",
    _RUN + " | decoding {method} | log-likelihood {figure} | n {n:d}"
    " | Pearson (95 %)"
    " {pearson:+.3f} ({pearson_low:+.2f} to {pearson_high:+.2f})"
    " | Spearman (95 %)"
    " {spearman:+.3f} ({spearman_low:+.2f} to {spearman_high:+.2f})"
    " | remark {remark}",
    rows,
    [
      f"n checkpoints of each run, on split {split}. Intervals are"
      " Fisher's z, for Spearman with the variance of Bonett and Wright (2000);"
      " they take checkpoints for independent, which those of one training are"
      " not. Those of latent models are from after the start of the KL term.",
      "exact, iwae, elbo: nats per token, the length paid for. lee2020: the"
      " paper's figure, which is not a likelihood.",
    ],
  )


def truth(rows: list[TruthRow]) -> Table:
  """Shows every estimator beside the known truth."""
  return Table(
    "Against the known log p(y given x)",
    "run {run} | estimator {estimator} | nats/token {per_token:.3f}"
    " | truth {truth_per_token:.3f}"
    " | difference/token {difference_per_token:+.3f}"
    " | difference/sentence {difference:+.3f}"
    " | standard error {standard_error:.3f} | in standard errors {errors:+.1f}",
    rows,
    [
      *verdict(rows),
      "Differences are estimator - truth in nats, paired by sentence, the"
      " length paid for; the standard error is of the mean over sentences.",
    ],
  )


def verdict(rows: list[TruthRow]) -> list[str]:
  """Says which likelihoods exceed the truth, and so cannot be right."""
  return [
    f"{row.run}: {row.estimator} exceeds the truth by {row.errors:.1f} standard"
    " errors; it cannot be a bound."
    for row in rows
    if row.estimator in ("exact", "annealed", "iwae", "elbo")
    and (row.errors or 0) > 2
  ] or ["No likelihood or bound exceeds the truth by two standard errors."]
