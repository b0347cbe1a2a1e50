"""Alignments of a model's positions with a reference, to look at.

For models whose output has more positions than words: the slots of a CTC, which
has `prefix_beam`, or the vertices of a graph, which has `links`.
"""

import functools

from flax import linen as nn
from flax import struct
import jax
import jax.numpy as jnp

from latentnmt.errors import InputError
from latentnmt.inference import variables
from latentnmt.masks import lengths
from latentnmt.outputs import output_mask, words
from latentnmt.types import Array, Mask, Params, Tokens


@struct.dataclass
class Alignment:
  """One sentence pair as U positions make it, at the posterior's mean.

  Paths are int32[U], the index in their string of what each position emits, -1
  for nothing.

  Attributes:
    tokens: int32[U], what each position emits most likely; PAD for a blank.
    reference: the likeliest path that makes the reference y; all -1 where
      there is none.
    found: likewise of the string that the model itself finds: by Viterbi
      where it has that, else its best path.
    log_prob: float32, log p(y|x); with latents, log p(y|z, x).
    log_path: float32, log-probability of `reference`.
    emissions: float32[T, U], log-probability of each token of y in each
      position. A graph's last vertex emits EOS alone, whatever stands here.
    blank: float32[U], likewise of a blank; None where there is none.
    links: float32[U, U], log-probability of going from vertex to vertex; None
      where there are none.
  """

  tokens: Array
  reference: Array
  found: Array
  log_prob: Array
  log_path: Array
  emissions: Array
  blank: Array | None
  links: Array | None


def can_align(model: nn.Module) -> bool:
  """Returns whether a model's output has slots or vertices."""
  output = getattr(model, "output", None)
  return hasattr(output, "prefix_beam") or hasattr(output, "links")


def align(model: nn.Module, params: Params, x: Tokens, y: Tokens) -> Alignment:
  """Returns how a model aligns a sentence pair.

  Args:
    model: with an output that has slots or vertices.
    params: its parameters.
    x: int32[1, S].
    y: int32[1, T], its reference.

  Raises:
    InputError: for a model of another output, or more than one sentence.
  """
  if not can_align(model):
    raise InputError(f"{type(model).__name__} has no slots or vertices.")
  if len(x) != 1 or len(y) != 1:
    raise InputError(f"{len(x)} sources and {len(y)} targets; give one pair.")
  found, mask = _align(model, params, x, y)
  count = int(lengths(mask)[0])  # of the sentence: no position is padding
  paths = {
    name: getattr(found, name)[:count]
    for name in ("tokens", "reference", "found")
  }
  return found.replace(
    **paths,
    emissions=found.emissions[:, :count],
    blank=None if found.blank is None else found.blank[:count],
    links=None if found.links is None else found.links[:count, :count],
  )


@functools.partial(jax.jit, static_argnums=0)
def _align(model, params, x, y) -> tuple[Alignment, Mask]:
  bound = model.bind(variables(params))
  output, embedding = bound.output, bound.embedding
  states, mask = _states(bound, x, y)
  search = output.viterbi if hasattr(output, "viterbi") else output.best
  own, _ = search(embedding, states, mask)
  tokens, _ = output.likeliest(embedding, states)
  reference, log_path = output.alignment(embedding, states, y, mask)
  # The likeliest path of the string found is the path that it was found by.
  found, _ = output.alignment(embedding, states, own, mask)
  emissions, blank = _emissions(output, embedding, states, y)
  has_links = hasattr(output, "links")
  return Alignment(
    tokens=tokens[0],
    reference=reference[0],
    found=found[0],
    log_prob=output.log_prob(embedding, states, y, mask).log_prob[0],
    log_path=log_path[0],
    emissions=emissions[0],
    blank=blank,
    links=output.links(states, mask)[0] if has_links else None,
  ), mask


def _states(bound, x: Tokens, y: Tokens) -> tuple[Array, Mask]:
  """Returns the decoder's states float[1, U, D] and their positions."""
  source = bound.precompute(x)
  if bound.exact:
    mask = output_mask(bound.output, source)
    return bound.states(mask, source), mask
  y, mask = bound.targets(y)
  mean, _ = bound.posterior(y, mask, source)
  return bound.states(mean, source)


def _emissions(output, embedding, states, y) -> tuple[Array, Array | None]:
  """Returns `Alignment.emissions`, float32[1, T, U], and `Alignment.blank`."""
  states, table = embedding.operands(states)
  normaliser, blank = words.log_normaliser(states, table), None
  if hasattr(output, "prefix_beam"):
    logit = words.blank_logits(states, table)
    normaliser = jnp.logaddexp(normaliser, logit)
    blank = (logit - normaliser)[0]
  own = words.own_logits(states, table, y)
  return own - normaliser[:, None], blank
