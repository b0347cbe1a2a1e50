"""From a model and source sentences to translations.

Methods are frozen dataclasses; `str(method)` is a file name that tells every
setting that is not a default, and `parse_method` reads it back. `translate`
compiles one program per shape. The source is encoded once, and its
cross-attention keys and values are computed once per sentence whatever the
beam, the number of candidates or of refinements.
"""

from collections.abc import Callable, Iterable, Sequence
import dataclasses
import functools
import re
from typing import Any

from flax import linen as nn
from flax import struct
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from latentnmt import data, distributions
from latentnmt.masks import (
  length_mask,
  lengths,
  masked_sum,
  round_up,
  token_mask,
  trim,
)
from latentnmt.models import AutoregressiveTransformer, LatentTransformer
from latentnmt.text import Tokenizer
from latentnmt.types import (
  EOS,
  PAD,
  Array,
  Batch,
  Hypotheses,
  InputError,
  Key,
  Mask,
  Nats,
  Params,
  Source,
  Tokens,
)

# How many more tokens than its source a translation may have: the bound of
# the length predictor.
_EXTRA_LENGTH = 30
# Target lengths of latent models are rounded up to this, for few programs.
_LENGTH_STEP = 8
_NEVER = -1e9

Score = Callable[[Tokens, Array], Array]


@dataclasses.dataclass(frozen=True)
class Greedy:
  """The likeliest next token, each time. Scores: log p(y|x)."""

  def __str__(self):
    return "greedy"


@dataclasses.dataclass(frozen=True)
class Beam:
  """Beam search for autoregressive models.

  A sentence is done once `size` hypotheses have ended in EOS. Scores:
  log p(y|x) / ((5 + length) / 6)^length_penalty (Wu et al. 2016), the length
  counted with EOS.
  """

  size: int = 4
  length_penalty: float = 0.6

  def __post_init__(self):
    if self.size < 1:
      raise InputError(f"beam size {self.size} is less than 1.")

  def __str__(self):
    name = f"beam{self.size}"
    penalty = self.length_penalty
    return name if penalty == 0.6 else f"{name}-p{penalty:g}"


@dataclasses.dataclass(frozen=True)
class Delta:
  """Refinement with a delta posterior (Shu et al. 2019; Eq. 3 of the paper).

  y = argmax p(y|z, x), then `steps` times z = E q(z|x, y) and y again, and no
  more once no sentence changes.

  Attributes:
    steps: refinements at most; 0 decodes where the prior says.
    lengths: candidates for the length, the likeliest of the predictor.
    samples: starting points for each length. The first of several is the
      prior's centre, the others are drawn from the prior.
    temperature: factor on the base noise of those draws; 0 for the centre.

  Scores: with several candidates log p(y|m, x) + log p(m|x) - log q(m|x, y)
  + log p(T|x) at the posterior mean m of each, comparable across lengths, or
  what `translate`'s `score` says. With one there is nothing to rank, and the
  score is log p(y|z, x) + log p(T|x) at the latents z it was read from.
  """

  steps: int = 1
  lengths: int = 1
  samples: int = 1
  temperature: float = 0.0

  def __post_init__(self):
    if self.steps < 0 or self.lengths < 1 or self.samples < 1:
      raise InputError(f"{self!r}: steps >= 0, lengths and samples >= 1.")
    if self.samples > 1 and self.temperature == 0:
      raise InputError(
        f"{self!r}: several samples at temperature 0 are all the same; set a"
        " temperature above 0."
      )

  def __str__(self):
    name = f"delta{self.steps}"
    name += f"-l{self.lengths}" if self.lengths > 1 else ""
    name += f"-s{self.samples}" if self.samples > 1 else ""
    return name + (f"-t{self.temperature:g}" if self.temperature else "")


Method = Greedy | Beam | Delta

_NUMBER = r"(\d+(?:\.\d+)?(?:e-?\d+)?)"
_BEAM = re.compile(rf"beam(\d+)(?:-p{_NUMBER})?")
_DELTA = re.compile(rf"delta(\d+)(?:-l(\d+))?(?:-s(\d+))?(?:-t{_NUMBER})?")


