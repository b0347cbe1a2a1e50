"""The embedding: tokens to rows of a table, states to log-probabilities.

Source, target and softmax share the table.
"""

import functools

from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from latentnmt import config as cfg
from latentnmt import inference, matmul
from latentnmt.types import PAD, Array, Tokens

# Rows of the table whose logits are computed at a time: [B, T, V] of them would
# not stay in a CPU's cache, and of a GPU's memory they would take the most.
VOCAB_CHUNK = 4096
_FEW_LOGITS = 2**22  # so few are computed all at once


class Embedding(nn.Module):
  """The one table behind source, target and softmax."""

  config: cfg.TransformerConfig

  def setup(self):
    c = self.config
    self.table = self.param(
      "table", nn.initializers.normal(c.width**-0.5), (c.vocab_size, c.width)
    )

  def __call__(self, tokens: Tokens) -> Array:
    """Returns rows scaled by sqrt(D), float[B, T, D]; padding is zero."""
    # The table starts small, for the softmax; signals of positions are large.
    rows = self.table[tokens] * np.float32(self.config.width**0.5)
    return jnp.where((tokens != PAD)[..., None], rows, 0).astype(
      self.config.dtype
    )

  def logits(self, states: Array) -> Array:
    """Computes float32[..., V] of float[..., D]."""
    return _logits(*self.operands(states))

  def log_probs(self, states: Array, tokens: Tokens) -> tuple[Array, Array]:
    """Returns the log-probability of each token, and its mean over V tokens.

    Args:
      states: float[B, T, D].
      tokens: int32[B, T].

    Returns:
      float32[B, T] and float32[B, T], in nats per token.
    """
    dtype, operands = self.config.operand_dtype, self.operands(states)
    normaliser = log_normaliser(*operands)  # [B, T]
    # It alone needs all V logits. The token's own logit and the mean are a dot
    # product each, of the very numbers that the normaliser sees: with others,
    # probabilities would not sum to one.
    states, table = (matmul.round_to(array, dtype) for array in operands)
    own = jnp.sum(states * table[tokens], axis=-1)
    mean = jnp.einsum("btd,d->bt", states, jnp.mean(table, axis=0))
    return own - normaliser, mean - normaliser

  def likeliest(self, states: Array) -> tuple[Tokens, Array]:
    """Returns the likeliest token but PAD, and its log-probability.

    Args:
      states: float[B, T, D].

    Returns:
      int32[B, T] and float32[B, T], in nats per token.
    """
    token, logit, normaliser = likeliest(*self.operands(states))
    return token, logit - normaliser

  def operands(self, states: Array) -> tuple[Array, Array]:
    """Returns states and table as products see them."""
    dtype, rounded = self.config.operand_dtype, None
    if dtype != "float32":  # of a finished model, rounded once for all
      rounded = inference.prepared(
        self, "rounded_table", lambda: self.table.astype(dtype)
      )
    table = self.table if rounded is None else rounded
    return states.astype(dtype), table.astype(dtype)


def _logits(states: Array, table: Array) -> Array:
  rows = states.reshape(-1, states.shape[-1])
  logits = matmul.einsum("nd,vd->nv", rows, table)
  return logits.reshape(*states.shape[:-1], -1)


