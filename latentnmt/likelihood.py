"""log p(y|x): exact where a model allows, by importance weights elsewhere.

K samples z_k of the posterior q(z|x, y) give each sentence three numbers a
sample, log p(y|z_k, x), log p(z_k|x) and log q(z_k|x, y), and those give every
estimator. With l = log p(y|z, x), u = log p(z|x) - log q(z|x, y):

  iwae             log 1/K sum_k exp(l_k + u_k)   (Burda et al. 2016)
  elbo             1/K sum_k (l_k + u_k)
  reconstruction   1/K sum_k l_k
  lee2020          L log [sum_k exp((l_k + u_k)/L) / sum_k exp(u_k/L)]

In expectation `elbo` <= `iwae` <= log p(y|x), and `iwae` closes the gap as K
grows. `reconstruction` and `lee2020` are not likelihoods: they leave out what
it costs to name z, about KL(q || p) nats.
"""

from collections.abc import Callable, Iterable, Sequence
import functools

import jax
from jax.nn import logsumexp
import jax.numpy as jnp
import numpy as np

from latentnmt import data, decode, sharding
from latentnmt.config import AutoregressiveConfig
from latentnmt.distributions import normal_log_prob
from latentnmt.keys import fold_in_each, row_keys
from latentnmt.masks import lengths, masked_sum, real_mask
from latentnmt.text import Tokenizer
from latentnmt.types import (
  Array,
  Batch,
  Estimate,
  InputError,
  Key,
  Nats,
  Params,
)

# What the activations of one chunk of samples may take, in bytes. It bounds
# memory, not speed: a device is busy well before it is full.
CHUNK_BYTES = 2**29

_SHAPES = 4  # of batches of lines, at most


def iwae(log_py: Array, log_pz: Array, log_qz: Array) -> Nats:
  """Importance-weighted bound on log p(y|x, T) (Burda et al. 2016).

  Args:
    log_py: float32[K, B], log p(y|z, x) at K samples of the posterior.
    log_pz: float32[K, B], log p(z|x) at the same samples.
    log_qz: float32[K, B], log q(z|x, y) at the same samples.

  Returns:
    float32[B] nats. The mean of the weights is an unbiased estimate of the
    likelihood, so its logarithm is a lower bound in expectation; exact for
    any K where q is the true posterior.
  """
  log_weights = log_py + log_pz - log_qz
  return logsumexp(log_weights, axis=0) - jnp.log(float(len(log_weights)))


def elbo(log_py: Array, log_pz: Array, log_qz: Array) -> Nats:
  """Evidence lower bound, float32[B] nats; arguments as for `iwae`."""
  return jnp.mean(log_py + log_pz - log_qz, axis=0)


def reconstruction(log_py: Array, log_pz: Array, log_qz: Array) -> Nats:
  """Mean of log p(y|z, x), float32[B] nats; arguments as for `iwae`.

  Not a likelihood: the latents are given away for nothing.
  """
  del log_pz, log_qz
  return jnp.mean(log_py, axis=0)


def lee2020(
  log_py: Array, log_pz: Array, log_qz: Array, num_positions: Array
) -> Nats:
  """What the public code of Lee et al. (2020) reports. Not a likelihood.

  Log-weights are divided by the length L, self-normalised, and average
  p(y|z, x)^(1/L). As K grows, the value tends to

    log p(y|x) + D(q || p(z|x)) - D(q || p(z|x, y)),

  D the Renyi divergence of order 1 - 1/L: an overstatement by about the KL
  term. At K = 1 it is `reconstruction`.

  Args:
    log_py: float32[K, B], as for `iwae`.
    log_pz: float32[K, B].
    log_qz: float32[K, B].
    num_positions: float32[B], L: positions scored, appended EOS included.

  Returns:
    float32[B], the figure per position times `num_positions`. The published
    kind of figure is the mean over sentences of this / num_positions.
  """
  length = jnp.maximum(num_positions, 1.0)[None, :]
  log_weights = (log_pz - log_qz) / length
  per_position = logsumexp(log_py / length + log_weights, axis=0) - logsumexp(
    log_weights, axis=0
  )
  return per_position * num_positions