def parse_method(name: str) -> Method:
  """Reads `str(method)` back.

  Raises:
    InputError: for a name that is none.
  """
  if name == "greedy":
    return Greedy()
  if match := _BEAM.fullmatch(name):
    size, penalty = match.groups()
    return Beam(int(size), *([float(penalty)] if penalty else []))
  if match := _DELTA.fullmatch(name):
    steps, length_count, samples, temperature = match.groups()
    return Delta(
      int(steps), int(length_count or 1), int(samples or 1),
      float(temperature or 0),
    )  # fmt: skip
  raise InputError(
    f"Unknown decoding method {name!r}; valid are for example greedy, beam4,"
    " beam4-p1, delta1, delta4-l5-s3-t0.5."
  )


def translate(
  model: nn.Module,
  params: Params,
  x: Tokens,
  method: Method,
  score: Score | None = None,
  key: Key | None = None,
) -> Hypotheses:
  """Translates a batch.

  Args:
    model: either family.
    params: its parameters.
    x: int32[B, S]; rows that are all padding give empty translations.
    method: `Greedy` or `Beam` for autoregressive models, `Delta` for latent.
    score: ranks the candidates of `Delta` instead of the model's own bound,
      for example `teacher_score(teacher, teacher_params)`.
    key: for `Delta` at a temperature; by default jax.random.key(0).

  Raises:
    InputError: for a method that is not of the model's family.
  """
  x = jnp.asarray(x)
  match model, method:
    case AutoregressiveTransformer(), Greedy():
      return _beam_search(model, Beam(1, 0.0), params, x)
    case AutoregressiveTransformer(), Beam():
      return _beam_search(model, method, params, x)
    case LatentTransformer(), Delta():
      key = jax.random.key(0) if key is None else key
      return _delta(model, method, params, x, score, key)
  raise InputError(
    f"{type(model).__name__} cannot decode by {method}; autoregressive models"
    " take greedy or beam, latent models delta."
  )


# Beam search.


@struct.dataclass
class _Beams:
  """State of the search after `t` steps.

  Attributes:
    t: int32 scalar.
    alive: int32[B, N, T], hypotheses still growing.
    log_prob: float32[B, N], of the alive.
    slots: int32[B, N, T], which cache slot holds each step of an alive one.
    ended: int32[B, N, T], hypotheses with EOS.
    score: float32[B, N], of the ended.
    cache: of the decoder.
  """

  t: Array
  alive: Array
  log_prob: Array
  slots: Array
  ended: Array
  score: Array
  cache: Any


@functools.partial(jax.jit, static_argnums=(0, 1))
def _beam_search(
  model: nn.Module, method: Beam, params: Params, x: Tokens
) -> Hypotheses:
  size, t_max = method.size, x.shape[1] + _EXTRA_LENGTH
  apply = functools.partial(model.apply, {"params": params})
  memory, cache = apply(x, t_max, size, method="start")
  real = jnp.any(token_mask(x), axis=1)

  def more(beams: _Beams):
    return (beams.t < t_max) & ~jnp.all(_done(beams.score) | ~real)

  def grow(beams: _Beams) -> _Beams:
    history = _history(beams.slots, beams.t)
    previous = jnp.where(
      beams.t > 0, beams.alive[:, :, jnp.maximum(beams.t - 1, 0)], PAD
    )
    logits, cache = apply(
      previous, beams.t, beams.cache, history, memory, method="step"
    )
    last = beams.t == t_max - 1
    log_probs = _next_log_probs(logits, last)
    return _select(beams.replace(cache=cache), log_probs, method)

  beams = lax.while_loop(more, grow, _first(x.shape[0], size, t_max, cache))
  tokens = jnp.where(real[:, None, None], beams.ended, PAD)
  scores = jnp.where(beams.score > _NEVER, beams.score, -jnp.inf)
  return Hypotheses(tokens, jnp.where(real[:, None], scores, 0.0))


