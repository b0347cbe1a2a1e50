"""How likely a model finds the references: exactly, or by bounds and samples.

  python -m experiments.evaluate_likelihood --run=runs/quickstart/gauss-raw \
    --data=runs/quickstart/data --samples=100

With --checkpoint=kept each checkpoint of the run is scored, by the same
compiled programs. Rows go to the run's results.jsonl, per-sentence values to
likelihood/<split>.<step>.npz of the run, by the names of `Estimate`. Rows by
metric, each for the estimators "exact" (autoregressive models) or iwae, elbo,
reconstruction and lee2020 (latent models), from K = 8 on "extrapolated", what
iwae seems to tend to (no bound), and with --temperatures "annealed":

  nats_per_token               of the corpus, the length paid for
  nats_per_token_given_length  of latent models, p(y|x, T)
  lee2020_per_position         the figure the public code of Lee et al. (2020)
                               reports: mean over sentences, length given
  difference_to_truth          mean over sentences of value - log p(y|x), in
                               nats, length paid; where the truth is known

Tokens are counted up to and including EOS, without any EOS that the model
appends; bits_per_byte is per UTF-8 byte of the references. K, the effective
sample size and the standard error (of sampling z, in nats per token) stand in
the rows of iwae, beside nats per token at K, K/2, K/4, ... samples, and in
those of annealed, where K is the number of chains. "unknown" tokens of the
references make nats and bits/byte those of their pieces, not of the string.
"""

from pathlib import Path
import sys

from absl import flags
import jax
import numpy as np

from latentnmt import checkpoint, files, likelihood, metrics
from latentnmt.config import AutoregressiveConfig
from latentnmt.data import PreparedData
from latentnmt.errors import InputError
from latentnmt.experiments import app, shared_flags
from latentnmt.experiments.progress import progress
from latentnmt.text import UNK
from latentnmt.types import AnnealedEstimate, Estimate

_RUN = shared_flags.run_flag()
shared_flags.checkpoint_flag(several=True)
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
_ESTIMATORS = ("iwae", "elbo", "reconstruction", "lee2020")


def values(
  estimate: Estimate, exact: bool, annealed: AnnealedEstimate | None = None
) -> dict[str, np.ndarray]:
  """float[n], nats per sentence with the length given, by estimator."""
  if exact:
    return {"exact": estimate.log_likelihood}
  found = {"iwae": estimate.log_likelihood}
  found |= {name: getattr(estimate, name) for name in _ESTIMATORS[1:]}
  if estimate.sweep.shape[1] > 3:
    found["extrapolated"] = np.asarray(likelihood.extrapolate(estimate.sweep))
  if annealed is not None:
    found["annealed"] = annealed.log_likelihood
  return found


def rows(
  estimate: Estimate,
  references: list[str],
  exact: bool,
  cut: bool = False,
  annealed: AnnealedEstimate | None = None,
) -> list[dict]:
  """Figures of a corpus.

  Args:
    estimate: of n sentences.
    references: n lines, as they stand in the corpus.
    exact: whether the model is autoregressive and the estimate its truth.
    cut: whether references were scored in part, which leaves no sense to
      bits per byte.
    annealed: of the same sentences.
  """
  more = {} if exact else {"iwae": _noise(estimate) | _sweep(estimate)}
  if annealed is not None:
    more["annealed"] = _noise(annealed) | _annealing(annealed)
  result = []
  for name, given in values(estimate, exact, annealed).items():
    conventions = {"paid": given + estimate.log_pl}
    if not exact:
      conventions["given"] = given
    for length, nats in conventions.items():
      row = {
        "metric": _METRICS[length],
        "value": metrics.per_token(nats, estimate.num_tokens),
        "estimator": name,
        "length": length,
        "nats_per_sentence": metrics.per_sentence(nats),
      }
      if not cut:
        row["bits_per_byte"] = metrics.bits_per_byte(nats, references)
      result.append(row | more.get(name, {}))
  if not exact:
    per_position = estimate.lee2020 / estimate.num_positions
    result.append(
      {
        "metric": "lee2020_per_position",
        "value": metrics.per_sentence(per_position),
        "estimator": "lee2020",
        "length": "given",
      }
    )
  return result


