"""What `benchmark` measures of our own models: decode, train, likelihood.

Each function makes one row for results.jsonl: a rate with its range over
repetitions, the median seconds, compilation apart, and the matrix products
that have to be computed at the least (see `floors`).

Presets decode and score with the parameters of `models.for_inference`, trained
runs with their own, as `translate` does. Sentences of a model with random
weights are as long as they are asked to be: a `_FixedLength` decoder cannot end
a translation earlier or later. A trained model decodes as it does.
"""

from collections.abc import Callable, Mapping
import dataclasses
import functools
from pathlib import Path
import resource
import statistics
import sys
import time

from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from latentnmt import decode, likelihood, models, sharding
from latentnmt.config import ExperimentConfig, LatentConfig
from latentnmt.decode import Delta
from latentnmt.experiments import hardware
from latentnmt.experiments.benchmark import roofline as floors
from latentnmt.experiments.progress import progress
from latentnmt.masks import round_up
from latentnmt.models import AutoregressiveTransformer, LatentTransformer
from latentnmt.train import Programs, init_state
from latentnmt.types import EOS, PAD, Batch, Params


@dataclasses.dataclass(frozen=True)
class Subject:
  """A model with sentences to measure it on.

  Attributes:
    config: of the model and its training.
    make_params: gives the model's parameters.
    batch: int32[n, S] and int32[n, T], n pairs of about the same length.
    source: where they are from, a split or "random".
    scores: what ranks the candidates of methods that a teacher judges.
    length: tokens of each translation; None for as many as the model wants.
  """

  config: ExperimentConfig
  make_params: Callable[[], Params]
  batch: Batch
  source: str
  scores: Mapping[decode.Method, decode.Score | None]
  length: int | None = None

  @functools.cached_property
  def params(self) -> Params:
    """Parameters, made when they are first needed: training has its own."""
    return jax.block_until_ready(self.make_params())

  @property
  def layers(self) -> str:
    """How layers lie when decoding and scoring; see `models.for_inference`."""
    return "stacked" if self.length is None else "apart"

  @property
  def num_parameters(self) -> int:
    """How many numbers the model has."""
    return models.num_parameters(self.config.model)

  @functools.cached_property
  def model(self) -> nn.Module:
    """The model."""
    return models.build(self.config.model)

  @functools.cached_property
  def decoder(self) -> nn.Module:
    """The model, of fixed length where there is one."""
    if self.length is None:
      return self.model
    latent = isinstance(self.model, LatentTransformer)
    kind = _FixedLengthLatent if latent else _FixedLength
    return kind(self.config.model, target_length=self.length)

  def rows(self, size: int) -> Batch:
    """The first `size` pairs, again from the first where they are fewer."""
    index = np.arange(size) % len(self.batch.x)
    return Batch(self.batch.x[index], self.batch.y[index])


class _FixedLength(AutoregressiveTransformer):
  """EOS is what comes at the last position, and nowhere before."""

  target_length: int = 0

  def step(self, tokens, t, *args):
    logits, cache = super().step(tokens, t, *args)
    # No larger: scores are added to it, and should not be lost in rounding.
    end = jnp.where(t == self.target_length - 1, 1e3, -1e3)
    return logits.at[..., EOS].set(end), cache


class _FixedLengthLatent(LatentTransformer):
  """Every target is predicted to be of the same length."""

  target_length: int = 0

  def best_lengths(self, source, count):
    length, log_prob = super().best_lengths(source, count)
    return jnp.full_like(length, self.positions), log_prob

  @property
  def positions(self) -> int:
    """The length that the model can have."""
    return round_up(self.target_length, self.length_multiple)


def random_subject(
  config: ExperimentConfig, pairs: int, source_length: int, target_length: int
) -> Subject:
  """Random weights and sentences; both sides end in EOS."""
  model = models.build(config.model)
  init = jax.jit(lambda: init_state(model, config.train).params)
  rng = np.random.default_rng(config.train.seed)

  def tokens(length):
    vocab = config.model.transformer.vocab_size
    sentences = rng.integers(EOS + 2, vocab, (pairs, length), np.int32)
    sentences[:, -1] = EOS
    return sentences

  batch = Batch(tokens(source_length), tokens(target_length))

  def make_params():
    return models.for_inference(model, init())

  return Subject(config, make_params, batch, "random", {}, target_length)


