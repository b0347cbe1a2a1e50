"""`StudyDirectory`: every path of a study."""

import dataclasses
from pathlib import Path

from latentnmt.runs import RunDirectory


@dataclasses.dataclass(frozen=True)
class StudyDirectory:
  """A folder of run directories, with the data, records and reports of them.

  Attributes:
    path: of the folder.
  """

  path: Path

  def __str__(self) -> str:
    return str(self.path)

  @property
  def record(self) -> Path:
    """Says which stages are finished."""
    return self.path / "study.json"

  @property
  def lock(self) -> Path:
    """Held by the process that works here."""
    return self.path / ".lock"

  @property
  def data(self) -> Path:
    """The prepared corpus."""
    return self.path / "data"

  @property
  def distilled(self) -> Path:
    """The prepared corpus with a teacher's translations to train on."""
    return self.path / "data-distilled"

  def run(self, name: str) -> RunDirectory:
    """Returns a run of the study by its name."""
    return RunDirectory(self.path / name)

  def runs(self) -> list[RunDirectory]:
    """Returns the runs that there are, complete ones only."""
    paths = sorted(self.path.glob("*/config.json"))
    return [RunDirectory(path.parent) for path in paths]

  def prepared(self) -> list[Path]:
    """Returns the folders of prepared data that there are."""
    return sorted(path.parent for path in self.path.glob("*/meta.json"))

  def sweep(self, name: str) -> Path:
    """Says what the sweep of a preset, or of a model's class, chose."""
    return self.path / "sweep" / f"{name.replace(':', '.')}.json"

  def report(self, kind: str) -> Path:
    """The report of a kind: "md", "csv" or "html"."""
    return self.path / f"report.{kind}"

  @property
  def findings(self) -> Path:
    """Each claim of the paper, checked on this study's results."""
    return self.path / "findings.md"

  @property
  def ranking(self) -> Path:
    """The models by likelihood and by BLEU, with all digits."""
    return self.path / "ranking.csv"

  @property
  def checkpoints(self) -> Path:
    """Likelihood and BLEU of each checkpoint that has both."""
    return self.path / "checkpoints.csv"