def effective_sample_size(log_py: Array, log_pz: Array, log_qz: Array) -> Array:
  """(sum w)^2 / sum w^2 of the weights of `iwae`: float32[B], 1 to K.

  Near K the estimate is tight; near 1 a single sample decides it, the bound
  is loose and its standard error is too small to be believed.
  """
  weights = jax.nn.softmax(log_py + log_pz - log_qz, axis=0)
  size = 1.0 / jnp.sum(weights**2, axis=0)
  return jnp.clip(size, 1.0, float(len(weights)))


def standard_error(log_py: Array, log_pz: Array, log_qz: Array) -> Nats:
  """Standard error of `iwae` by the delta method: float32[B] nats.

  sqrt(sum_k (w_k - mean w)^2) / (K mean w), the sampling noise of log mean w.
  It is 0 at K = 1, which tells nothing of the noise.
  """
  weights = jax.nn.softmax(log_py + log_pz - log_qz, axis=0)
  return jnp.sqrt(jnp.sum((weights - 1.0 / len(weights)) ** 2, axis=0))


def log_likelihood(
  model,
  params,
  batch: Batch,
  key: Key,
  samples: int = 1000,
  chunk: int | None = None,
) -> Estimate:
  """Log-likelihood of each sentence, with what is needed to judge it.

  For an autoregressive model one teacher-forced pass is exact. Nothing is
  sampled: `elbo`, `reconstruction` and `lee2020` equal `log_likelihood`, `kl`,
  `standard_error` and `log_pl` are 0, and `ess` is `samples`, for all weights
  would be equal.

  For a latent model `log_likelihood` is `iwae` for a given length; add
  `log_pl` to pay for the length.

  Args:
    model: an `AutoregressiveTransformer`, a `LatentTransformer` or a module
      with the latter's methods.
    params: its parameters.
    batch: sentences; a row that is all padding gets 0 everywhere.
    key: one key, of which sentence b gets fold_in(key, b), or typed keys [B],
      one for each sentence. Sample k of a sentence takes its noise from
      fold_in(its key, k), whatever the batch, the chunk or the devices.
    samples: K.
    chunk: samples computed at a time; by default what fits `CHUNK_BYTES`.

  Returns:
    An `Estimate` of float32[B].

  Raises:
    InputError: for a key that is not of `jax.random.key`, or keys that are
      not one or B; for `samples` or `chunk` below 1.
  """
  rows = len(batch.y)
  keys = row_keys(key, rows)
  if samples < 1 or (chunk is not None and chunk < 1):
    raise InputError(f"samples={samples}, chunk={chunk} should be 1 or more.")
  if isinstance(model.config, AutoregressiveConfig):
    return _exact(model, params, batch, samples)
  if chunk is None:
    chunk = default_chunk(model.config, *batch.y.shape, samples)
  return _estimate(model, params, batch, keys, samples, min(chunk, samples))


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
  """`log_likelihood` of n pairs of lines, in the given order.

  Sentence i takes its noise from fold_in(key, i). The rows of a batch are
  split over this process's devices.

  Args:
    model: either family.
    params: its parameters.
    tokenizer: of the run.
    sources: n lines.
    targets: n lines.
    key: one key.
    samples: K.
    chunk: see `log_likelihood`.
    batch_tokens: rows times the longer side's length of a batch.
    progress: wraps the list of batches, as tqdm does.
    truncate: score what is left of lines that are longer than the model
      takes, rather than refuse them.

  Returns:
    An `Estimate` of numpy float32[n].

  Raises:
    InputError: for a line longer than the model takes, no lines, or another
      number of targets than of sources.
  """
  if not sources or len(sources) != len(targets):
    raise InputError(
      f"{len(sources)} sources and {len(targets)} targets to score."
    )
  x, y = (
    decode.encode_lines(model, tokenizer, lines, truncate, side)
    for lines, side in ((sources, "source"), (targets, "target"))
  )
  mesh = sharding.mesh(jax.local_devices())
  params = jax.device_put(params, sharding.replicated(mesh))
  # Each shape is one more program to compile, and padding costs time K times.
  batches = data.length_batches(
    x, y, batch_tokens=batch_tokens, max_shapes=_SHAPES
  )
  parts = []
  for ids, batch in progress(batches) if progress else batches:
    batch, rows = sharding.put((batch, np.maximum(ids, 0)), mesh)
    keys = fold_in_each(key, rows)
    estimate = log_likelihood(model, params, batch, keys, samples, chunk)
    parts.append((ids, jax.device_get(estimate)))
  order = np.concatenate([ids for ids, _ in parts])
  _, first = np.unique(order, return_index=True)
  first = first[-len(x) :]  # without the empty rows' id, -1
  return jax.tree.map(
    lambda *values: np.concatenate(values)[first], *(e for _, e in parts)
  )