def _noise(estimate: Estimate | AnnealedEstimate) -> dict:
  """How far the samples can be trusted."""
  variance = np.square(estimate.standard_error, dtype=np.float64)
  tokens = np.sum(estimate.num_tokens, dtype=np.float64)
  return {
    "standard_error": float(np.sqrt(np.sum(variance)) / tokens),
    "ess_mean": float(np.mean(estimate.ess)),
    "ess_median": float(np.median(estimate.ess)),
    "ess_min": float(np.min(estimate.ess)),
  }


def _sweep(estimate: Estimate) -> dict:
  """Nats per token, length paid, at K, K/2, K/4, ... samples."""
  paid = estimate.sweep + estimate.log_pl[:, None]
  return {"sweep": [metrics.per_token(v, estimate.num_tokens) for v in paid.T]}


def _annealing(annealed: AnnealedEstimate) -> dict:
  return {
    "K": _CHAINS.value,
    "temperatures": _TEMPERATURES.value,
    "leapfrog": _LEAPFROG.value,
    "acceptance_mean": float(np.mean(annealed.acceptance)),
  }


def differences(
  estimate: Estimate,
  truth: np.ndarray,
  exact: bool,
  annealed: AnnealedEstimate | None = None,
) -> list[dict]:
  """Rows that pair every estimator, length paid, with the known truth.

  Args:
    estimate: of n sentences.
    truth: float[n], log p(y|x) in nats.
    exact: as for `rows`.
    annealed: as for `rows`.
  """
  result = []
  for name, given in values(estimate, exact, annealed).items():
    nats = given + estimate.log_pl
    mean, error = metrics.mean_difference(nats, truth)
    result.append(
      {
        "metric": "difference_to_truth",
        "value": mean,
        "estimator": name,
        "length": "paid",
        "standard_error": error if np.isfinite(error) else None,
        "per_token": metrics.per_token(nats - truth, estimate.num_tokens),
        "truth_per_token": metrics.per_token(truth, estimate.num_tokens),
      }
    )
  return result


def counts(model, estimate: Estimate, source: list, target: list) -> dict:
  """What was scored, and what of it was out of the ordinary.

  Args:
    model: that scored.
    estimate: of n sentences.
    source: n lists of ids, with EOS, before any are cut.
    target: n lists of ids.
  """
  x, y = (np.array([len(ids) for ids in side]) for side in (source, target))
  unknown = sum(ids.count(UNK) for ids in target)
  limit = model.config.transformer.max_length
  row = {
    "sentences": len(y),
    "tokens": int(np.sum(estimate.num_tokens, dtype=np.float64)),
    "positions": int(np.sum(estimate.num_positions, dtype=np.float64)),
    "unknown": unknown,
    "truncated": int(np.sum((x > limit) | (y > limit))),
  }
  if not isinstance(model.config, AutoregressiveConfig):
    bound = model.config.max_length_difference
    difference = np.abs(estimate.num_positions - np.minimum(x, limit))
    row["beyond_length_classes"] = int(np.sum(difference > bound))
  return row


def warn(counted: dict, limit: int) -> None:
  """Says on stderr what of the corpus the figures are not of."""
  lines = []
  if counted["truncated"]:
    lines.append(
      f"{counted['truncated']:,} of {counted['sentences']:,} pairs were cut to"
      f" {limit} tokens a side."
    )
  if counted["unknown"]:
    lines.append(
      f"{counted['unknown']:,} of {counted['tokens']:,} tokens of the"
      " references are unknown to the vocabulary: which characters they stand"
      " for is paid for neither in nats nor in bits/byte."
    )
  for line in lines:
    print(line, file=sys.stderr)


