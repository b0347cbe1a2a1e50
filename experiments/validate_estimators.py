"""Checks the estimators of log p(y|x) where the truth is known. Prints a table.

  python -m experiments.validate_estimators
  python -m experiments.validate_estimators --run=runs/grammar/gauss \
    --data=runs/grammar/data --sentences=32

Without --run, on models whose log p(y|x) has a closed form: q is 5 % too
narrow, 10 % too narrow and off by a tenth, or diagonal where the posterior is
correlated. And on sentences that a Transformer with random parameters draws
itself: their truth is unknown, but enclosed by annealed importance sampling
forwards and in reverse.

With --run, on sentences that a trained latent model draws, of the lengths of
the first references of a split, and on these references where the data has
their true log p(y|x), as `grammar` does: no model is above it in expectation
(length paid).

Nats are per token, or per position of sentences that a model drew. +- is the
noise of sampling z; "K" are samples, or temperatures x chains x leapfrog steps
of annealing; seconds include compilation.
"""

from collections.abc import Callable, Iterator
import dataclasses
import functools
import math
import time

from absl import flags
import jax
import jax.numpy as jnp
import numpy as np

from latentnmt import checkpoint, decode, likelihood, metrics, models, zoo
from latentnmt.closed_forms import VOCAB_SIZE, LinearGaussian, Mixture
from latentnmt.data import PreparedData
from latentnmt.errors import InputError
from latentnmt.experiments import app, hardware, shared_flags
from latentnmt.testing import perturb
from latentnmt.types import EOS, Batch

_RUN = shared_flags.run_flag(required=False)
_CHECKPOINT = shared_flags.checkpoint_flag()
_DATA = shared_flags.data_flag(required=False)
_SPLIT = shared_flags.split_flag()
_SENTENCES = flags.DEFINE_integer("sentences", 8, "How many are scored.", 1)
_POSITIONS = flags.DEFINE_integer(
  "positions", 28, "Length of each sentence, without --run.", 1
)
_CHANNELS = flags.DEFINE_multi_integer(
  "channels", [8, 64], "Latent channels, without --run; repeat for more.", 1
)
_SAMPLES = flags.DEFINE_integer("samples", 1000, "K of iwae.", 8)
_TEMPERATURES = flags.DEFINE_integer("temperatures", 200, "Of annealing.", 2)
_CHAINS = flags.DEFINE_integer("chains", 16, "Of annealing.", 1)
_LEAPFROG = flags.DEFINE_integer("leapfrog", 4, "Steps of a move.", 1)
_SEED = flags.DEFINE_integer("seed", 0, "Of sentences and samples.")

_KL = 1.5  # nats per token that the latents of the closed forms carry
_VOCAB_SIZE = 1000  # of the random Transformer


@dataclasses.dataclass(frozen=True)
class Row:
  """A line of the table.

  Attributes:
    subject: what was scored.
    estimator: by which estimator.
    value: nats per token.
    truth: nats per token; None where it is not known.
    noise: standard error of `value`; None where it is not known.
    ess: mean effective sample size.
    budget: K.
    seconds: taken, compilation included; None for what came along.
  """

  subject: str
  estimator: str
  value: float
  truth: float | None = None
  noise: float | None = None
  ess: float | None = None
  budget: str = ""
  seconds: float | None = None

  def __str__(self):
    error = None if self.truth is None else self.value - self.truth
    cells = [
      self.subject,
      self.estimator,
      f"{self.value:.4f}",
      _cell(self.truth, ".4f"),
      _cell(error, "+.4f"),
      _cell(self.noise, ".4f"),
      _cell(self.ess, ".1f"),
      self.budget,
      _cell(self.seconds, ".1f"),
    ]
    return f"| {' | '.join(cells)} |"


_HEADER = """
| sentences of | estimator | nats/token | truth | error | +- | ESS | K | s |
|---|---|---:|---:|---:|---:|---:|---:|---:|""".lstrip()


def _cell(value: float | None, form: str) -> str:
  return "" if value is None else format(value, form)


def main(argv):
  """Prints the table, row by row."""
  del argv
  if (_RUN.value is None) != (_DATA.value is None):
    raise InputError("Give both --run and --data, or neither.")
  if _RUN.value:
    shared_flags.refuse(["positions", "channels"], "is for what has no --run")
  else:
    shared_flags.refuse(["split", "checkpoint"], "is for --run")
  print(hardware.device_description(), end="\n\n")
  print(_HEADER)
  for row in _of_run() if _RUN.value else _of_known_models():
    print(row, flush=True)


def _of_known_models() -> Iterator[Row]:
  for channels in _CHANNELS.value:
    # Such that KL(posterior || prior) is _KL for each token.
    noise = math.expm1(2 * _KL / channels) ** -0.5
    subjects = {
      "linear-Gaussian, narrow q": LinearGaussian(
        channels, narrow=0.95, noise=noise
      ),
      "linear-Gaussian, correlated": LinearGaussian(channels, coupling=0.5),
      "discrete, narrow and shifted q": Mixture(
        channels, narrow=0.9, shift=0.1, separation=2.0
      ),
    }
    for name, model in subjects.items():
      batch = _random_batch(VOCAB_SIZE)
      exact = model.posterior_sample(_key(2), batch.y)
      truth = model.log_evidence(batch.y)
      yield from _compare(
        f"{name}, C={channels}", model, {}, batch, exact, truth
      )
  yield from _of_random_transformer()


