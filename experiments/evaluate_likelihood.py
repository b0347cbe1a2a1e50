"""Scores the references by a model: exactly, or by bounds and samples.

  latentnmt evaluate_likelihood --run=runs/quickstart/gauss-distilled \
    --data=runs/quickstart/data --samples=100

With --checkpoint=kept each checkpoint of the run is scored, by the same
compiled programs. Rows go to the run's results.jsonl, per-sentence values to
likelihood/<split>.<step>.npz of the run, by the names of `Estimate`. Rows by
metric, each for the estimator "exact" (models that know it) or iwae, elbo,
reconstruction and lee2020 (latent models), from K = 8 on "extrapolated", what
iwae seems to tend to (no bound), and with --temperatures "annealed":

  nats_per_token               of the corpus, the length paid for
  nats_per_token_given_length  of latent models, p(y|x, T)
  lee2020_per_position         the figure the public code of Lee et al. (2020)
                               reports: mean over sentences, length given
  difference_to_truth          mean over sentences of value - log p(y|x), in
                               nats, length paid; where the truth is known

Tokens are counted up to and including EOS, without any EOS that the model
appends; bits_per_byte is per UTF-8 byte of the references. "samples" are K, of
annealing the number of chains. The effective sample size and the standard error
(of sampling z, in nats per token) stand in the rows of iwae, beside nats per
token at K, K/2, K/4, ... samples, and in those of annealed. "unknown" tokens of
the references make nats and bits/byte those of their pieces, not of the string.
"escaped" counts sentences that the escape of an exact output, which reaches
every string, is most of the probability of: the model itself hardly can.
"""

import dataclasses
import functools
import sys

from absl import flags
import jax
import numpy as np

from latentnmt import checkpoint, likelihood, metrics
from latentnmt.data import PreparedData
from latentnmt.errors import InputError
from latentnmt.experiments import app, loading, shared_flags
from latentnmt.experiments.progress import progress
from latentnmt.runs import Result, RunDirectory
from latentnmt.text import UNK
from latentnmt.types import AnnealedEstimate, Estimate

_RUN = shared_flags.run_flag()
_CHECKPOINT = shared_flags.checkpoint_flag(several=True)
_DATA = shared_flags.data_flag()
_SPLIT = shared_flags.split_flag()
_SAMPLES = flags.DEFINE_integer(
  "samples", 1000, "K, samples of the posterior for each sentence.", 1
)
_CHUNK = flags.DEFINE_integer(
  "chunk", None, "Samples computed at a time; by default what fits memory.", 1
)
_TEMPERATURES = flags.DEFINE_integer(
  "temperatures",
  0,
  "Of annealed importance sampling, which is done from 2 on.",
  0,
)
_CHAINS = flags.DEFINE_integer("chains", 16, "Of annealing, a sentence.", 1)
_LEAPFROG = flags.DEFINE_integer("leapfrog", 4, "Steps of a chain's move.", 1)
_SEED = flags.DEFINE_integer("seed", 0, "Of the samples.")
_TRUNCATE = flags.DEFINE_bool(
  "truncate", False, "Cut sentences longer than the model takes."
)

_METRICS = {"paid": "nats_per_token", "given": "nats_per_token_given_length"}


@dataclasses.dataclass(frozen=True)
class Settings:
  """Settings of the scores; fields are the flags of the same names."""

  samples: int
  chunk: int | None
  temperatures: int
  chains: int
  leapfrog: int
  seed: int
  truncate: bool


@dataclasses.dataclass(frozen=True)
class Scores:
  """Estimates of log p(y|x) of n sentences.

  Attributes:
    estimate: of them.
    exact: whether that is the truth.
    annealed: another estimate, where there is one.
  """

  estimate: Estimate
  exact: bool
  annealed: AnnealedEstimate | None = None

  def nats(self) -> dict[str, dict[str, np.ndarray]]:
    """Returns float[n] by estimator and by length, "paid" or "given"."""
    e, a = self.estimate, self.annealed
    if self.exact:
      return {"exact": {"paid": e.log_likelihood}}
    found = {"iwae": {"paid": e.log_likelihood, "given": e.given_length}}
    found["elbo"] = {"paid": e.elbo, "given": e.length_given(e.elbo)}
    for name in ("reconstruction", "lee2020"):
      given = getattr(e, name)
      found[name] = {"paid": e.length_paid(given), "given": given}
    if e.sweep.shape[1] > 3:
      paid = np.asarray(likelihood.extrapolate(e.sweep))
      found["extrapolated"] = {"paid": paid, "given": e.length_given(paid)}
    if a is not None:
      found["annealed"] = {"paid": a.log_likelihood, "given": a.given_length}
    return found

  def columns(self) -> dict[str, np.ndarray]:
    """Returns what is kept of each sentence."""
    columns = dict(vars(self.estimate))
    if self.annealed is not None:
      columns["annealed"] = self.annealed.log_likelihood
    return columns