# Timing.


@dataclasses.dataclass(frozen=True)
class Times:
  """Seconds of the first call, which compiles, and of the ones after it."""

  first: float
  seconds: list[float]

  @property
  def median(self) -> float:
    """Of the calls after the first."""
    return statistics.median(self.seconds)

  @property
  def compiling(self) -> float:
    """Seconds that the first call took longer: to compile or load programs."""
    return max(self.first - self.median, 0.0)

  def rates(self, amount: float) -> dict[str, float]:
    """Amounts a second: the median and the range."""
    rates = [amount / seconds for seconds in self.seconds]
    return {
      "value": statistics.median(rates),
      "lowest": min(rates),
      "highest": max(rates),
    }


def timed(call: Callable[[], object], repeats: int, desc: str) -> Times:
  """Times a call; what it returns is waited for."""

  def seconds() -> float:
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start

  first = seconds()
  bar = progress(range(repeats), desc=desc)
  return Times(first, [seconds() for _ in bar])


def peak_bytes() -> int:
  """The most memory that this process has had until now: the device's.

  On a CPU the process's own.
  """
  statistics_ = jax.devices()[0].memory_stats()
  if statistics_ and "peak_bytes_in_use" in statistics_:
    return statistics_["peak_bytes_in_use"]
  try:
    # What getrusage says includes the process that started this one.
    lines = Path("/proc/self/status").read_text().splitlines()
    (peak,) = (line.split()[1] for line in lines if line.startswith("VmHWM"))
    return int(peak) * 1024
  except (OSError, ValueError):
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


# Decoding.


def decoding(
  subject: Subject, method: decode.Method, size: int, batches: int, repeats: int
) -> dict:
  """Sentences per second, in batches of `size`.

  Raises:
    RuntimeError: if a model of fixed length did not decode as many steps.
  """
  x = subject.rows(size * batches).x.reshape(batches, size, -1)
  translate = functools.partial(
    decode.translate, subject.decoder, subject.params
  )
  score = subject.scores.get(method)

  def all_batches():
    return [translate(part, method, score) for part in x]

  times = timed(all_batches, repeats, f"{method} x {size}")
  found = jax.device_get(translate(x[0], method, score))
  return {
    "metric": "sentences_per_second",
    **times.rates(size * batches),
    "seconds": times.median / batches,
    "split": subject.source,
    "method": str(method),
    "layers": subject.layers,
    "batch_size": size,
    "source_length": x.shape[-1],
    **_decoded(subject, method, x[0], found),
    # Loading, where the compilation cache is on and has the program.
    "compile_seconds": times.compiling,
    "peak_bytes": peak_bytes(),
    "device": hardware.device_description(),
  }


def _decoded(subject, method, x, found) -> dict:
  """How long the translations are; of fixed ones also steps and products."""
  lengths = np.sum(found.tokens != PAD, axis=-1)  # [B, N]
  if subject.length is None:
    return {"target_length": float(np.mean(lengths[:, 0]))}
  if isinstance(method, Delta):
    steps, expected = _refinements(subject, method, x), method.steps
    positions = subject.decoder.positions
  else:
    # Where all is banned but EOS, all hypotheses end, and so does the search.
    shortest, steps = int(np.min(lengths)), int(np.max(lengths))
    positions, expected = steps, subject.length if shortest == steps else None
  if steps != expected:
    raise RuntimeError(f"{method}: {steps} steps instead of {expected}.")
  work = decoding_work(subject, method, x)
  return {
    "target_length": positions,
    "steps": steps,
    **(dataclasses.asdict(work) if work else {}),
  }


def _refinements(subject: Subject, method: Delta, x: np.ndarray) -> int:
  """How many refinements are made before none changes a batch any more."""
  before = None
  for steps in range(method.steps):
    fewer = dataclasses.replace(method, steps=steps)
    score = subject.scores.get(method)
    found = decode.translate(subject.decoder, subject.params, x, fewer, score)
    if before is not None and np.array_equal(found.tokens, before):
      return steps
    before = found.tokens
  return method.steps


