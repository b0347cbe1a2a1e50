"""The bound that a latent model's own density puts on given translations."""

import functools

from flax import linen as nn
from flax import struct
import jax

from latentnmt import distributions
from latentnmt.errors import InputError
from latentnmt.inference import variables
from latentnmt.masks import masked_sum
from latentnmt.types import Array, Params, Source, Tokens


@struct.dataclass
class Bound:
  """log p(y, m|x) and what is taken from it, at m = E q(z|x, y), in nats.

  y is the translation as it stands: cut after its first EOS, of T positions
  with that EOS and those that the model's length multiple appends.

  Attributes:
    log_py: float32[B, N], log p(y|m, x).
    log_pz: float32[B, N], log p(m|x).
    log_qz: float32[B, N], log q(m|x, y).
    log_pl: float32[B, N], log p(T|x).
  """

  log_py: Array
  log_pz: Array
  log_qz: Array
  log_pl: Array

  @property
  def value(self) -> Array:
    """float32[B, N]: log p(y|m, x) + log p(m|x) - log q(m|x, y) + log p(T|x).

    The log of one importance weight, comparable across lengths.
    """
    return self.log_py + self.log_pz - self.log_qz + self.log_pl

  @property
  def eq3(self) -> Array:
    """float32[B, N]: log p(y|m, x) + log p(m|x), Eq. 3 of the paper.

    A density over T C dimensions: compare it between translations of the same
    model and about the same lengths only.
    """
    return self.log_py + self.log_pz


@functools.partial(jax.jit, static_argnums=0)
def own_bound(
  model: nn.Module, params: Params, x: Tokens, tokens: Array
) -> Bound:
  """Returns the model's own `Bound` of given translations.

  Args:
    model: with latents.
    params: its parameters.
    x: int32[B, S].
    tokens: int32[B, N, T], each ending in EOS; rows of padding have 0 nats.

  Raises:
    InputError: for a model without latents.
  """
  if model.exact:
    raise InputError(f"{type(model).__name__} has no latents to bound it by.")
  source = model.apply(variables(params), x, method="precompute")
  return bound_given(model, params, source, tokens)


@functools.partial(jax.jit, static_argnums=0)
def bound_given(
  model: nn.Module, params: Params, source: Source, tokens: Array
) -> Bound:
  """Computes `own_bound` of a source that is encoded already."""
  apply = functools.partial(model.apply, variables(params))

  def bound(y: Tokens) -> Bound:
    y, mask = apply(y, method="targets")
    # At the mean rather than at a sample: a rank should not be drawn by lot.
    mean, scale = apply(y, mask, source, method="posterior")
    log_py, log_pz = apply(mean, y, mask, source, method="log_joint")
    log_qz = distributions.normal_log_prob(mean, mean, scale)
    log_pl = apply(mask, source, method="log_prob_length")
    grid = apply(mask, source, method="latent_mask")
    return Bound(log_py, log_pz, masked_sum(log_qz, grid), log_pl)

  return jax.vmap(bound, in_axes=1, out_axes=1)(tokens)
