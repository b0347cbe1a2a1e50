"""Target tokens per second of training."""

import dataclasses

import jax
import numpy as np

from latentnmt import sharding
from latentnmt.experiments.benchmark.roofline import Work, count
from latentnmt.experiments.benchmark.workloads.subjects import Subject
from latentnmt.experiments.benchmark.workloads.timing import Times, timed
from latentnmt.train import Programs, init_state
from latentnmt.types import PAD, Batch, Params


def measure(subject: Subject, batch_tokens: int, repeats: int) -> dict:
  """Trains on batches of about `batch_tokens` target tokens."""
  length, mesh = subject.batch.y.shape[1], sharding.mesh()
  rows = max(batch_tokens // length // mesh.size, 1) * mesh.size
  batch = subject.rows(rows)
  on_devices = sharding.put(batch, mesh)
  programs = Programs(subject.model, subject.config, mesh)
  init = jax.jit(
    lambda: init_state(subject.model, subject.config.train),
    out_shardings=sharding.replicated(mesh),
  )
  state = jax.block_until_ready(init())
  programs.compile(state, [((rows, batch.x.shape[1], length),)])

  def step():
    nonlocal state
    state, metrics = programs(state, (on_devices,))
    return state, metrics

  times = timed(step, repeats, f"training x {rows}")
  counted = dataclasses.asdict(work(subject, state.params, batch))
  return row(times, batch) | counted | {"compile_seconds": programs.seconds}


def row(times: Times, batch: Batch) -> dict:
  """Returns what there is to say of any system's training."""
  tokens = int(np.sum(batch.y != PAD))
  return {
    "metric": "target_tokens_per_second",
    **times.figures(lambda seconds: tokens / seconds),
    "batch_size": len(batch.x),
    "source_length": batch.x.shape[1],
    "target_length": batch.y.shape[1],
    "target_tokens": tokens,
  }


def work(subject: Subject, params: Params, batch: Batch) -> Work:
  """Counts thrice the matrix products of a forward pass.

  Each product has two in the backward pass, for the gradients of its operands.
  What is computed again to save memory is not counted.
  """
  key = jax.random.key(0)

  def of_loss(params):
    terms = subject.model.apply({"params": params}, batch, key)
    return terms.log_py, terms.kl, terms.kl_standard, terms.log_pl

  forward = count(of_loss, params)
  return forward + forward + forward
