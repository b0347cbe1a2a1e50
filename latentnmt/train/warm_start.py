"""Training that starts from what another run has learned."""

import jax

from latentnmt import checkpoint
from latentnmt.errors import InputError
from latentnmt.runs import RunDirectory
from latentnmt.text import Tokenizer
from latentnmt.types import Params


def read(
  run: RunDirectory, params: Params, tokenizer: Tokenizer
) -> tuple[str, Params]:
  """Returns what to call a run, and what it has for `params`.

  It has, at its best checkpoint, the modules of one name whose parameters all
  have the same shapes: of an autoregressive teacher a latent student of its
  width gets the embedding and, if it has as many layers, encoder and decoder.

  Args:
    run: the run's directory.
    params: by module, a tree of arrays or of their shapes.
    tokenizer: of the data to train on.

  Raises:
    InputError: for a run without checkpoints, of another vocabulary, or with
      nothing that fits.
  """
  step = checkpoint.find_step(run)
  _, other, vocabulary = checkpoint.load(run, step)
  if vocabulary != tokenizer:
    raise InputError(
      f"The run {run} to start from has another vocabulary than the data; use"
      " one that was trained on the same prepared data."
    )
  # By whole modules: half a module of another model is of no use.
  found = {
    name: tree
    for name, tree in other.items()
    if name in params and _shapes(tree) == _shapes(params[name])
  }
  if not found:
    raise InputError(
      f"The run {run} to start from has no module of the same shapes; use a"
      " model of the same width."
    )
  return f"{run.name}, step {step}", found


def _shapes(tree: Params):
  return jax.tree.map(lambda leaf: leaf.shape, tree)


def replace(params: Params, found: Params) -> Params:
  """Returns `params` with the modules of `read`, on the same devices."""
  placed = {
    name: jax.tree.map(
      lambda new, old: jax.device_put(old, new.sharding), params[name], tree
    )
    for name, tree in found.items()
  }
  return {**params, **placed}
