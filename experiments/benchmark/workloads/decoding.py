"""Sentences per second of a decoding method."""

import dataclasses
import functools

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from latentnmt import decode
from latentnmt.decode import Delta
from latentnmt.experiments.benchmark.roofline import Work, count
from latentnmt.experiments.benchmark.workloads.subjects import Subject
from latentnmt.experiments.benchmark.workloads.timing import Times, timed
from latentnmt.inference import variables
from latentnmt.types import PAD, Params, Variables


def measure(
  subject: Subject, method: decode.Method, x: np.ndarray, repeats: int
) -> dict:
  """Decodes the batches int32[batches, B, S].

  Raises:
    RuntimeError: if a model of fixed length did not decode as many steps.
  """
  score = subject.scores.get(method)

  def translate(batch):
    model, params = subject.decoder, subject.params
    return decode.translate(model, params, batch, method, score)

  desc = f"{method} x {x.shape[1]}"
  times = timed(lambda: [translate(batch) for batch in x], repeats, desc)
  return {
    **row(times, method, x),
    "layers": subject.layers,
    **_decoded(subject, method, x[0], jax.device_get(translate(x[0]))),
    # Loading, where the compilation cache is on and has the program.
    "compile_seconds": times.compiling,
  }


def row(times: Times, method: decode.Method, x: np.ndarray) -> dict:
  """Returns what there is to say of any system's decoding."""
  batches, size, length = x.shape
  return {
    "metric": "sentences_per_second",
    **times.figures(lambda seconds: size * batches / seconds),
    "seconds": times.median / batches,
    "method": str(method),
    "batch_size": size,
    "source_length": length,
  }


def _decoded(subject, method, x, found) -> dict:
  """Says how long translations are; of fixed ones also steps and products."""
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
  counted = work(subject, method, x)
  return {
    "target_length": positions,
    "steps": steps,
    **(dataclasses.asdict(counted) if counted else {}),
  }


def _refinements(subject: Subject, method: Delta, x: np.ndarray) -> int:
  """Counts the refinements until none changes a batch any more."""
  before, score = None, subject.scores.get(method)
  for steps in range(method.steps):
    fewer = dataclasses.replace(method, steps=steps)
    found = decode.translate(subject.decoder, subject.params, x, fewer, score)
    if before is not None and np.array_equal(found.tokens, before):
      return steps
    before = found.tokens
  return method.steps


def work(subject: Subject, method: decode.Method, x: np.ndarray) -> Work | None:
  """Counts the products of decoding int32[B, S]; None for many candidates."""
  model = subject.decoder
  if not isinstance(method, Delta):
    return count(
      lambda params: decode.translate(model, params, x, method).tokens,
      subject.params,
      trips=subject.length,
    )
  if method.candidates > 1 or method.temperature:
    return None
  return count(
    functools.partial(_delta, model, method.steps, x), subject.params
  )


def _delta(model, steps: int, x: np.ndarray, params: Params | Variables):
  """Computes what `Delta` has to, with no position more than there are."""
  bind = functools.partial(model.bind, variables(params))
  source = bind().encode(x)
  length, _ = bind().best_lengths(source, 1)
  mask = jnp.ones((len(x), model.positions), bool)

  def read(z):
    return jnp.argmax(bind().decode(z, mask, source), axis=-1)

  def refine(y, _):
    mean, _ = bind().posterior(y, mask, source)
    return read(mean), None

  y = read(bind().center(mask, source))
  return length, lax.scan(refine, y, None, length=steps)[0]
