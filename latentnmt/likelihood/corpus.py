"""Log-likelihood of lines of text, by either estimator."""

from collections.abc import Callable, Iterable, Sequence
import functools

import jax
import numpy as np

from latentnmt import data, decode, sharding
from latentnmt.errors import InputError
from latentnmt.keys import fold_in_each
from latentnmt.likelihood.annealing import annealed
from latentnmt.likelihood.importance import log_likelihood
from latentnmt.text import Tokenizer
from latentnmt.types import AnnealedEstimate, Estimate, Key, Params

# So many samples of a sentence cost about what its translation costs.
_SAMPLES_A_TRANSLATION = 50


def log_likelihood_lines(
  model,
  params: Params,
  tokenizer: Tokenizer,
  sources: Sequence[str],
  targets: Sequence[str],
  key: Key,
  samples: int = 1000,
  chunk: int | None = None,
  *,
  batch_tokens: int = 2048,
  progress: Callable[[Iterable], Iterable] | None = None,
  truncate: bool = False,
) -> Estimate:
  """Scores n pairs of lines by `log_likelihood`, in the given order.

  Sentence i takes its noise from fold_in(key, i). The rows of a batch are
  split over this process's devices.

  Args:
    model: of any family.
    params: its parameters.
    tokenizer: of the run.
    sources: n lines.
    targets: n lines.
    key: one key.
    samples: K.
    chunk: see `log_likelihood`.
    batch_tokens: rows times the longer side's length of a batch.
    progress: wraps the list of batches, as tqdm does.
    truncate: cut lines that are longer than the model takes, rather than
      refuse them.

  Returns:
    An `Estimate` of numpy float32[n].

  Raises:
    InputError: for a line longer than the model takes, no lines, or another
      number of targets than of sources.
  """
  score = functools.partial(log_likelihood, samples=samples, chunk=chunk)
  batches = _batches(
    model, tokenizer, sources, targets, truncate, batch_tokens, samples
  )
  return _score(score, model, params, batches, key, progress)


def annealed_lines(
  model,
  params: Params,
  tokenizer: Tokenizer,
  sources: Sequence[str],
  targets: Sequence[str],
  key: Key,
  temperatures: int = 100,
  chains: int = 16,
  leapfrog: int = 4,
  chunk: int | None = None,
  *,
  batch_tokens: int = 2048,
  progress: Callable[[Iterable], Iterable] | None = None,
  truncate: bool = False,
) -> AnnealedEstimate:
  """Scores n pairs of lines by `annealed`, in the given order.

  Arguments and errors are those of `annealed` and `log_likelihood_lines`.

  Returns:
    An `AnnealedEstimate` of numpy float32[n].
  """
  sizes = dict(temperatures=temperatures, chains=chains, leapfrog=leapfrog)
  score = functools.partial(annealed, **sizes, chunk=chunk)
  gradients = temperatures * chains * leapfrog  # of a sentence
  batches = _batches(
    model, tokenizer, sources, targets, truncate, batch_tokens, gradients
  )
  return _score(score, model, params, batches, key, progress)


def _batches(
  model, tokenizer, sources, targets, truncate, batch_tokens, samples
) -> list:
  """Puts every pair into a batch, in more shapes the more samples there are."""
  if not sources or len(sources) != len(targets):
    raise InputError(
      f"{len(sources)} sources and {len(targets)} targets to score."
    )
  x, y = (
    decode.encode_lines(model, tokenizer, lines, truncate, side)
    for lines, side in ((sources, "source"), (targets, "target"))
  )
  # A shape is one more program to compile, and padding is computed K times.
  shapes = data.few_shapes(len(x) * samples // _SAMPLES_A_TRANSLATION)
  return data.length_batches(x, y, batch_tokens=batch_tokens, max_shapes=shapes)


def _score(score, model, params, batches: list, key, progress):
  """Calls score(model, params, batch, keys) on all batches, on all devices."""
  mesh = sharding.mesh(jax.local_devices())
  params = jax.device_put(params, sharding.replicated(mesh))  # once for all
  parts = []
  for ids, batch in progress(batches) if progress else batches:
    # An empty row, of id -1, takes any key: it scores zero.
    batch, rows = sharding.put((batch, np.maximum(ids, 0)), mesh)
    estimate = score(model, params, batch, fold_in_each(key, rows))
    parts.append((ids, jax.device_get(estimate)))  # waits for the batch
  # Undoes the sorting by length.
  order = np.concatenate([ids for ids, _ in parts])
  number, first = np.unique(order, return_index=True)
  first = first[number >= 0]  # without empty rows, whose id is -1
  return jax.tree.map(
    lambda *values: np.concatenate(values)[first], *(e for _, e in parts)
  )
