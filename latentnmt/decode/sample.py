"""Exact samples of p(y|x), of any family, and the choice between them."""

from collections.abc import Callable, Sequence
import dataclasses
import functools
import re
from typing import ClassVar

from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp

from latentnmt.decode.beam import EXTRA_LENGTH
from latentnmt.decode.bound import bound_given
from latentnmt.decode.propose import grid_size
from latentnmt.decode.protocol import NUMBER
from latentnmt.decode.rank import check_teacher, ended, rank
from latentnmt.decode.risk import minimum_risk
from latentnmt.errors import InputError
from latentnmt.inference import variables
from latentnmt.keys import fold_in_all
from latentnmt.masks import length_mask, lengths, take_rows, token_mask
from latentnmt.outputs import output_mask
from latentnmt.types import (
  EOS,
  PAD,
  Array,
  Hypotheses,
  Key,
  Params,
  Source,
  Tokens,
)

_NEVER = -1e9
_LENGTHS, _WORDS = 0, 1  # purposes of a sample's random numbers


@dataclasses.dataclass(frozen=True)
class Sample:
  """Draws translations from p(y|x), and takes the best.

  An autoregressive model draws token by token, up to 30 more than its source
  has; a model with an output draws what each position emits, and at what
  length, if it has p(T|x); one with latents draws them from the prior first.

  Scores: log p(y|x) of each by the model itself, whatever the temperature, of
  a model with latents its `Bound.value`; or what `translate`'s `score` says.

  Attributes:
    count: samples of a sentence; sample k is the same whatever the count.
    temperature: divides the log-odds of what is chosen; of a model with latents
      it is the factor on their base noise alone. 1 for exact samples.
    rank: "own" for the likeliest by those scores; "teacher" for that of a
      teacher, `translate`'s `score`; "mbr" for the one of minimum Bayes risk,
      see `minimum_risk`, which `translate_lines` and `translate_corpus` choose.
  """

  examples: ClassVar = (
    "sample16", "sample16-t0.5", "sample16-mbr", "sample16-teacher",
  )  # fmt: skip
  _name: ClassVar = re.compile(
    rf"sample(\d+)(?:-t{NUMBER})?(?:-(teacher|mbr))?"
  )

  count: int = 16
  temperature: float = 1.0
  rank: str = "own"

  def __post_init__(self):
    if self.count < 1 or self.temperature <= 0:
      raise InputError(f"{self!r}: count >= 1, temperature above 0.")
    if self.rank not in ("own", "teacher", "mbr"):
      raise InputError(
        f"rank={self.rank!r}; valid are 'own', 'teacher' and 'mbr'."
      )

  @property
  def teacher(self) -> bool:
    """Says whether a teacher ranks the samples."""
    return self.rank == "teacher"

  def __str__(self):
    name = f"sample{self.count}"
    name += f"-t{self.temperature:g}" if self.temperature != 1 else ""
    return name + (f"-{self.rank}" if self.rank != "own" else "")

  @classmethod
  def parse(cls, name: str) -> "Sample | None":
    """Reads `str(sample)` back, None for a name of another method."""
    if not (match := cls._name.fullmatch(name)):
      return None
    count, temperature, by = match.groups()
    return cls(int(count), float(temperature or 1), by or "own")

  def decode(self, model, params, x, score, keys) -> Hypotheses:
    """Translates int32[B, S]; see `Method.decode`."""
    check_teacher(self, score)
    tokens, own = samples(model, self, params, x, keys)
    if self.rank == "mbr":  # where each copy counts
      order = jnp.argsort(-own, axis=1)
      own = jnp.take_along_axis(own, order, axis=1)
      return Hypotheses(take_rows(tokens, order), own)
    return rank(tokens, own if score is None else score(x, tokens))

  @property
  def choose(self) -> Callable[[Sequence[str]], int] | None:
    """Returns what chooses among a sentence's strings; None for the first."""
    return minimum_risk if self.rank == "mbr" else None


