"""The report of a study: tables, plots and sample translations.

  python -m experiments.analyze --study=runs/quickstart --findings

Reads the runs below the study's folder and writes there

  report.md        the tables, which are printed, too
  report.html      tables, plots and samples on one page that needs no other
                   file; plots where matplotlib is installed
  report.csv       every figure with all digits, a row per run and decoding
  checkpoints.csv  likelihood and BLEU of each checkpoint that has both
  footing.csv      Table 5 with all digits
  findings.md      with --findings: each claim of the paper, checked on these
                   results, and what the verdict rests on; printed, too

Tables 1 to 4 are those of the paper. Table 2 is of the split on which the most
checkpoints were scored, all else is of --split. Table 5 has all models on one
footing. With --paper=wmt14_en_de, or another of its language pairs, the paper's
own figures stand beside ours. Where the data has known log p(y|x), a last table
pairs every estimator with that truth.
"""

from pathlib import Path

from absl import flags

from latentnmt import files
from latentnmt.experiments import app, shared_flags
from latentnmt.experiments.lee2020 import claims as findings
from latentnmt.experiments.lee2020 import figures as paper
from latentnmt.experiments.report import (
  collect as results,
)
from latentnmt.experiments.report import (
  per_sentence as sentences,
)
from latentnmt.experiments.report import (
  plots,
  tables,
)
from latentnmt.experiments.report import (
  webpage as page,
)
from latentnmt.experiments.report.correlation import correlations

_STUDY = flags.DEFINE_string(
  "study", None, "Folder of run directories.", required=True
)
_SPLIT = shared_flags.split_flag()
_SAMPLES = flags.DEFINE_integer(
  "samples", 20, "Sentences shown with their translations.", 0
)
_FINDINGS = flags.DEFINE_bool(
  "findings", False, "Check the paper's claims on these results."
)
_PAPER = flags.DEFINE_enum(
  "paper", None, list(paper.NAMES), "Show the paper's figures of a pair beside."
)

_NO_PLOTS = "Plots need matplotlib: pip install 'latentnmt[plots]'."


def main(argv):
  """Reports on a study."""
  del argv
  study, split = Path(_STUDY.value), _SPLIT.value
  rows = results.collect(study, split)
  points = results.most_checkpoints(study, split)
  agreement = correlations(points)
  lines = sentences.Sentences(study, split, rows)
  footing = sentences.footing(rows, lines)
  checked = findings.check(rows, lines, agreement) if _FINDINGS.value else []
  shown = all_tables(
    rows, agreement, footing, results.compare(study, split), split
  )
  if _PAPER.value:
    shown += paper.beside(_PAPER.value, footing, rows, agreement)
  text = markdown(study.name, shown)
  files.write_text(study / "report.md", text)
  files.write_text(study / "report.csv", tables.as_csv(rows))
  files.write_text(study / "checkpoints.csv", tables.as_csv(points))
  files.write_text(study / "footing.csv", tables.as_csv(footing))
  sections = [(t.title, tables.as_html(t)) for t in (*shown, *checked)]
  sections += figures(study, rows, points, split)
  texts = sentences.samples(study, split, rows, _SAMPLES.value)
  if texts:
    title = f"{len(texts)} sentences of {split}, evenly spread"
    sections.append((title, page.samples(title, texts)))
  files.write_text(study / "report.html", page.page(study.name, sections))
  print(text)
  if checked:
    found = markdown(f"{study.name}: findings", checked)
    files.write_text(study / "findings.md", found)
    print(found)


def all_tables(
  rows: list[dict],
  agreement: list[dict],
  footing: list[dict],
  truths: list[dict],
  split: str,
) -> list[tables.Table]:
  """The tables that there are figures for, in order.

  Args:
    rows: as `results.collect` returns them.
    agreement: as `correlation.correlations` returns them.
    footing: as `sentences.footing` returns them.
    truths: as `results.compare` returns them.
    split: of all but the agreement.
  """
  found = [
    tables.quality(rows, split),
    tables.agreement(agreement),
    tables.refinement(rows),
    tables.speed(rows),
    tables.footing(footing),
    tables.truth(truths),
  ]
  return [table for table in found if table]


def markdown(name: str, shown: list[tables.Table]) -> str:
  """A title, then the tables."""
  return "\n".join([f"# {name}\n", *map(tables.as_markdown, shown)])


def figures(
  study: Path, rows: list[dict], points: list[dict], split: str
) -> list[tuple[str, str]]:
  """Titles and HTML of the plots, or of a line that says how to have them."""
  if not plots.available():
    return [("Plots", f"<p>{_NO_PLOTS}</p>")]
  found = [
    *plots.scatter(rows, points, split),
    plots.speed(rows),
    plots.training(results.training(study)),
  ]
  return [(f.title, plots.as_html(f)) for f in found if f]


if __name__ == "__main__":
  app.run(main)
