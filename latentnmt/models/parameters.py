"""Parameters of models: their start, and what is prepared of finished ones."""

import functools
import math

from flax import linen as nn
import jax
import jax.numpy as jnp

from latentnmt import inference
from latentnmt.types import Batch, Key, Params, Variables


def example_batch() -> Batch:
  """Returns the smallest batch a model can be initialised with: EOS to EOS."""
  return Batch(x=jnp.ones((1, 1), jnp.int32), y=jnp.ones((1, 1), jnp.int32))


def init_params(model: nn.Module, key: Key) -> Params:
  """Draws the parameters that training starts from; to be jitted."""
  return model.init(key, example_batch(), key)["params"]


def abstract_params(model: nn.Module) -> Params:
  """Returns shapes and dtypes of a model's parameters, computing nothing."""
  # Not even the key is made: nothing here touches a device.
  key = jax.eval_shape(lambda: jax.random.key(0))
  return jax.eval_shape(functools.partial(init_params, model), key)


def count_parameters(model: nn.Module) -> int:
  """Returns how many numbers a model has, computing nothing."""
  leaves = jax.tree.leaves(abstract_params(model))
  return sum(math.prod(leaf.shape) for leaf in leaves)


def for_inference(model: nn.Module, params: Params) -> Variables:
  """Prepares what a finished model computes fastest with.

  Layers are unstacked, what products see rounded is rounded, and the matrices
  of a flow's convolutions are inverted, here rather than in every call: see
  `latentnmt.inference`. What a model computes is the same, but for rounding;
  there is more to compile, which pays where single sentences have to be quick.

  Args:
    model: of any family, with parts of one's own or not.
    params: as trained.

  Returns:
    Variables that every function takes in place of `params`, but for training.
  """
  return {"params": params, **_prepare(model, params)}


@functools.partial(jax.jit, static_argnums=0)
def _prepare(model: nn.Module, params: Params) -> Variables:
  # One pass in which that collection alone may be written. Nobody uses what
  # the pass itself returns, so the compiler leaves it out.
  _, written = model.apply(
    {"params": params},
    example_batch(),
    jax.random.key(0),
    mutable=[inference.COLLECTION],
  )
  return written


def initialise_prior(
  model: nn.Module, params: Params, batch: Batch, key: Key
) -> Params:
  """Starts a prior's parameters from data, where they depend on data.

  Runs the prior's `init` on posterior samples of a real batch and puts the
  result in place of the prior's parameters. To be called once, when the
  posterior has learnt something and before the KL term first counts. A pure
  function, to be jitted.

  Args:
    model: any; its parameters stay as they are unless its prior has
      `data_dependent`.
    params: its parameters.
    batch: B real sentences, the more the better.
    key: of the samples, and of what is random in the prior's start.

  Returns:
    `params` with `params["prior"]` replaced.
  """
  if not starts_from_data(model):
    return params
  prior = model.prior
  key_noise, key_init = jax.random.split(key)
  bound = model.bind({"params": params})
  source = bound.encode(batch.x)
  y, mask = bound.targets(batch.y)
  mean, scale = bound.posterior(y, mask, source)
  z = mean + scale * jax.random.normal(key_noise, mean.shape)
  mask = bound.latent_mask(mask, source)
  # `init` through `log_prob` is where a bijection such as ActNorm looks at what
  # passes through it.
  own = prior.init(key_init, z, mask, source, method="log_prob")
  return {**params, "prior": own["params"]}


def starts_from_data(model: nn.Module) -> bool:
  """Returns whether `initialise_prior` does anything to a model."""
  prior = getattr(model, "prior", None)
  return getattr(prior, "data_dependent", False)