def main(argv):
  """Scores a split by each checkpoint asked for."""
  del argv
  if _TEMPERATURES.value == 1:
    raise InputError("--temperatures=1: give 2 or more, or 0 for none.")
  settings = Settings(
    _SAMPLES.value, _CHUNK.value, _TEMPERATURES.value, _CHAINS.value,
    _LEAPFROG.value, _SEED.value, _TRUNCATE.value,
  )  # fmt: skip
  run, split = RunDirectory(_RUN.value), _SPLIT.value
  prepared = PreparedData.open(_DATA.value)
  steps = loading.checkpoint_steps(run, _CHECKPOINT.value)
  for step in steps:
    if len(steps) > 1:
      print(f"step {step}")
    # Models of the same configuration are equal: nothing is compiled again.
    loaded = checkpoint.load(run, step)
    aloud = step == steps[0]
    scores, found = evaluate(loaded, prepared, split, settings, aloud)
    told = {"samples": settings.samples, "seed": settings.seed}
    run.write_likelihood(split, step, **scores.columns(), **told)
    about = {"split": split, "step": step, "data": prepared.fingerprint}
    about |= {} if scores.exact else told
    for row in found:
      row = about | row  # annealing has its own number of samples
      run.append_result(Result.from_row(row))
      show(row)
    if found[0]["escaped"] or has_escape(loaded[0]):
      print(
        f"{'escaped':43}{found[0]['escaped']:10,} of"
        f" {found[0]['sentences']:,} sentences"
      )


def evaluate(
  loaded, prepared: PreparedData, split: str, settings: Settings, aloud: bool
) -> tuple[Scores, list[dict]]:
  """Returns scores of each sentence of a split, and figures of them all.

  `loaded` is what `checkpoint.load` gives; `aloud` warns of what the figures
  are not of.
  """
  model, _, tokenizer = loaded
  sources, targets = prepared.sources(split), prepared.targets(split)
  scores = score(loaded, sources, targets, settings)
  x, y = tokenizer.encode(sources), tokenizer.encode(targets)
  counted = counts(model, scores.estimate, x, y)
  limit = model.config.transformer.max_length
  if aloud:
    warn(counted, limit)
  # Of references that were scored in part there is no sense to bits per byte.
  found = rows(scores, settings, targets if max(map(len, y)) <= limit else None)
  truth = prepared.log_probs(split)
  if truth is not None and not counted["truncated"]:
    found += truth_results(scores, truth)
  return scores, [row | counted for row in found]


def score(loaded, sources, targets, settings: Settings) -> Scores:
  """Estimates log p(y|x) of n pairs of lines; see `evaluate`."""
  model, options = loaded[0], {"truncate": settings.truncate}
  pairs = *loaded, sources, targets, jax.random.key(settings.seed)
  options["progress"] = functools.partial(progress, desc="likelihood")
  estimate = likelihood.log_likelihood_lines(
    *pairs, settings.samples, settings.chunk, **options
  )
  if model.exact or not settings.temperatures:
    return Scores(estimate, model.exact)
  options["progress"] = functools.partial(progress, desc="annealing")
  sizes = settings.temperatures, settings.chains, settings.leapfrog
  annealed = likelihood.annealed_lines(*pairs, *sizes, **options)
  return Scores(estimate, model.exact, annealed)


