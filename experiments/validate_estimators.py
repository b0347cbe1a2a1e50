"""Checks the estimators of log p(y|x) where the truth is known. Prints a table.

  latentnmt validate_estimators
  latentnmt validate_estimators --run=runs/grammar/gauss \
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

from collections.abc import Callable, Iterable, Iterator
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
from latentnmt.data import PreparedData, TokenStore
from latentnmt.errors import InputError
from latentnmt.experiments import app, hardware, loading, shared_flags
from latentnmt.runs import RunDirectory
from latentnmt.testing import perturb
from latentnmt.types import EOS, AnnealedEstimate, Batch, Estimate, Nats

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


@dataclasses.dataclass(frozen=True)
class Settings:
  """Settings of the estimators.

  Attributes:
    samples: K of iwae.
    annealing: arguments of `likelihood.annealed` by name.
    seed: of sentences and samples.
  """

  samples: int
  annealing: dict[str, int]
  seed: int

  def key(self, number: int) -> jax.Array:
    """Returns the key of one purpose."""
    return jax.random.fold_in(jax.random.key(self.seed), number)


_KL = 1.5  # nats per token that the latents of the closed forms carry
_VOCAB_SIZE = 1000  # of the random Transformer


_HEADER = """
| sentences of | estimator | nats/token | truth | error | +- | ESS | K | s |
|---|---|---:|---:|---:|---:|---:|---:|---:|""".lstrip()


def main(argv):
  """Prints the table, row by row."""
  del argv
  if (_RUN.value is None) != (_DATA.value is None):
    raise InputError("Give both --run and --data, or neither.")
  if _RUN.value:
    shared_flags.refuse(["positions", "channels"], "is for what has no --run")
  else:
    shared_flags.refuse(["split", "checkpoint"], "is for --run")
  annealing = {
    "temperatures": _TEMPERATURES.value,
    "chains": _CHAINS.value,
    "leapfrog": _LEAPFROG.value,
  }
  settings = Settings(_SAMPLES.value, annealing, _SEED.value)
  print(hardware.device_description(), end="\n\n")
  print(_HEADER)
  if _RUN.value:
    run, data = RunDirectory(_RUN.value), PreparedData.open(_DATA.value)
    (step,) = loading.checkpoint_steps(run, _CHECKPOINT.value)
    which = _SPLIT.value, _SENTENCES.value
    rows = _of_run(run, step, data, *which, settings)
  else:
    shape = _SENTENCES.value, _POSITIONS.value
    rows = _of_known_models(_CHANNELS.value, shape, settings)
  for row in rows:
    print(row, flush=True)


def _of_known_models(
  widths: Iterable[int], shape: tuple[int, int], settings: Settings
) -> Iterator[str]:
  for channels in widths:
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
      batch = _random_batch(VOCAB_SIZE, shape, settings.seed)
      exact = model.posterior_sample(settings.key(2), batch.y)
      truth = model.log_evidence(batch.y)
      yield from _compare(
        f"{name}, C={channels}", settings, model, {}, batch, exact, truth
      )
  yield from _of_random_transformer(shape, settings)


def _of_random_transformer(shape, settings: Settings) -> Iterator[str]:
  model = models.build(zoo.config("gauss_tiny", vocab_size=_VOCAB_SIZE))
  batch = _random_batch(_VOCAB_SIZE, shape, settings.seed)
  init = jax.jit(models.init_params, static_argnums=0)
  params = perturb(init(model, settings.key(3)), settings.key(4), 0.05)
  batch, exact = likelihood.simulate(model, params, batch, settings.key(2))
  name = f"a random Transformer's own, C={model.config.channels}"
  yield from _compare(name, settings, model, params, batch, exact)


def _of_run(
  run: RunDirectory, step: int, data: PreparedData, split: str, count: int,
  settings: Settings,
) -> Iterator[str]:  # fmt: skip
  model, params, tokenizer = checkpoint.load(run, step)
  if model.exact:
    raise InputError(
      f"{run}: there is nothing to estimate, its model is exact."
    )
  x, y = (
    decode.encode_lines(model, tokenizer, lines[:count], False, side)
    for lines, side in (
      (data.sources(split), "source"),
      (data.targets(split), "target"),
    )
  )
  store = TokenStore.from_sequences(x, y)
  batch = store.gather(np.arange(len(x)), *store.lengths.max(axis=0))
  drawn, exact = likelihood.simulate(model, params, batch, settings.key(2))
  yield from _compare("the model's own", settings, model, params, drawn, exact)
  truth = data.log_probs(split)
  if truth is not None:
    name, truth = f"{split}, length paid", truth[:count]
    yield from _compare(name, settings, model, params, batch, truth=truth)


def _random_batch(vocab_size: int, shape: tuple[int, int], seed: int) -> Batch:
  y = np.random.default_rng(seed).integers(EOS + 1, vocab_size, shape, np.int32)
  y[:, -1] = EOS
  return Batch(jnp.asarray(y), jnp.asarray(y))


def _compare(
  subject, settings: Settings, model, params, batch, exact=None, truth=None
) -> Iterator[str]:
  """Yields lines of every estimator.

  Args:
    subject: a name for the sentences.
    settings: of the estimators.
    model: a latent model.
    params: its parameters.
    batch: the sentences.
    exact: exact samples of the posterior, where there are some. Without any,
      sentences are a corpus's: the length is paid for, and tokens counted.
    truth: log p(y|x) of each sentence in nats, where known.
  """
  run = functools.partial(_timed, settings.key(1), model, params, batch)
  estimate, seconds = run(likelihood.log_likelihood, samples=settings.samples)
  corpus = exact is None
  count = estimate.num_tokens if corpus else estimate.num_positions
  known = None if truth is None else metrics.per_token(truth, count)

  def line(name, nats: Nats, noise=None, ess=None, budget="", seconds=None):
    nats = nats if corpus else estimate.length_given(nats)
    value = metrics.per_token(nats, count)
    error = None if known is None else value - known
    numbers = (value, ".4f"), (known, ".4f"), (error, "+.4f"), (noise, ".4f")
    cells = [_cell(*number) for number in (*numbers, (ess, ".1f"))]
    cells = [subject, name, *cells, budget, _cell(seconds, ".1f")]
    return f"| {' | '.join(cells)} |"

  def noisy(name, found: Estimate | AnnealedEstimate, *rest) -> str:
    variance = np.square(found.standard_error, dtype=np.float64)
    noise = math.sqrt(variance.sum()) / float(np.sum(count))
    ess = float(np.mean(found.ess[found.num_positions > 0]))
    return line(name, found.log_likelihood, noise, ess, *rest)

  yield line("elbo", estimate.elbo)
  yield noisy("iwae", estimate, f"{settings.samples}", seconds)
  extrapolated = np.asarray(likelihood.extrapolate(estimate.sweep))
  yield line("extrapolated (no bound)", extrapolated)
  anneal = functools.partial(run, likelihood.annealed, **settings.annealing)
  budget = " x ".join(map(str, settings.annealing.values()))
  found, seconds = anneal()
  yield noisy("annealed", found, budget, seconds)
  if not corpus:
    found, seconds = anneal(reverse_from=exact)
    yield noisy("annealed in reverse", found, budget, seconds)


def _cell(value: float | None, form: str) -> str:
  return "" if value is None else format(value, form)


def _timed(key, model, params, batch, score: Callable, **arguments):
  """Returns an estimate on the host, and the seconds it took."""
  start = time.perf_counter()
  estimate = jax.device_get(score(model, params, batch, key, **arguments))
  return estimate, time.perf_counter() - start


if __name__ == "__main__":
  app.run(main)