def _first(batch: int, size: int, t_max: int, cache) -> _Beams:
  empty = jnp.zeros((batch, size, t_max), jnp.int32)
  # All hypotheses start alike, so only the first may have successors.
  log_prob = jnp.where(jnp.arange(size) == 0, 0.0, _NEVER)
  return _Beams(
    t=jnp.int32(0),
    alive=empty,
    log_prob=jnp.broadcast_to(log_prob, (batch, size)),
    slots=empty,
    ended=empty,
    score=jnp.full((batch, size), _NEVER),
    cache=cache,
  )


def _done(score: Array) -> Array:
  """bool[B]: as many hypotheses have ended as the beam is wide."""
  return jnp.all(score > _NEVER, axis=1)


def _history(slots: Array, t: Array) -> Mask:
  """bool[B, N, T, N]: cache slots of each hypothesis, its own at step t."""
  size, t_max = slots.shape[1:]
  steps = jnp.arange(t_max)
  own = jnp.arange(size)[None, :, None]
  slots = jnp.where(steps[None, None, :] == t, own, slots)
  taken = slots[..., None] == jnp.arange(size)[None, None, None, :]
  return taken & (steps <= t)[None, None, :, None]


def _next_log_probs(logits: Array, last: Array) -> Array:
  """float32[B, N, V]; PAD is never written, and `last` allows EOS alone."""
  log_probs = nn.log_softmax(logits)
  token = jnp.arange(logits.shape[-1])
  banned = (token == PAD) | (last & (token != EOS))
  return jnp.where(banned[None, None, :], 2 * _NEVER, log_probs)


def _select(beams: _Beams, log_probs: Array, method: Beam) -> _Beams:
  """Chooses what grows and what ends, from float32[B, N, V]."""
  batch, size, vocab = log_probs.shape
  t = beams.t
  total = beams.log_prob[:, :, None] + log_probs
  # Of 2 N successors at least N do not end in EOS.
  best, flat = _top(total, 2 * size)  # [B, 2 N]
  parent, token = flat // vocab, flat % vocab
  grown = _rows(beams.alive, parent).at[:, :, t].set(token)
  slots = _rows(beams.slots, parent).at[:, :, t].set(parent)
  ends = token == EOS

  # Only an EOS among the N best counts: with N = 1 this is greedy search. A
  # sentence that is done waits for the others unchanged.
  counts = ends & (jnp.arange(2 * size) < size)[None] & (best > _NEVER)
  counts &= ~_done(beams.score)[:, None]
  penalty = ((6.0 + t) / 6.0) ** method.length_penalty  # length is t + 1
  score = jnp.where(counts, best / penalty, _NEVER)
  all_scores = jnp.concatenate([beams.score, score], axis=1)
  score, kept = lax.top_k(all_scores, size)
  ended = _rows(jnp.concatenate([beams.ended, grown], axis=1), kept)

  log_prob, kept = lax.top_k(jnp.where(ends, 2 * _NEVER, best), size)
  return beams.replace(
    t=t + 1,
    alive=_rows(grown, kept),
    log_prob=log_prob,
    slots=_rows(slots, kept),
    ended=ended,
    score=score,
  )


def _top(total: Array, count: int) -> tuple[Array, Array]:
  """The `count` largest of float32[B, N, V] and where, as n V + v."""
  batch, _, vocab = total.shape
  # First within each hypothesis: many short selections beat one long one.
  values, tokens = lax.top_k(total, min(count, vocab))
  parents = jnp.arange(total.shape[1])[None, :, None]
  flat = (parents * vocab + tokens).reshape(batch, -1)
  values, index = lax.top_k(values.reshape(batch, -1), count)
  return values, jnp.take_along_axis(flat, index, axis=1)


def _rows(values: Array, index: Array) -> Array:
  """Rows int32[B, M] of [B, N, T], as [B, M, T]."""
  return jnp.take_along_axis(values, index[:, :, None], axis=1)


