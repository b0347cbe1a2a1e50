"""The report of a study: tables, plots and sample translations.

  python -m experiments.analyze --study=runs/quickstart

Reads the runs below the study's folder and writes there

  report.md        the tables, which are printed, too
  report.html      tables, plots and samples on one page that needs no other
                   file; plots where matplotlib is installed
  report.csv       every figure with all digits, a row per run and decoding
  checkpoints.csv  likelihood and BLEU of each checkpoint that has both

Tables 1 to 4 are those of the paper. Table 2 is of the split on which the most
checkpoints were scored, all else is of --split. Where the data has known
log p(y|x), a last table pairs every estimator with that truth.
"""

from pathlib import Path

from absl import flags

from experiments import common, page, plots, results, tables
from experiments.correlation import correlations

_STUDY = flags.DEFINE_string(
  "study", None, "Folder of run directories.", required=True
)
_SPLIT = common.split_flag()
_SAMPLES = flags.DEFINE_integer(
  "samples", 20, "Sentences shown with their translations.", 0
)

_NO_PLOTS = "Plots need matplotlib: pip install 'latentnmt[plots]'."


def main(argv):
  """Reports on a study."""
  del argv
  study, split = Path(_STUDY.value), _SPLIT.value
  rows = results.collect(study, split)
  points = results.most_checkpoints(study, split)
  shown = all_tables(rows, points, results.compare(study, split), split)
  text = markdown(study.name, shown)
  common.write_text(study / "report.md", text)
  common.write_text(study / "report.csv", tables.as_csv(rows))
  common.write_text(study / "checkpoints.csv", tables.as_csv(points))
  sections = [(table.title, tables.as_html(table)) for table in shown]
  sections += figures(study, rows, points, split)
  texts = results.samples(study, split, rows, _SAMPLES.value)
  if texts:
    title = f"{len(texts)} sentences of {split}, evenly spread"
    sections.append((title, page.samples(title, texts)))
  common.write_text(study / "report.html", page.page(study.name, sections))
  print(text)


def all_tables(
  rows: list[dict], points: list[dict], truths: list[dict], split: str
) -> list[tables.Table]:
  """The tables that there are figures for, in order."""
  found = [
    tables.quality(rows, split),
    tables.agreement(correlations(points)),
    tables.refinement(rows),
    tables.speed(rows),
    tables.truth(truths),
  ]
  return [table for table in found if table]


def markdown(name: str, shown: list[tables.Table]) -> str:
  """The whole of report.md."""
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
  common.run(main)
