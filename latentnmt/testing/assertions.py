"""Assertions that several checks share."""

from collections.abc import Callable
import math

import jax
import jax.numpy as jnp
import numpy as np

from latentnmt.testing.inputs import perturb
from latentnmt.types import Key, Params


def check_start(
  loss: Callable[[Params], jax.Array], params: Params, key: Key
) -> None:
  """Checks that training can leave the point at which it starts.

  A parameter that starts at zero may keep a gradient from others for a step or
  two. One that has none at the third step, and would have one at parameters
  close by, never gets one. That is asked of each output of each parameter, the
  entries of its last axis; a quarter of them may be silent by chance.

  Args:
    loss: a scalar; it is not to have other random numbers at every call.
    params: as `init` makes them.
    key: of the parameters close by.

  Raises:
    AssertionError: naming the parameter.
  """

  @jax.jit  # one program, called four times
  def step(params):
    gradient = jax.grad(loss)(params)
    finite = jax.tree.map(lambda g: jnp.isfinite(g).all(), gradient)
    alive = jax.tree.map(
      lambda g: jnp.any(g, axis=tuple(range(g.ndim - 1))), gradient
    )
    following = jax.tree.map(lambda p, g: p - 1e-3 * g, params, gradient)
    return following, finite, alive

  _, _, close_by = step(perturb(params, key, 1e-3))
  for _ in range(3):
    params, finite, alive = step(params)
  for (path, own), other, good in zip(
    jax.tree_util.tree_leaves_with_path(alive),
    *map(jax.tree.leaves, (close_by, finite)),
    strict=True,
  ):
    name = jax.tree_util.keystr(path)
    assert good, f"{name}: its gradient is not finite"
    dead = ~np.asarray(own) & np.asarray(other)  # here, but not close by
    assert np.mean(dead) <= 0.25, f"{name} never gets a gradient"


def assert_array(name: str, value, dtype: type, *shape: int) -> None:
  """Asserts what dtype and shape an array has."""
  good = value.shape == shape and jnp.issubdtype(value.dtype, dtype)
  own = f"{value.dtype}{list(value.shape)}"
  assert good, f"{name}: {own}, not {dtype.__name__}{list(shape)}"


def assert_close(value, expected, message: str) -> None:
  """Asserts that arrays are equal but for rounding in float32."""
  np.testing.assert_allclose(
    value, expected, rtol=1e-4, atol=1e-4, err_msg=message
  )


def assert_zero_mean(draws, message: str) -> None:
  """Asserts that the mean over the first axis is within 5 standard errors."""
  draws = np.asarray(draws, np.float64)
  error = draws.std(axis=0) / math.sqrt(len(draws))  # of the mean
  off = np.abs(draws.mean(axis=0)) - 5 * error
  # A little more, for draws that are all the same but for rounding.
  assert (off <= 1e-5).all(), f"{message} (by {off.max():.3g})"