def default_chunk(config, rows: int, length: int, samples: int) -> int:
  """Samples computed at a time such that they fit into `CHUNK_BYTES`.

  A sample's largest arrays, float32 [B, T, V], are the logits and two of the
  softmax; beside them stand some of the decoder's width.

  Args:
    config: `LatentConfig` of the model.
    rows: B.
    length: T.
    samples: K; the chunks are made of nearly equal size.
  """
  sizes = config.transformer
  features = 3 * sizes.vocab_size + 2 * sizes.hidden + 8 * sizes.width
  most = max(1, CHUNK_BYTES // (4 * rows * length * features))
  return -(-samples // -(-samples // most))


@functools.partial(jax.jit, static_argnames=("model", "samples"))
def _exact(model, params, batch: Batch, samples: int) -> Estimate:
  key = jax.random.key(0)  # drawn from by latent models only
  terms = model.apply({"params": params}, batch, key, train=False)
  zero = jnp.zeros_like(terms.log_py)
  return Estimate(
    log_likelihood=terms.log_py,
    elbo=terms.log_py,
    reconstruction=terms.log_py,
    lee2020=terms.log_py,
    kl=zero,
    ess=jnp.where(terms.num_positions > 0, float(samples), 0.0),
    standard_error=zero,
    log_pl=zero,
    num_tokens=terms.num_tokens,
    num_positions=terms.num_positions,
  )


@functools.partial(jax.jit, static_argnames=("model", "samples", "chunk"))
def _estimate(
  model, params, batch: Batch, keys: Key, samples: int, chunk: int
) -> Estimate:
  def call(method, *args):
    return model.apply({"params": params}, *args, method=method)

  source = call("encode", batch.x)
  y, mask = call("targets", batch.y)
  mean, scale = call("posterior", y, mask, source)

  def draw(k):
    z = mean + scale * _noise(keys, k, mean.shape)
    log_py, log_pz = call("log_joint", z, y, mask, source)
    log_qz = masked_sum(normal_log_prob(z, mean, scale), mask)
    return log_py, log_pz, log_qz

  weights = _in_chunks(draw, samples, chunk)
  num_positions = lengths(mask).astype(jnp.float32)
  estimate = Estimate(
    log_likelihood=iwae(*weights),
    elbo=elbo(*weights),
    reconstruction=reconstruction(*weights),
    lee2020=lee2020(*weights, num_positions),
    kl=jnp.mean(weights[2] - weights[1], axis=0),
    ess=effective_sample_size(*weights),
    standard_error=standard_error(*weights),
    log_pl=call("log_prob_length", mask, source),
    num_tokens=lengths(real_mask(y)).astype(jnp.float32),
    num_positions=num_positions,
  )
  return jax.tree.map(lambda v: jnp.where(num_positions > 0, v, 0.0), estimate)


def _in_chunks(draw, samples: int, chunk: int):
  """Arrays [K, B] of draw(k), k < samples, computed `chunk` at a time.

  Three numbers per sentence and sample are so few that all are kept: the
  estimators then see exactly the same arrays whatever the chunk. The last
  chunk is filled up with samples that are thrown away.
  """
  chunks = -(-samples // chunk)
  ks = jnp.arange(chunks * chunk).reshape(chunks, chunk)
  drawn = jax.lax.map(jax.vmap(draw), ks)  # each [chunks, chunk, B]
  return jax.tree.map(lambda v: v.reshape(chunks * chunk, -1)[:samples], drawn)


def _noise(keys, k, shape) -> Array:
  """float32[B, T, C] of N(0, 1), at each position from its own key.

  So a sentence's noise is the same however far its batch pads it.
  """
  _, length, channels = shape
  keys = jax.vmap(jax.random.fold_in, (0, None))(keys, k)
  keys = jax.vmap(fold_in_each, (0, None))(keys, jnp.arange(length))
  draw = functools.partial(jax.random.normal, shape=(channels,))
  return jax.vmap(jax.vmap(draw))(keys)
