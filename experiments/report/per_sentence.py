"""A study by its sentences: what each model makes of each of them.

`results` reads a corpus's figures, this what they are sums of, so that they can
be resampled and models be compared on the same sentences. Rows are those of
`results.collect`; a figure is None where a file that it needs is missing.
"""

from pathlib import Path

import numpy as np

from latentnmt import checkpoint, data, metrics
from latentnmt.metrics import Resampled, resampled_bleu, resampled_ratio


class Sentences:
  """Likelihoods and translations of the sentences of a split."""

  def __init__(self, study: Path, split: str, rows: list[dict]):
    self._study, self._split = study, split
    prepared = _prepared(study)
    self._references = prepared.targets(split) if prepared else None
    self._bleu: dict[Path, Resampled | None] = {}
    self._values = {r["run"]: self._read(r) for r in rows if r["usual"]}
    latent = [
      self._values[row["run"]]
      for row in rows
      if row["usual"] and row["estimator"] != "exact"
    ]
    # Models are compared by one estimator, not each by its best.
    self._annealed = bool(latent) and all("annealed" in v for v in latent)

  def _read(self, row: dict) -> dict[str, np.ndarray]:
    """What `evaluate_likelihood` wrote of each sentence; {} for nothing."""
    name = f"{self._split}.{row['step']}.npz"
    path = self._study / row["run"] / "likelihood" / name
    if not path.is_file():
      return {}
    with np.load(path) as found:
      return dict(found)

  def estimator(self, row: dict) -> str:
    """Which of the estimators stands for the row's log p(y|x)."""
    exact = row["estimator"] == "exact"
    return "annealed" if self._annealed and not exact else row["estimator"]

  def log_p(self, row: dict) -> Resampled | None:
    """Nats per token of the corpus, log p(y|x) with the length paid for."""
    return self._per_token(row, "log_likelihood", "log_pl")

  def lee2020(self, row: dict) -> Resampled | None:
    """What the paper most likely reports as log-likelihood.

    For latent models `lee2020` by position, the length given, mean over
    sentences; for autoregressive ones log p(y|x) by token of the corpus.
    """
    values = self._values[row["run"]]
    if not values or row["estimator"] == "exact":
      return self.log_p(row)
    per_position = values["lee2020"] / values["num_positions"]
    return resampled_ratio(per_position, np.ones(len(per_position)))

  def terms(self, row: dict) -> dict:
    """Fields "elbo", the length paid for, and "kl", nats per token."""
    if row["estimator"] == "exact":
      return {"elbo": "", "kl": ""}
    if not (values := self._values[row["run"]]):
      return {"elbo": None, "kl": None}
    paid, tokens = values["elbo"] + values["log_pl"], values["num_tokens"]
    return {
      "elbo": metrics.per_token(paid, tokens),
      "kl": metrics.per_token(values["kl"], tokens),
    }

  def bleu(self, row: dict, method: str | None = None) -> Resampled | None:
    """BLEU of the row's run, with the row's decoding method or another."""
    run, method = self._study / row["run"], method or row["method"]
    file = checkpoint.hypotheses_path(run, self._split, method)
    if file not in self._bleu:
      lines = _lines(file, self._references)
      self._bleu[file] = lines and resampled_bleu(lines, self._references)
    return self._bleu[file]

  def _per_token(self, row: dict, *names: str) -> Resampled | None:
    values = self._values[row["run"]]
    if not values:
      return None
    if self.estimator(row) == "annealed":
      names = tuple(n.replace("log_likelihood", "annealed") for n in names)
    nats = sum(np.float64(values[name]) for name in names)
    return resampled_ratio(nats, values["num_tokens"])


def footing(rows: list[dict], sentences: Sentences) -> list[dict]:
  """A row for each model: likelihood and the paper's figure, with ranks.

  Returns:
    The usual rows with, for each figure of "log_p", "lee2020" and "bleu", the
    fields "<figure>_low", "<figure>_high" and "<figure>_rank", and with
    "estimator", "elbo" and "kl"; none where no model is scored by sentence.
  """
  found = []
  for row in rows:
    if not row["usual"]:
      continue
    row = row | sentences.terms(row) | {"estimator": sentences.estimator(row)}
    for name in ("log_p", "lee2020"):
      figure = getattr(sentences, name)(row)
      row[name] = figure and figure.value
      low, high = figure.interval if figure else (None, None)
      row |= {f"{name}_low": low, f"{name}_high": high}
    found.append(row)
  for name in ("log_p", "lee2020", "bleu"):
    values = [row[name] for row in found if row[name] is not None]
    for row in found:
      mine = row[name]
      rank = None if mine is None else 1 + sum(v > mine for v in values)
      row[f"{name}_rank"] = rank
  return found if any(row["log_p"] is not None for row in found) else []


# Text.


def samples(
  study: Path, split: str, rows: list[dict], count: int
) -> list[dict]:
  """Sentences spread evenly over a split, each with its translations.

  Args:
    study: its folder, where the prepared data are, raw or distilled.
    split: of the data.
    rows: as `results.collect` returns them; of each run the usual method is
      taken.
    count: how many sentences, at most.

  Returns:
    Dicts of texts: "source", "reference", and "<run>, <method>" for each run
    whose translations are there. None where the study has no such data.
  """
  prepared = _prepared(study)
  if prepared is None:
    return []
  references = prepared.targets(split)
  columns = {"source": prepared.sources(split), "reference": references}
  for row in rows:
    file = checkpoint.hypotheses_path(study / row["run"], split, row["method"])
    if row["usual"] and (lines := _lines(file, references)):
      columns[f"{row['run']}, {row['method']}"] = lines
  last = len(references) - 1
  chosen = np.linspace(0, last, min(count, last + 1)).round().astype(int)
  return [{name: lines[i] for name, lines in columns.items()} for i in chosen]


def _prepared(study: Path) -> data.PreparedData | None:
  """Data of the study; dev and test are the same in raw and distilled ones."""
  path = min(study.glob("*/meta.json"), default=None)
  return path and data.PreparedData.open(path.parent)


def _lines(file: Path, references: list[str] | None) -> list[str] | None:
  """Translations, one for each reference; None where they are not there."""
  if references is None or not file.is_file():
    return None
  lines = data.read_lines(file)
  return lines if len(lines) == len(references) else None
