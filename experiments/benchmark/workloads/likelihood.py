"""Seconds per sentence of log p(y|x)."""

import dataclasses

import jax

from latentnmt import likelihood
from latentnmt.experiments.benchmark.roofline import count
from latentnmt.experiments.benchmark.workloads.subjects import Subject
from latentnmt.experiments.benchmark.workloads.timing import timed


def measure(subject: Subject, samples: int, size: int, repeats: int) -> dict:
  """Scores `size` sentences at once, by K samples if the model is not exact."""
  batch, key = subject.rows(size), jax.random.key(0)

  def score(params):
    return likelihood.log_likelihood(
      subject.model, params, batch, key, samples=samples
    )

  params = subject.params
  times = timed(lambda: score(params), repeats, f"likelihood x {size}")
  return {
    "metric": "likelihood_seconds_per_sentence",
    **times.figures(lambda seconds: seconds / size),
    "samples": None if subject.model.exact else samples,
    "layers": subject.layers,
    "batch_size": size,
    "source_length": batch.x.shape[1],
    "target_length": batch.y.shape[1],
    **dataclasses.asdict(count(score, params)),
    "compile_seconds": times.compiling,
  }