def show(found: list[dict]) -> None:
  """Prints the rows for a person."""
  for row in found:
    line = f"{row['metric']:28}{row['estimator']:15}{row['value']:10.4f}"
    if "ess_median" in row:
      line += f"  K {row['K']}, ESS median {row['ess_median']:.1f}"
      line += f" min {row['ess_min']:.1f}, +- {row['standard_error']:.4f}"
    elif row["metric"] == "difference_to_truth" and row["standard_error"]:
      line += f" +- {row['standard_error']:.4f} nats per sentence"
    print(line)


def main(argv):
  """Scores a split by each checkpoint asked for."""
  del argv
  if _TEMPERATURES.value == 1:
    raise InputError("--temperatures=1: give 2 or more, or 0 for none.")
  prepared = PreparedData.open(_DATA.value)
  steps = shared_flags.checkpoint_steps(_RUN.value)
  for step in steps:
    if len(steps) > 1:
      print(f"step {step}")
    # Models of the same configuration are equal: nothing is compiled again.
    evaluate(prepared, step, aloud=step == steps[0])


def evaluate(prepared: PreparedData, step: int, aloud: bool) -> None:
  """Scores a split by one checkpoint and writes what was found.

  Args:
    prepared: the corpus.
    step: of the checkpoint.
    aloud: whether to warn of what the figures are not of.
  """
  split = _SPLIT.value
  sources, targets = prepared.sources(split), prepared.targets(split)
  model, params, tokenizer = checkpoint.load(_RUN.value, step)
  exact = isinstance(model.config, AutoregressiveConfig)
  key = jax.random.key(_SEED.value)
  scored = model, params, tokenizer, sources, targets, key
  estimate = likelihood.log_likelihood_lines(
    *scored,
    _SAMPLES.value,
    _CHUNK.value,
    progress=lambda batches: progress(batches, desc="likelihood"),
    truncate=_TRUNCATE.value,
  )
  annealed = None
  if _TEMPERATURES.value and not exact:
    annealed = likelihood.annealed_lines(
      *scored,
      _TEMPERATURES.value,
      _CHAINS.value,
      _LEAPFROG.value,
      progress=lambda batches: progress(batches, desc="annealing"),
      truncate=_TRUNCATE.value,
    )
  x, y = tokenizer.encode(sources), tokenizer.encode(targets)
  counted = counts(model, estimate, x, y)
  limit = model.config.transformer.max_length
  if aloud:
    warn(counted, limit)
  cut = max(map(len, y)) > limit
  found = rows(estimate, targets, exact, cut, annealed)
  truth = prepared.log_probs(split)
  if truth is not None and not counted["truncated"]:
    found += differences(estimate, truth, exact, annealed)
  conditions = {
    "split": split,
    "step": step,
    "K": None if exact else _SAMPLES.value,
    "seed": None if exact else _SEED.value,
    "data": prepared.fingerprint,
    **counted,
  }
  found = [row | conditions | row for row in found]  # annealed has its own K
  write(step, estimate, annealed, found)
  show(found)


def write(
  step: int,
  estimate: Estimate,
  annealed: AnnealedEstimate | None,
  found: list[dict],
) -> None:
  """Writes the values of each sentence, then the rows."""
  run, split = Path(_RUN.value), _SPLIT.value
  columns = vars(estimate) | dict(samples=_SAMPLES.value, seed=_SEED.value)
  if annealed is not None:
    columns["annealed"] = annealed.log_likelihood
  with files.replacing(run / "likelihood" / f"{split}.{step}.npz") as partial:
    with open(partial, "wb") as file:  # savez adds .npz to a mere name
      np.savez(file, **columns)
  for row in found:
    checkpoint.append_result(run, row)


if __name__ == "__main__":
  app.run(main)