def samples(
  model: nn.Module, method: Sample, params: Params, x: Tokens, keys: Key
) -> tuple[Array, Array]:
  """Draws N translations of each sentence, in the order of their numbers.

  Args:
    model: of any family.
    method: how many, and at what temperature.
    params: of the model.
    x: int32[B, S].
    keys: typed keys [B]; sample k of a sentence depends on fold_in(key, k).

  Returns:
    int32[B, N, T] and float32[B, N], what the model itself says of each.
  """
  method = dataclasses.replace(method, rank="own")  # one program for all
  if hasattr(model, "step"):
    return _left_to_right(model, method, params, x, keys)
  if model.exact and not model.output.given_length:
    source, length, log_pl = _encode(model, params, x), None, None
    size = None  # the output says
  else:
    source, length, log_pl = _lengths(model, method.count, params, x, keys)
    size = grid_size(length, x, getattr(model, "length_multiple", 1))
  draw = _of_output if model.exact else _of_latents
  return draw(model, method, size, params, source, length, log_pl, keys)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _left_to_right(model, method, params, x, keys) -> tuple[Array, Array]:
  bind = functools.partial(model.bind, variables(params))
  count, t_max = method.count, x.shape[1] + EXTRA_LENGTH
  context, caches = bind().start(x, t_max, count)
  length = lengths(token_mask(x))
  limit, real = length + EXTRA_LENGTH, length > 0
  each = _each_sample(keys, count, _WORDS).T  # [B, N]
  own = jnp.eye(count, dtype=bool)[None, :, None, :]

  def more(state):
    t, _, _, done, _ = state
    return (t < t_max) & ~jnp.all(done)

  def grow(state):
    t, tokens, log_prob, done, caches = state
    previous = jnp.where(t > 0, tokens[:, :, jnp.maximum(t - 1, 0)], PAD)
    past = (jnp.arange(t_max) <= t)[None, None, :, None]
    history = jnp.broadcast_to(own & past, (len(x), count, t_max, count))
    # Bound anew, as JAX traces the loop anew: parameters are its constants.
    logits, caches = bind().step(previous, t, caches, history, context)
    last = (t >= limit - 1)[:, None, None]
    word = jnp.arange(logits.shape[-1])[None, None]
    allowed = (word != PAD) & (~last | (word == EOS))
    keys = jax.vmap(fold_in_all, (0, None))(each, t)
    scaled = jnp.where(allowed, logits / method.temperature, _NEVER)
    token = jax.vmap(jax.vmap(jax.random.categorical))(keys, scaled)
    chosen = jnp.take_along_axis(
      nn.log_softmax(logits), token[..., None], axis=2
    )[..., 0]
    log_prob += jnp.where(done, 0, chosen)
    token = jnp.where(done, PAD, token).astype(jnp.int32)
    tokens = tokens.at[:, :, t].set(token)
    return t + 1, tokens, log_prob, done | (token == EOS), caches

  shape = len(x), count
  done = jnp.broadcast_to(~real[:, None], shape)
  tokens = jnp.zeros((*shape, t_max), jnp.int32)
  start = jnp.int32(0), tokens, jnp.zeros(shape), done, caches
  _, tokens, log_prob, _, _ = lax.while_loop(more, grow, start)
  return tokens, log_prob


@functools.partial(jax.jit, static_argnums=0)
def _encode(model, params, x) -> Source:
  return model.apply(variables(params), x, method="precompute")


@functools.partial(jax.jit, static_argnums=(0, 1))
def _lengths(model, count, params, x, keys) -> tuple[Source, Array, Array]:
  """Returns the source, and lengths [N, B] with log p of each."""
  apply = functools.partial(model.apply, variables(params))
  source = apply(x, method="precompute")

  def draw(keys):
    return apply(keys, source, method="sample_lengths")

  length, log_pl = jax.vmap(draw)(_each_sample(keys, count, _LENGTHS))
  real = jnp.any(source.mask, axis=1)[None]
  return source, jnp.where(real, length, 0), jnp.where(real, log_pl, 0)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _of_output(model, method, size, params, source, length, log_pl, keys):
  def draw(model, states, mask, keys):
    found = model.output.sample(
      keys, model.embedding, states, mask, method.temperature
    )
    # With a length given, that of EOS is the last position.
    return found[0] if length is None else found[0][:, :size]

  def score(model, states, mask, y):
    return model.output.log_prob(model.embedding, states, y, mask).log_prob

  def bound(function, *axes):
    function = nn.apply(function, model)
    function = functools.partial(function, variables(params))
    return jax.vmap(function, axes) if axes else function

  def states_at(model, mask):
    return model.states(mask, source)

  keys = _each_sample(keys, method.count, _WORDS)
  if length is None:  # one grid of positions, and one pass, for all samples
    mask = output_mask(model.output, source)
    states, axis = bound(states_at)(mask), None
  else:
    mask = jax.vmap(lambda row: length_mask(row, size))(length)
    states, axis = bound(states_at, 0)(mask), 0
  tokens = bound(draw, axis, axis, 0)(states, mask, keys)
  own = bound(score, axis, axis, 0)(states, mask, tokens)
  own += 0 if log_pl is None else log_pl
  return tokens.swapaxes(0, 1), own.T


def _of_latents(model, method, size, params, source, length, log_pl, keys):
  del log_pl  # the bound has it
  tokens = _draw_latents(model, method, size, params, source, length, keys)
  return tokens, bound_given(model, params, source, tokens).value


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _draw_latents(model, method, size, params, source, length, keys):
  apply = functools.partial(model.apply, variables(params))

  def draw(key, length, source):  # of one sentence: [T]
    mask = length_mask(length[None], size)
    source = jax.tree.map(lambda leaf: leaf[None], source)
    key_z, key_y = jax.random.split(key)
    z = apply(key_z, mask, source, method.temperature, method="sample")
    return apply(key_y, z, mask, source, method="draw")[0]

  # Taken apart by sentence, a source has no cache for all of them.
  alone = source.replace(cache=None)
  each = jax.vmap(jax.vmap(draw), in_axes=(0, 0, None))
  tokens = each(_each_sample(keys, method.count, _WORDS), length, alone)
  real = jnp.any(source.mask, axis=1)
  return jax.vmap(ended, (0, None))(tokens, real).swapaxes(0, 1)


def _each_sample(keys: Key, count: int, purpose: int) -> Key:
  """Returns typed keys [N, B] of each sample's random numbers."""

  def of_sample(number):
    return fold_in_all(fold_in_all(keys, number), purpose)

  return jax.vmap(of_sample)(jnp.arange(count))
