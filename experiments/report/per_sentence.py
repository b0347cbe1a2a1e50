"""A study by its sentences: figures that can be resampled and compared.

`collect` reads figures of a corpus, this what they are sums of. A figure is
None where a file that it needs is missing.
"""

import numpy as np

import latentnmt  # whose `data` imports JAX only when something is read
from latentnmt import metrics
from latentnmt.experiments.report.rows import (
  EXACT,
  NOT_APPLICABLE,
  ModelRow,
  Number,
  Ranked,
  RankingRow,
)
from latentnmt.experiments.study.layout import StudyDirectory
from latentnmt.metrics import Resampled, resampled_bleu, resampled_ratio


class SentenceFigures:
  """Likelihoods and translations of a split's sentences, for rows of models."""

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
    log_p = _ranked([self.log_p(row) for row in self._rows])
    lee2020 = _ranked([self.lee2020(row) for row in self._rows])
    bleu_ranks = _ranks([row.bleu.value for row in self._rows])
    rows = []
    for i, row in enumerate(self._rows):
      ranked = {"log_p": log_p[i], "lee2020": lee2020[i]}
      ranked |= {"bleu_rank": bleu_ranks[i], "estimator": self.estimator(row)}
      terms = {name: self.term(row, name) for name in ("elbo", "kl")}
      rows.append(RankingRow(**vars(row) | ranked | terms))
    return rows if any(row.log_p.rank for row in rows) else []

  def samples(self, count: int) -> list[dict[str, str]]:
    """Returns at most so many sentences, spread evenly over the split.

    Each has texts by "source", "reference" and "<run>, <method>" of the runs
    whose translations are there. An empty list where there are no data.
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
  if not (folders := study.prepared()):
    return {}
  prepared = latentnmt.data.PreparedData.open(folders[0])
  sources, references = prepared.sources(split), prepared.targets(split)
  return {"source": sources, "reference": references}


def _ranked(figures: list[Resampled | None]) -> list[Ranked]:
  """Figures with their intervals and ranks; empty ones for None."""
  ranks = _ranks([figure and figure.value for figure in figures])
  return [
    Ranked(figure.value, *figure.interval, rank) if figure else Ranked()
    for figure, rank in zip(figures, ranks, strict=True)
  ]


def _ranks(values: list[float | None]) -> list[int | None]:
  known = [value for value in values if value is not None]
  return [v if v is None else 1 + sum(k > v for k in known) for v in values]
