"""A study by its sentences: what each model makes of each of them.

`collect` reads figures of a corpus, this what they are sums of, so that they
can be resampled and models be compared on the same sentences. A figure is None
where a file that it needs is missing.
"""

import numpy as np

import latentnmt  # whose `data` imports JAX only when something is read
from latentnmt import metrics
from latentnmt.experiments.report.rows import (
  EXACT,
  NOT_APPLICABLE,
  Interval,
  ModelRow,
  Number,
  Ranked,
  RankingRow,
)
from latentnmt.experiments.study.layout import StudyDirectory
from latentnmt.metrics import Resampled, resampled_bleu, resampled_ratio


class SentenceFigures:
  """Likelihoods and translations of the sentences of a split.

  Args:
    study: its folder, where the prepared data are, raw or distilled.
    split: of the data.
    rows: as `collect.collect` returns them.
  """

  def __init__(self, study: StudyDirectory, split: str, rows: list[ModelRow]):
    self._split = split
    self._rows = [row for row in rows if row.primary]
    self._runs = {row.run: study.run(row.run) for row in self._rows}
    self._texts = _texts(study, split)
    self._bleu: dict[tuple, Resampled | None] = {}
    self._values = {
      row.run: self._runs[row.run].likelihood(split, row.step)
      for row in self._rows
    }
    latent = [self._values[r.run] for r in self._rows if r.estimator != EXACT]
    # Models are compared by one estimator, not each by its best.
    self._annealed = bool(latent) and all("annealed" in v for v in latent)

  def estimator(self, row: ModelRow) -> str:
    """Returns the name of the estimator that stands for log p(y|x)."""
    latent = row.estimator != EXACT
    return "annealed" if self._annealed and latent else row.estimator

  def log_p(self, row: ModelRow) -> Resampled | None:
    """Returns nats per token of the corpus, the length paid for."""
    if not (values := self._values[row.run]):
      return None
    annealed = self.estimator(row) == "annealed"
    nats = values["annealed" if annealed else "log_likelihood"]
    return resampled_ratio(nats, values["num_tokens"])

  def lee2020(self, row: ModelRow) -> Resampled | None:
    """Returns what the paper most likely reports as log-likelihood.

    For latent models `lee2020` by position, the length given, mean over
    sentences; for exact ones log p(y|x) by token of the corpus.
    """
    values = self._values[row.run]
    if not values or row.estimator == EXACT:
      return self.log_p(row)
    per_position = values["lee2020"] / values["num_positions"]
    return resampled_ratio(per_position, np.ones(len(per_position)))

  def term(self, row: ModelRow, name: str) -> Number:
    """Returns "kl" or "elbo", the length paid for, in nats per token."""
    if row.estimator == EXACT:
      return NOT_APPLICABLE
    if not (values := self._values[row.run]):
      return None
    return metrics.per_token(values[name], values["num_tokens"])

  def bleu(self, row: ModelRow, method: str | None = None) -> Resampled | None:
    """Returns BLEU of the row's run, by the row's method or another."""
    key = row.run, method or row.method
    if key not in self._bleu:
      lines = self._translations(*key)
      bleu = lines and resampled_bleu(lines, self._texts["reference"])
      self._bleu[key] = bleu
    return self._bleu[key]

  def _translations(self, run: str, method: str | None) -> list[str] | None:
    """A line for each reference; None where they are not there."""
    file = self._runs[run].hypotheses_path(self._split, method)
    if not (self._texts and file.is_file()):
      return None
    lines = latentnmt.data.read_lines(file)
    return lines if len(lines) == len(self._texts["reference"]) else None

  def ranking(self) -> list[RankingRow]:
    """Returns the models ranked; none where none is scored by sentence."""
    log_p = _ranked([_interval(self.log_p(row)) for row in self._rows])
    lee2020 = _ranked([_interval(self.lee2020(row)) for row in self._rows])
    bleu = _ranked([row.bleu for row in self._rows])
    rows = [
      RankingRow(
        **row.about(),
        method=row.method,
        estimator=self.estimator(row),
        log_p=log_p[i],
        lee2020=lee2020[i],
        bleu=bleu[i],
        elbo=self.term(row, "elbo"),
        kl=self.term(row, "kl"),
      )  # fmt: skip
      for i, row in enumerate(self._rows)
    ]
    return rows if any(row.log_p.rank for row in rows) else []

  def samples(self, count: int) -> list[dict[str, str]]:
    """Returns at most so many sentences, spread evenly over the split.

    Each has texts by "source", "reference" and "<run>, <method>" of the runs
    whose translations are there. None where the study has no such data.
    """
    if not self._texts:
      return []
    texts = dict(self._texts)
    for row in self._rows:
      if lines := self._translations(row.run, row.method):
        texts[f"{row.run}, {row.method}"] = lines
    last = len(texts["reference"]) - 1
    chosen = np.linspace(0, last, min(count, last + 1)).round().astype(int)
    return [{name: lines[i] for name, lines in texts.items()} for i in chosen]


def _texts(study: StudyDirectory, split: str) -> dict[str, list[str]]:
  """Sentences of the split; dev and test of distilled data are the raw ones."""
  for folder in study.prepared()[:1]:
    prepared = latentnmt.data.PreparedData.open(folder)
    sources, references = prepared.sources(split), prepared.targets(split)
    return {"source": sources, "reference": references}
  return {}


def _interval(figure: Resampled | None) -> Interval:
  return Interval(figure.value, *figure.interval) if figure else Interval()


def _ranked(figures: list[Interval]) -> list[Ranked]:
  known = [figure.value for figure in figures if figure.value is not None]

  def rank(value: float | None) -> int | None:
    return None if value is None else 1 + sum(v > value for v in known)

  return [Ranked(f.value, f.low, f.high, rank(f.value)) for f in figures]
