"""Log-likelihood by importance sampling, exact where the model is."""

import functools

import jax
import jax.numpy as jnp

from latentnmt.distributions import normal_log_prob
from latentnmt.embedding import VOCAB_CHUNK
from latentnmt.errors import InputError
from latentnmt.inference import variables
from latentnmt.keys import fold_in_all, normal_each, row_keys
from latentnmt.likelihood import estimators
from latentnmt.masks import lengths, masked_sum, real_mask
from latentnmt.types import Batch, Estimate, Key, Mask

# What the activations of one chunk of samples may take, in bytes. A device is
# busy well before it is full, and caches like small chunks.
CHUNK_BYTES = 2**28


def log_likelihood(
  model,
  params,
  batch: Batch,
  key: Key,
  samples: int = 1000,
  chunk: int | None = None,
) -> Estimate:
  """Estimates log p(y|x) of each sentence, with what is needed to judge it.

  Where the model is exact, one pass is all. Nothing is sampled: `elbo` and each
  number of `sweep` equal `log_likelihood`, `reconstruction` and `lee2020` equal
  `given_length`, `kl` and `standard_error` are 0, and `ess` is `samples`, for
  all weights would be equal.

  Elsewhere `log_likelihood` is `iwae`, with log p(T|x) to pay for the length.

  Args:
    model: with the contract `models.Model`; `models.LatentModel` if not exact.
    params: its parameters, or what `models.for_inference` made of them.
    batch: sentences; a row that is all padding gets 0 everywhere.
    key: one key, of which sentence b gets fold_in(key, b), or typed keys [B],
      one for each sentence. Sample k of a sentence takes its noise from
      fold_in(its key, k), whatever the batch, the chunk or the devices.
    samples: K.
    chunk: samples computed at a time; by default what fits `CHUNK_BYTES`.

  Returns:
    An `Estimate` of B sentences.

  Raises:
    InputError: for a key that is not of `jax.random.key`, or keys that are
      not one or B; for `samples` or `chunk` below 1.
  """
  rows = len(batch.y)
  keys = row_keys(key, rows)
  if samples < 1 or (chunk is not None and chunk < 1):
    raise InputError(f"samples={samples}, chunk={chunk} should be 1 or more.")
  if model.exact:
    return _exact(model, params, batch, samples)
  if chunk is None:
    size = model.decoder_size(batch.x.shape[1], batch.y.shape[1])
    chunk = default_chunk(model.config, rows, size, samples)
  return _estimate(model, params, batch, keys, samples, min(chunk, samples))


def default_chunk(
  config, rows: int, length: int, samples: int, layers: int = 1
) -> int:
  """Returns how many samples at a time fit into `CHUNK_BYTES`.

  A sample's largest arrays are the logits of a part of the vocabulary and two
  of the softmax; beside them stand some of the decoder's width. Where gradients
  are taken all logits are kept, float32[B, T, V].

  Args:
    config: of the model.
    rows: B.
    length: decoder positions, T for a decoder over target positions.
    samples: K; the chunks are made of nearly equal size.
    layers: whose activations are kept at once; many where gradients are taken.
  """
  sizes = config.transformer
  # Numbers that a position of one sample keeps at once, about.
  features = 3 * min(sizes.vocab_size, VOCAB_CHUNK)
  features += sizes.vocab_size if layers > 1 else 0
  features += layers * (2 * sizes.hidden + 8 * sizes.width)
  most = max(1, CHUNK_BYTES // (4 * rows * length * features))
  # Chunks of nearly equal size, as the last one is filled up.
  return -(-samples // -(-samples // most))


@functools.partial(jax.jit, static_argnames=("model", "samples"))
def _exact(model, params, batch: Batch, samples: int) -> Estimate:
  key = jax.random.key(0)  # drawn from by latent models only
  terms = model.apply(variables(params), batch, key, train=False)
  zero = jnp.zeros_like(terms.log_py)
  return Estimate(
    log_likelihood=terms.elbo,
    given_length=terms.given_length,
    elbo=terms.elbo,
    reconstruction=terms.given_length,
    lee2020=terms.given_length,
    sweep=jnp.tile(terms.elbo[:, None], len(estimators.sweep_sizes(samples))),
    kl=zero,
    ess=jnp.where(terms.num_positions > 0, float(samples), 0.0),
    standard_error=zero,
    log_pl=terms.log_pl,
    num_tokens=terms.num_tokens,
    num_positions=terms.num_positions,
    escaped=terms.escaped,
  )


@functools.partial(jax.jit, static_argnames=("model", "samples", "chunk"))
def _estimate(
  model, params, batch: Batch, keys: Key, samples: int, chunk: int
) -> Estimate:
  bind = functools.partial(model.bind, variables(params))
  # Bound anew inside `draw`, which is traced under a map of its own.
  source = bind().precompute(batch.x)
  y, mask = bind().targets(batch.y)
  mean, scale = bind().posterior(y, mask, source)
  grid = bind().latent_mask(mask, source)

  def draw(k):
    noise = normal_each(fold_in_all(keys, k), mean.shape)
    z = mean + scale * noise
    log_py, log_pz = bind().log_joint(z, y, mask, source)
    log_qz = masked_sum(normal_log_prob(z, mean, scale), grid)
    return log_py, log_pz, log_qz

  weights = in_chunks(draw, samples, chunk)
  num_positions = lengths(grid).astype(jnp.float32)
  given_length = estimators.iwae(*weights)
  log_pl = bind().log_prob_length(mask, source)
  estimate = Estimate(
    log_likelihood=given_length + log_pl,
    given_length=given_length,
    elbo=estimators.elbo(*weights) + log_pl,
    reconstruction=estimators.reconstruction(*weights),
    lee2020=estimators.lee2020(*weights, num_positions),
    sweep=estimators.sweep(*weights) + log_pl[:, None],
    kl=jnp.mean(weights[2] - weights[1], axis=0),
    ess=estimators.effective_sample_size(*weights),
    standard_error=estimators.standard_error(*weights),
    log_pl=log_pl,
    num_tokens=lengths(real_mask(y)).astype(jnp.float32),
    num_positions=num_positions,
    escaped=bind().escaped(mean, y, mask, source),
  )
  return zero_empty(estimate, mask)


def zero_empty(estimate, mask: Mask):
  """Returns a struct of float32[B, ...] with zeros for rows of padding."""
  return jax.tree.map(
    lambda v: jnp.where(
      jnp.any(mask, axis=1)[(...,) + (None,) * (v.ndim - 1)], v, 0.0
    ),
    estimate,
  )


def in_chunks(draw, samples: int, chunk: int):
  """Returns arrays [K, B] of draw(k), computed `chunk` at a time.

  Three numbers per sentence and sample are so few that all are kept: the
  estimators then see exactly the same arrays whatever the chunk. The last
  chunk is filled up with samples that are thrown away.
  """
  chunks = -(-samples // chunk)
  ks = jnp.arange(chunks * chunk).reshape(chunks, chunk)
  drawn = jax.lax.map(jax.vmap(draw), ks)  # each [chunks, chunk, B]
  return jax.tree.map(lambda v: v.reshape(chunks * chunk, -1)[:samples], drawn)