def rows(
  scores: Scores, settings: Settings, references: list[str] | None
) -> list[dict]:
  """Returns figures of a corpus; without `references` no bits per byte."""
  estimate, annealed, more = scores.estimate, scores.annealed, {}
  if not scores.exact:
    sweep = [
      metrics.per_token(v, estimate.num_tokens) for v in estimate.sweep.T
    ]
    more["iwae"] = _noise(estimate) | {"sweep": sweep}
  if annealed is not None:
    more["annealed"] = _noise(annealed) | {
      "samples": settings.chains,
      "temperatures": settings.temperatures,
      "leapfrog": settings.leapfrog,
      "acceptance_mean": float(np.mean(annealed.acceptance)),
    }
  result = []
  for name, by_length in scores.nats().items():
    for length, nats in by_length.items():
      row = {
        "metric": _METRICS[length],
        "value": metrics.per_token(nats, estimate.num_tokens),
        "estimator": name,
        "length": length,
        "nats_per_sentence": metrics.per_sentence(nats),
      }
      if references is not None:
        row["bits_per_byte"] = metrics.bits_per_byte(nats, references)
      result.append(row | more.get(name, {}))
  if not scores.exact:
    per_position = estimate.lee2020 / estimate.num_positions
    row = {"metric": "lee2020_per_position", "estimator": "lee2020"}
    row["value"] = metrics.per_sentence(per_position)
    result.append(row | {"length": "given"})
  return result


def _noise(estimate: Estimate | AnnealedEstimate) -> dict:
  """Says how far the samples can be trusted."""
  variance = np.square(estimate.standard_error, dtype=np.float64)
  tokens = np.sum(estimate.num_tokens, dtype=np.float64)
  return {
    "standard_error": float(np.sqrt(np.sum(variance)) / tokens),
    "ess_mean": float(np.mean(estimate.ess)),
    "ess_median": float(np.median(estimate.ess)),
    "ess_min": float(np.min(estimate.ess)),
  }


def truth_results(scores: Scores, truth: np.ndarray) -> list[dict]:
  """Pairs every estimator, length paid, with float[n], the true log p(y|x)."""
  result, tokens = [], scores.estimate.num_tokens
  for name, by_length in scores.nats().items():
    nats = by_length["paid"]
    mean, error = metrics.mean_difference(nats, truth)
    result.append(
      {
        "metric": "difference_to_truth",
        "value": mean,
        "estimator": name,
        "length": "paid",
        "standard_error": error if np.isfinite(error) else None,
        "per_token": metrics.per_token(nats - truth, tokens),
        "truth_per_token": metrics.per_token(truth, tokens),
      }
    )
  return result


def counts(model, estimate: Estimate, source: list, target: list) -> dict:
  """Counts what was scored, and what of it was out of the ordinary.

  `source` and `target` are n lists of ids, with EOS, before any are cut.
  """
  x, y = (np.array([len(ids) for ids in side]) for side in (source, target))
  limit = model.config.transformer.max_length
  row = {
    "sentences": len(y),
    "tokens": int(np.sum(estimate.num_tokens, dtype=np.float64)),
    "positions": int(np.sum(estimate.num_positions, dtype=np.float64)),
    "unknown": sum(ids.count(UNK) for ids in target),
    "truncated": int(np.sum((x > limit) | (y > limit))),
    "escaped": int(np.sum(estimate.escaped)),
  }
  bound = getattr(model.config, "max_length_difference", None)
  if bound is not None:
    difference = np.abs(estimate.num_positions - np.minimum(x, limit))
    row["beyond_length_classes"] = int(np.sum(difference > bound))
  return row


def has_escape(model) -> bool:
  """Returns whether a model has an output with an escape."""
  return getattr(getattr(model, "output", None), "escape", 0) > 0


def warn(counted: dict, limit: int) -> None:
  """Says on stderr what of the corpus the figures are not of."""
  if counted["truncated"]:
    print(
      f"{counted['truncated']:,} of {counted['sentences']:,} pairs were cut to"
      f" {limit} tokens a side.",
      file=sys.stderr,
    )
  if counted["unknown"]:
    print(
      f"{counted['unknown']:,} of {counted['tokens']:,} tokens of the"
      " references are unknown to the vocabulary: which characters they stand"
      " for is paid for neither in nats nor in bits/byte.",
      file=sys.stderr,
    )


def show(row: dict) -> None:
  """Prints a row for a person."""
  line = f"{row['metric']:28}{row['estimator']:15}{row['value']:10.4f}"
  if "ess_median" in row:
    line += f"  K {row['samples']}, ESS median {row['ess_median']:.1f}"
    line += f" min {row['ess_min']:.1f}, +- {row['standard_error']:.4f}"
  elif row["metric"] == "difference_to_truth" and row["standard_error"]:
    line += f" +- {row['standard_error']:.4f} nats per sentence"
  print(line)


if __name__ == "__main__":
  app.run(main)
