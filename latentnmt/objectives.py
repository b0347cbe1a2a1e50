"""The loss of training: the negative evidence lower bound of a batch.

  loss = (sum_b -log_py + beta max(sum_b kl, free_nats sum_b num_positions)
          + alpha sum_b kl_standard) / sum_b num_positions + mean_b (-log_pl)

`log_py` carries label smoothing here and only here: a share `eps` of it is
`log_py_uniform`, the cross-entropy with the uniform distribution. Rows of
padding have zero nats, zero positions and are no sentence.
"""

from collections.abc import Mapping, Sequence

import jax.numpy as jnp

from latentnmt.types import Array, Terms

_NATS = ("log_py", "kl", "kl_standard", "log_pl")


def negative_elbo(
  terms: Terms,
  *,
  beta: Array | float = 1.0,
  alpha: float = 0.0,
  free_nats: float = 0.0,
  label_smoothing: float = 0.0,
  alpha_mix: bool = False,
) -> tuple[Array, dict[str, Array]]:
  """Returns the loss of a batch, in nats per position, and its sums.

  Args:
    terms: of B sentences.
    beta: weight of the KL term.
    alpha: weight of KL(q || N(0, I)).
    free_nats: nats of KL a position that cost nothing (Kingma et al. 2016),
      on average over the batch: one sample of a KL is too noisy to clip.
    label_smoothing: share of the uniform distribution in the target.
    alpha_mix: the public code's regulariser, which follows beta and takes
      its share from the KL: beta ((1 - alpha) kl + alpha kl_standard).

  Returns:
    The scalar loss, and `totals(terms)` with the loss added.
  """
  sums = totals(terms)
  uniform = jnp.sum(terms.log_py_uniform)
  log_py = sums["log_py"] + label_smoothing * (uniform - sums["log_py"])
  # Without a budget a single sample's negative KL counts as it is.
  budget = free_nats * sums["num_positions"] if free_nats else -jnp.inf
  paid = jnp.maximum(sums["kl"], budget)
  if alpha_mix:  # as in the public code; else as in the paper
    kl = beta * (paid + alpha * (sums["kl_standard"] - paid))
  else:
    kl = beta * paid + alpha * sums["kl_standard"]
  # A batch of nothing but padding costs nothing, rather than 0 / 0.
  per_position = (kl - log_py) / jnp.maximum(sums["num_positions"], 1)
  loss = per_position - sums["log_pl"] / jnp.maximum(sums["num_sentences"], 1)
  return loss, {"loss": loss, **sums}


def totals(terms: Terms) -> dict[str, Array]:
  """Sums over the batch: nats by name, tokens, positions, rows, escapes."""
  # Sums add up over batches of any size, which means do not;
  # `metrics.terms_per_token` divides once, at the end.
  sums = {name: jnp.sum(getattr(terms, name)) for name in _NATS}
  sums["num_tokens"] = jnp.sum(terms.num_tokens)
  sums["num_positions"] = jnp.sum(terms.num_positions)
  sums["escaped"] = jnp.sum(terms.escaped)
  # A row of padding is no sentence.
  sums["num_sentences"] = jnp.sum(terms.num_positions > 0, dtype=jnp.float32)
  return sums


def add(rows: Sequence[Mapping[str, Array]]) -> dict[str, float]:
  """Adds up rows of scalars by name, in double precision."""
  return {name: sum(float(row[name]) for row in rows) for name in rows[0]}