def likeliest(
  states: Array, table: Array, first: int = 0
) -> tuple[Tokens, Array, Array]:
  """Returns the likeliest token but PAD, its logit and the log-normaliser.

  Args:
    states: float[B, T, D].
    table: float[V, D].
    first: rows of the table before this are of no token.

  Returns:
    int32[B, T], float32[B, T] and float32[B, T].
  """
  vocab, positions = len(table), states.shape[0] * states.shape[1]

  def part(rows_tokens):
    rows, tokens = rows_tokens
    logits = part_logits(states, rows, tokens, vocab, first)
    normaliser = nn.logsumexp(logits, axis=-1)
    # PAD is the first of the first part: it counts in the sum, never wins.
    pad = jnp.where(tokens[0] == PAD, -jnp.inf, logits[..., 0])
    allowed = logits.at[..., 0].set(pad) if first == PAD else logits
    best = jnp.max(allowed, axis=-1)
    # Not argmax: two plain reductions are fast on every device, it is not.
    at_best = allowed == best[..., None]
    token = jnp.where(at_best, tokens[None, None], vocab - 1)
    token = jnp.min(token, axis=-1)
    return best, token, normaliser

  best, token, normaliser = lax.map(part, few_parts(table, positions))
  part_of_best = jnp.argmax(best, axis=0)[None]  # of equal numbers the first
  token = jnp.take_along_axis(token, part_of_best, axis=0)[0]
  return token, jnp.max(best, axis=0), nn.logsumexp(normaliser, axis=0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def log_normaliser(
  states: Array, table: Array, first: int = 0, keep: bool = True
) -> Array:
  """Computes log sum over v of exp(states . table[v]), float32[B, T].

  Args:
    states: float[B, T, D].
    table: float[V, D].
    first: rows of the table before this are of no token.
    keep: whether to keep the logits for the gradient, one float32[B, T, V];
      if not, each part of them is computed a second time.
  """
  # A part of the vocabulary at a time. Autodiff would keep several arrays of
  # the size of all logits; the gradient below keeps one, or none.
  each = lax.map(
    lambda part: nn.logsumexp(
      part_logits(states, *part, len(table), first), axis=-1
    ),
    parts(table),
  )
  return nn.logsumexp(each, axis=0)


def few_parts(table: Array, positions: int) -> tuple[Array, Array]:
  """Cuts a table as `parts` does, into fewer the fewer positions there are."""
  return parts(table, max(VOCAB_CHUNK, _FEW_LOGITS // positions))


def parts(table: Array, most: int | None = None) -> tuple[Array, Array]:
  """Cuts a table into float[n, V/n, D] of tokens int32[n, V/n], -1 for none."""
  vocab, width = table.shape
  count = -(-vocab // (most or VOCAB_CHUNK))
  size = -(-vocab // count)  # parts of equal size, for one compiled loop
  rows = jnp.pad(table, ((0, count * size - vocab), (0, 0)))
  tokens = np.arange(count * size, dtype=np.int32)
  tokens = np.where(tokens < vocab, tokens, -1).reshape(count, size)
  return rows.reshape(count, size, width), tokens


def part_logits(
  states: Array, rows: Array, tokens: Array, vocab: int, first: int = 0
) -> Array:
  """Computes float32[..., V/n], minus infinity where there is no token."""
  logits = _logits(states, rows)
  if first == 0 and vocab % len(tokens) == 0:  # every part is full
    return logits
  real = (tokens >= first)[(None,) * (logits.ndim - 1)]
  return jnp.where(real, logits, -jnp.inf)


def _log_normaliser_forward(states, table, first, keep):
  def part(rows_tokens):
    logits = part_logits(states, *rows_tokens, len(table), first)  # [B, T, V/n]
    return logits if keep else None, nn.logsumexp(logits, axis=-1)

  logits, each = lax.map(part, parts(table))
  normaliser = nn.logsumexp(each, axis=0)
  return normaliser, (states, table, logits, normaliser)


def _log_normaliser_backward(first, keep, residuals, gradient):
  states, table, logits, normaliser = residuals

  def part(d_states, rows_tokens_logits):
    rows, tokens, logits = rows_tokens_logits
    if not keep:
      logits = part_logits(states, rows, tokens, len(table), first)
    # The gradient of a normaliser: the probabilities, here of a part.
    probs = jnp.exp(logits - normaliser[..., None]) * gradient[..., None]
    probs = probs.astype(states.dtype)  # what products of this model take
    d_states += matmul.einsum("btv,vd->btd", probs, rows)
    d_rows = matmul.einsum("btv,btd->vd", probs, states)
    return d_states, d_rows.astype(rows.dtype)

  zeros = jnp.zeros(states.shape, jnp.float32)
  d_states, d_rows = lax.scan(part, zeros, (*parts(table), logits))
  d_table = d_rows.reshape(-1, table.shape[1])[: len(table)]  # no padding
  return d_states.astype(states.dtype), d_table


log_normaliser.defvjp(_log_normaliser_forward, _log_normaliser_backward)