# Delta-posterior refinement.


def _delta(model, method, params, x, score, key) -> Hypotheses:
  source, length, log_pl = _propose(model, method.lengths, params, x)
  # The one place where the host looks: how long the longest candidate is.
  step = np.lcm(_LENGTH_STEP, model.length_multiple)
  t_max = int(round_up(int(jnp.max(length)), step))
  ranked = method.lengths * method.samples > 1
  own = ranked and score is None
  tokens, scores = _refine(
    model, method, params, source, length, log_pl, max(t_max, int(step)), own,
    key,
  )  # fmt: skip
  if score is not None:
    scores = score(x, tokens)
  return _rank(tokens, scores) if ranked else Hypotheses(tokens, scores)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _propose(model, count, params, x) -> tuple[Source, Array, Nats]:
  """The source, its likeliest lengths int32[B, count], and log p of each."""
  apply = functools.partial(model.apply, {"params": params})
  source = apply(x, method="encode")
  length, log_pl = apply(source, count, method="best_lengths")
  real = jnp.any(source.mask, axis=1)[:, None]
  return source, jnp.where(real, length, 0), jnp.where(real, log_pl, 0.0)


@functools.partial(jax.jit, static_argnums=(0, 1, 6, 7))
def _refine(
  model, method, params, source, length, log_pl, t_max, own_bound, key
):
  """Candidates int32[B, N, T + 1] and their scores float32[B, N]."""
  apply = functools.partial(model.apply, {"params": params})

  def start(length):  # [B] -> [samples, B, T, C]
    mask = length_mask(length, t_max)
    if method.temperature == 0:
      return apply(mask, source, method="center")[None]
    draw = functools.partial(
      apply, temperature=method.temperature, method="sample"
    )
    keys = jax.random.split(key, method.samples)
    z = jax.vmap(lambda key: draw(key, mask, source))(keys)
    if method.samples == 1:
      return z
    return z.at[0].set(apply(mask, source, method="center"))

  def decode(z, mask):
    logits = apply(z, mask, source, method="decode").at[..., PAD].set(_NEVER)
    best = jnp.max(logits, axis=-1) - nn.logsumexp(logits, axis=-1)
    tokens = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    return jnp.where(mask, tokens, PAD), masked_sum(best, mask)

  def posterior_mean(y, mask):
    return apply(y, mask, source, method="posterior")[0]

  def bound(y, mask):
    mean, scale = apply(y, mask, source, method="posterior")
    log_py, log_pz = apply(mean, y, mask, source, method="log_joint")
    log_qz = distributions.normal_log_prob(mean, mean, scale)
    return log_py + log_pz - masked_sum(log_qz, mask)

  def more(carry):
    step, _, _, changed = carry
    return (step < method.steps) & changed

  def refine(carry):
    step, y, _, _ = carry
    new, log_py = jax.vmap(decode)(jax.vmap(posterior_mean)(y, mask), mask)
    return step + 1, new, log_py, jnp.any(new != y)

  lengths_ = jnp.repeat(length.T, method.samples, axis=0)  # [N, B]
  mask = jax.vmap(lambda n: length_mask(n, t_max))(lengths_)
  z = jax.vmap(start)(length.T)  # [lengths, samples, B, T, C]
  z = z.reshape(-1, *z.shape[2:])
  y, log_py = jax.vmap(decode)(z, mask)
  _, y, log_py, _ = lax.while_loop(more, refine, (0, y, log_py, True))
  value = jax.vmap(bound)(y, mask) if own_bound else log_py
  scores = value.T + jnp.repeat(log_pl, method.samples, axis=1)
  return jax.vmap(_end)(y).swapaxes(0, 1), scores


def _end(y: Tokens) -> Tokens:
  """int32[B, T + 1]: an EOS after the last token of rows without one."""
  y = jnp.pad(y, ((0, 0), (0, 1)))
  length = lengths(token_mask(y))[:, None]
  here = (jnp.arange(y.shape[1])[None] == length) & (length > 0)
  return trim(jnp.where(here, EOS, y))