def decoding_work(
  subject: Subject, method: decode.Method, x: np.ndarray
) -> floors.Work | None:
  """Matrix products of decoding int32[B, S]; None for several candidates."""
  if not isinstance(method, Delta):
    return floors.count(
      lambda params: (
        decode.translate(subject.decoder, params, x, method).tokens
      ),
      subject.params,
      trips=subject.length,
    )
  if method.candidates > 1 or method.temperature:
    return None
  return floors.count(
    lambda params: _delta(subject.decoder, method.steps, params, x),
    subject.params,
  )


def _delta(model, steps: int, params: Params, x: np.ndarray):
  """What `Delta` has to compute, with no position more than there are."""
  apply = functools.partial(model.apply, {"params": params})
  source = apply(x, method="encode")
  length, _ = apply(source, 1, method="best_lengths")
  mask = jnp.ones((len(x), model.positions), bool)

  def read(z):
    return jnp.argmax(apply(z, mask, source, method="decode"), axis=-1)

  def refine(y, _):
    mean, _ = apply(y, mask, source, method="posterior")
    return read(mean), None

  y = read(apply(mask, source, method="center"))
  return length, lax.scan(refine, y, None, length=steps)[0]


# Training.


def training(subject: Subject, batch_tokens: int, repeats: int) -> dict:
  """Target tokens per second, in batches of about `batch_tokens` of them."""
  length, mesh = subject.batch.y.shape[1], sharding.mesh()
  rows = max(batch_tokens // length // mesh.size, 1) * mesh.size
  batch = subject.rows(rows)
  batch_ = sharding.put(batch, mesh)
  programs = Programs(subject.model, subject.config, mesh)
  init = jax.jit(
    lambda: init_state(subject.model, subject.config.train),
    out_shardings=sharding.replicated(mesh),
  )
  state = jax.block_until_ready(init())
  programs.compile(state, [(len(batch.x), batch.x.shape[1], length)])

  def step():
    nonlocal state
    state, metrics = programs(state, batch_)
    return state, metrics

  times = timed(step, repeats, f"training x {len(batch.x)}")
  tokens = int(np.sum(batch.y != PAD))
  return {
    "metric": "target_tokens_per_second",
    **times.rates(tokens),
    "seconds": times.median,
    "split": subject.source,
    "batch_size": len(batch.x),
    "source_length": batch.x.shape[1],
    "target_length": length,
    "target_tokens": tokens,
    **dataclasses.asdict(training_work(subject, state.params, batch)),
    "compile_seconds": programs.seconds,
    "peak_bytes": peak_bytes(),
    "device": hardware.device_description(),
  }


def training_work(
  subject: Subject, params: Params, batch: Batch
) -> floors.Work:
  """Thrice the matrix products of a forward pass.

  Each product has two in the backward pass, for the gradients of its operands.
  What is computed again to save memory is not counted.
  """
  key = jax.random.key(0)

  def of_loss(params):
    terms = subject.model.apply({"params": params}, batch, key)
    return terms.log_py, terms.kl, terms.kl_standard, terms.log_pl

  forward = floors.count(of_loss, params)
  return forward + forward + forward


# Likelihood.


def scoring(subject: Subject, samples: int, size: int, repeats: int) -> dict:
  """Seconds per sentence of log p(y|x), `size` sentences at once."""
  batch, key, params = subject.rows(size), jax.random.key(0), subject.params

  def score(params):
    return likelihood.log_likelihood(
      subject.model, params, batch, key, samples=samples
    )

  latent = isinstance(subject.config.model, LatentConfig)
  times = timed(lambda: score(params), repeats, f"likelihood x {size}")
  seconds = [t / size for t in times.seconds]
  return {
    "metric": "likelihood_seconds_per_sentence",
    "value": times.median / size,
    "lowest": min(seconds),
    "highest": max(seconds),
    "seconds": times.median,
    "split": subject.source,
    "K": samples if latent else "",
    "layers": subject.layers,
    "batch_size": size,
    "source_length": batch.x.shape[1],
    "target_length": batch.y.shape[1],
    **dataclasses.asdict(floors.count(score, params)),
    "compile_seconds": times.compiling,
    "peak_bytes": peak_bytes(),
    "device": hardware.device_description(),
  }