def _of_random_transformer() -> Iterator[Row]:
  model = models.build(zoo.config("gauss_tiny", vocab_size=_VOCAB_SIZE))
  batch = _random_batch(_VOCAB_SIZE)
  params = jax.jit(model.init)(_key(3), batch, _key(3))["params"]
  params = perturb(params, _key(4), 0.05)
  batch, exact = likelihood.simulate(model, params, batch, _key(2))
  name = f"a random Transformer's own, C={model.config.channels}"
  yield from _compare(name, model, params, batch, exact)


def _of_run() -> Iterator[Row]:
  prepared = PreparedData.open(_DATA.value)
  split, count = _SPLIT.value, _SENTENCES.value
  (step,) = shared_flags.checkpoint_steps(_RUN.value)
  model, params, tokenizer = checkpoint.load(_RUN.value, step)
  if isinstance(model, models.AutoregressiveTransformer):
    raise InputError(f"{_RUN.value}: an autoregressive model has no latents.")
  lines = prepared.sources(split)[:count], prepared.targets(split)[:count]
  batch = Batch(
    *(
      _pad(decode.encode_lines(model, tokenizer, side, False, name))
      for side, name in zip(lines, ("source", "target"), strict=True)
    )
  )
  drawn, exact = likelihood.simulate(model, params, batch, _key(2))
  yield from _compare("the model's own", model, params, drawn, exact)
  truth = prepared.log_probs(split)
  if truth is not None:
    name = f"{split}, length paid"
    yield from _compare(name, model, params, batch, None, truth[:count])


def _pad(sequences) -> jax.Array:
  """int32[n, T] of n lists of ids."""
  size = max(map(len, sequences))
  rows = [list(ids) + [0] * (size - len(ids)) for ids in sequences]
  return jnp.array(rows, jnp.int32)


def _random_batch(vocab_size: int) -> Batch:
  rng = np.random.default_rng(_SEED.value)
  shape = _SENTENCES.value, _POSITIONS.value
  y = rng.integers(EOS + 1, vocab_size, shape, np.int32)
  y[:, -1] = EOS
  return Batch(jnp.asarray(y), jnp.asarray(y))


def _key(number: int) -> jax.Array:
  return jax.random.fold_in(jax.random.key(_SEED.value), number)


def _compare(subject, model, params, batch, exact=None, truth=None):
  """Rows of every estimator.

  Args:
    subject: a name for the sentences.
    model: a latent model.
    params: its parameters.
    batch: the sentences.
    exact: exact samples of the posterior, where there are some. Without any,
      sentences are a corpus's: the length is paid for, and tokens counted.
    truth: log p(y|x) of each sentence in nats, where known.
  """
  run = functools.partial(_timed, model, params, batch)
  estimate, seconds = run(likelihood.log_likelihood, samples=_SAMPLES.value)
  paid, count = estimate.log_pl, estimate.num_tokens
  if exact is not None:
    paid, count = 0.0, estimate.num_positions

  def row(name, value, *rest):
    nats = metrics.per_token(value + paid, count)
    known = None if truth is None else metrics.per_token(truth, count)
    return Row(subject, name, nats, known, *rest)

  def noisy(name, estimate, budget, seconds):
    variance = np.square(estimate.standard_error, dtype=np.float64)
    noise = math.sqrt(variance.sum()) / float(np.sum(count))
    ess = float(np.mean(estimate.ess[estimate.num_positions > 0]))
    value = estimate.log_likelihood
    return row(name, value, noise, ess, budget, seconds)

  yield row("elbo", estimate.elbo)
  yield noisy("iwae", estimate, f"{_SAMPLES.value}", seconds)
  extrapolated = np.asarray(likelihood.extrapolate(estimate.sweep))
  yield row("extrapolated (no bound)", extrapolated)
  sizes = _TEMPERATURES.value, _CHAINS.value, _LEAPFROG.value
  budget = " x ".join(map(str, sizes))
  annealed = functools.partial(
    run,
    likelihood.annealed,
    temperatures=sizes[0],
    chains=sizes[1],
    leapfrog=sizes[2],
  )
  estimate, seconds = annealed()
  yield noisy("annealed", estimate, budget, seconds)
  if exact is not None:
    estimate, seconds = annealed(reverse_from=exact)
    yield noisy("annealed in reverse", estimate, budget, seconds)


def _timed(model, params, batch, score: Callable, **arguments):
  """An estimate on the host, and the seconds it took."""
  start = time.perf_counter()
  estimate = score(model, params, batch, _key(1), **arguments)
  estimate = jax.device_get(estimate)
  return estimate, time.perf_counter() - start


if __name__ == "__main__":
  app.run(main)
