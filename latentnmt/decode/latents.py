"""Draws of a sentence's latents, to look at (Figure 1 of the paper)."""

import functools

from flax import linen as nn
from flax import struct
import jax
from jax import lax
import jax.numpy as jnp

from latentnmt.decode.delta import posterior_mean
from latentnmt.errors import InputError
from latentnmt.inference import variables
from latentnmt.masks import round_up
from latentnmt.types import Array, Key, Params, Tokens

# Draws refined at a time: their logits, [draws, T, V], have to fit.
_CHUNK = 50


@struct.dataclass
class LatentDraws:
  """Draws for one sentence pair, of C channels at G positions of latents.

  Attributes:
    prior: float32[n, G, C], of p(z|x).
    posterior: float32[n, G, C], of q(z|x, y).
    delta: float32[n, G, C], where refinement takes each draw of the prior.
  """

  prior: Array
  posterior: Array
  delta: Array


def latent_draws(
  model: nn.Module,
  params: Params,
  x: Tokens,
  y: Tokens,
  key: Key,
  draws: int = 1000,
  steps: int = 1,
) -> LatentDraws:
  """Draws from the prior, the posterior and the delta posterior.

  The last is the prior's draw z after `steps` times y' = argmax p(y|z, x),
  z = E q(z|x, y'), at the length of `y`.

  Args:
    model: with latents.
    params: its parameters.
    x: int32[1, S].
    y: int32[1, T], its reference.
    key: draw i depends on this and on i.
    draws: n.
    steps: refinements; with 0 `delta` is `prior`.

  Raises:
    InputError: for a model without latents, or more than one sentence.
  """
  if model.exact:
    raise InputError(f"{type(model).__name__} has no latents to draw.")
  if len(x) != 1 or len(y) != 1:
    raise InputError(f"{len(x)} sources and {len(y)} targets; give one pair.")
  found = _latent_draws(model, draws, steps, params, x, y, key)
  return jax.tree.map(lambda z: z[:draws], found)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _latent_draws(model, draws, steps, params, x, y, key) -> LatentDraws:
  apply = functools.partial(model.apply, variables(params))
  source = apply(x, method="precompute")
  y, mask = apply(y, method="targets")
  grid = apply(mask, source, method="latent_mask")
  mean, scale = apply(y, mask, source, method="posterior")
  key_prior, key_posterior = jax.random.split(key)

  def refine(_, z):
    tokens, _ = apply(z, mask, source, method="read")
    return posterior_mean(apply, tokens, source)

  def draw(k: Array) -> LatentDraws:
    z = apply(jax.random.fold_in(key_prior, k), mask, source, method="sample")
    noise = jax.random.normal(jax.random.fold_in(key_posterior, k), mean.shape)
    posterior = jnp.where(grid[..., None], mean + scale * noise, 0)
    refined = lax.fori_loop(0, steps, refine, z)
    return LatentDraws(z[0], posterior[0], refined[0])

  # Whole chunks only: a smaller last one would be compiled separately.
  size = min(_CHUNK, draws)
  return lax.map(draw, jnp.arange(round_up(draws, size)), batch_size=size)