@jax.jit
def _rank(tokens: Array, scores: Array) -> Hypotheses:
  """Best first; a later copy of a translation goes last, at -inf."""
  order = jnp.argsort(-scores, axis=1)
  tokens, scores = _rows(tokens, order), jnp.take_along_axis(scores, order, 1)
  same = jnp.all(tokens[:, :, None] == tokens[:, None, :], axis=-1)
  earlier = np.tri(scores.shape[1], k=-1, dtype=bool)[None]
  scores = jnp.where(jnp.any(same & earlier, axis=2), -jnp.inf, scores)
  order = jnp.argsort(-scores, axis=1)
  return Hypotheses(_rows(tokens, order), jnp.take_along_axis(scores, order, 1))


def teacher_score(model: AutoregressiveTransformer, params: Params) -> Score:
  """A `score` for `translate`: an autoregressive model's log p(y|x)."""
  return functools.partial(_teacher_score, model, params)


@functools.partial(jax.jit, static_argnums=0)
def _teacher_score(model, params, x: Tokens, tokens: Array) -> Array:
  """float32[B, N] of int32[B, N, T], in one teacher-forced pass."""

  def log_prob(y):
    key = jax.random.key(0)  # drawn from by latent models only
    return model.apply({"params": params}, Batch(x, y), key).log_py

  return jax.vmap(log_prob, in_axes=1, out_axes=1)(tokens)


# Whole texts.


def translate_lines(
  model: nn.Module,
  params: Params,
  tokenizer: Tokenizer,
  lines: Sequence[str],
  method: Method,
  *,
  score: Score | None = None,
  batch_tokens: int = 4096,
  progress: Callable[[Iterable], Iterable] | None = None,
  truncate: bool = False,
) -> list[str]:
  """The best translation of each line, detokenised, in the given order.

  Args:
    model: either family.
    params: its parameters.
    tokenizer: of the run.
    lines: source sentences; an empty line gives an empty line.
    method: see `translate`.
    score: see `translate`.
    batch_tokens: rows times source length of a batch.
    progress: wraps the list of batches, as tqdm does.
    truncate: cut sources that are longer than the model takes, rather than
      refuse them.

  Raises:
    InputError: for a source longer than the model takes.
  """
  x = encode_lines(model, tokenizer, lines, truncate)
  results = [""] * len(lines)
  batches = data.length_batches(x, batch_tokens=batch_tokens)
  pending = None
  for ids, tokens in progress(batches) if progress else batches:
    hypotheses = translate(model, params, tokens, method, score)
    # Fetch a batch only once the next is under way.
    if pending:
      _collect(results, tokenizer, *pending)
    pending = ids, hypotheses.tokens[:, 0]
  if pending:
    _collect(results, tokenizer, *pending)
  return results


def _collect(results: list[str], tokenizer: Tokenizer, ids, tokens: Tokens):
  for index, line in zip(ids, tokenizer.decode(np.asarray(tokens))):
    if index >= 0:
      results[index] = line


def encode_lines(
  model: nn.Module,
  tokenizer: Tokenizer,
  lines: Sequence[str],
  truncate: bool,
  side: str = "source",
) -> list[list[int]]:
  """Token ids of each line; `side` is what an error calls a line.

  Raises:
    InputError: for lines longer than the model takes, unless `truncate`.
  """
  limit = model.config.transformer.max_length
  x = tokenizer.encode(lines)
  long = [i for i, ids in enumerate(x) if len(ids) > limit]
  if long and not truncate:
    raise InputError(
      f"{len(long)} of {len(lines)} {side}s are longer than the model's"
      f" max_length={limit} tokens, the first in line {long[0] + 1}"
      f" ({len(x[long[0]])} tokens); shorten them or ask for truncation."
    )
  return [ids if len(ids) <= limit else [*ids[: limit - 1], EOS] for ids in x]
