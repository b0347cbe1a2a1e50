"""The report of a study: tables, plots and sample translations.

  latentnmt analyze --study=runs/quickstart --findings

Reads the runs below the study's folder and writes there

  report.md        the tables, which are printed, too
  report.html      tables, plots and samples on one page that needs no other
                   file; plots where matplotlib is installed
  report.csv       every figure with all digits, a row per run and method
  checkpoints.csv  likewise of each checkpoint with a likelihood and a BLEU
  ranking.csv      Table 5 with all digits
  findings.md      with --findings: each claim of the paper, and some on its
                   closing question, checked on these results, and what the
                   verdict rests on; printed, too

Tables 1 to 4 are those of the paper, the second of the split on which the most
checkpoints were scored, all else of --split. Table 5 ranks all models on one
scale. Of several decoders (autoregressive, factorised, CTC, graph) a grid has
likelihood and BLEU by objective. With --paper=wmt14_en_de, or another pair, the
paper's own figures stand beside ours. Where log p(y|x) is known, a last table
has it beside estimates.
"""

from pathlib import Path

from absl import flags

from latentnmt import files
from latentnmt.experiments import app, shared_flags
from latentnmt.experiments.lee2020 import claims, closing_question, published
from latentnmt.experiments.report import collect, plots, tables, webpage
from latentnmt.experiments.report.comparison import Models
from latentnmt.experiments.report.correlation import correlations
from latentnmt.experiments.report.grid import grid
from latentnmt.experiments.report.per_sentence import SentenceFigures
from latentnmt.experiments.report.rows import as_csv
from latentnmt.experiments.study.layout import StudyDirectory

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
  "paper",
  None,
  list(published.NAMES),
  "Show the paper's figures of a pair beside.",
)


def main(argv):
  """Reports on a study."""
  del argv
  study, split = StudyDirectory(Path(_STUDY.value)), _SPLIT.value
  rows = collect.collect(study, split)
  points = collect.most_checkpoints(study, split)
  agreement = correlations(points)
  sentences = SentenceFigures(study, split, rows)
  ranking = sentences.ranking()
  models = Models(rows, sentences, agreement)
  shown = [
    tables.quality(rows, split),
    tables.agreement(agreement),
    tables.refinement(rows),
    tables.speed(rows),
    tables.ranking(ranking),
    grid(models),
    tables.truth(collect.compare(study, split)),
  ]
  shown = [table for table in shown if table.rows]
  if _PAPER.value:
    shown += published.beside(_PAPER.value, ranking, rows, agreement)
  checked = []
  if _FINDINGS.value:
    checked = claims.check(models) + closing_question.check(models)
  sections = [(t.title, tables.as_html(t)) for t in (*shown, *checked)]
  sections += plots.sections(rows, points, collect.training(study))
  if texts := sentences.samples(_SAMPLES.value):
    title = f"{len(texts)} sentences of {split}, evenly spread"
    sections.append((title, webpage.samples(title, texts)))
  name = study.path.name
  files.write_text(study.report("html"), webpage.document(name, sections))
  files.write_text(study.report("csv"), as_csv(rows))
  files.write_text(study.checkpoints, as_csv(points))
  files.write_text(study.ranking, as_csv(ranking))
  _publish(study.report("md"), name, shown)
  if checked:
    _publish(study.findings, f"{name}: findings", checked)


def _publish(path: Path, title: str, shown: list[tables.Table]) -> None:
  """Writes tables and prints them."""
  text = tables.as_markdown(title, shown)
  files.write_text(path, text)
  print(text)


if __name__ == "__main__":
  app.run(main)
