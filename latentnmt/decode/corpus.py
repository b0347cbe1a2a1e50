"""Translating a batch, and lines of text on all local devices."""

from collections.abc import Callable, Iterable, Iterator, Sequence
import dataclasses

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from latentnmt import data, sharding
from latentnmt.decode.bound import Bound, own_bound
from latentnmt.decode.protocol import Method, Score
from latentnmt.decode.rank import TeacherScore
from latentnmt.errors import InputError
from latentnmt.keys import fold_in_each, row_keys
from latentnmt.text import Tokenizer
from latentnmt.types import EOS, PAD, Hypotheses, Key, Params, Tokens


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
    model: of any family.
    params: its parameters, or what `models.for_inference` made of them.
    x: int32[B, S]; rows that are all padding give empty translations.
    method: one of the classes in `model.methods`.
    score: ranks the candidates of `Delta` instead of the model's own bound,
      for example `teacher_score(teacher, teacher_params)`.
    key: for methods that draw: one key, of which sentence b gets
      fold_in(key, b), or typed keys [B], one for each sentence; by default
      jax.random.key(0). What a sentence draws does not depend on its batch.

  Raises:
    InputError: for a method that is none of the model's, more lengths than its
      predictor tells apart, a teacher's method without `score`, or keys that
      are not one or B.
  """
  check_method(model, method)
  x = jnp.asarray(x)
  key = jax.random.key(0) if key is None else key
  return method.decode(model, params, x, score, row_keys(key, len(x)))


def check_method(model: nn.Module, method: Method) -> None:
  """Refuses a method that is none of the model's.

  Raises:
    InputError: naming those that are.
  """
  if not isinstance(method, tuple(model.methods)):
    valid = " or ".join(cls.__name__.lower() for cls in model.methods)
    raise InputError(
      f"{type(model).__name__} cannot decode by {method}; it takes {valid}."
    )


@dataclasses.dataclass(frozen=True)
class Translations:
  """The best translation of each of n lines, blank ones of no tokens.

  Attributes:
    lines: detokenised, in the given order.
    scores: float32[n], nats; the decoding method says which quantity.
    num_tokens: int32[n], tokens with EOS.
    bound: float32[n] of each field; None where it was not asked for.
  """

  lines: list[str]
  scores: np.ndarray
  num_tokens: np.ndarray
  bound: Bound | None


def translate_lines(
  model: nn.Module,
  params: Params,
  tokenizer: Tokenizer,
  lines: Sequence[str],
  method: Method,
  *,
  score: Score | None = None,
  key: Key | None = None,
  batch_tokens: int = 4096,
  progress: Callable[[Iterable], Iterable] | None = None,
  truncate: bool = False,
) -> list[str]:
  """Translates lines of text, in the given order.

  Args:
    model: of any family.
    params: its parameters.
    tokenizer: of the run.
    lines: source sentences; a blank line gives an empty line.
    method: see `translate`.
    score: see `translate`.
    key: line i draws with fold_in(key, i); by default jax.random.key(0).
    batch_tokens: rows times source length of a batch.
    progress: wraps the list of batches, as tqdm does.
    truncate: cut sources that are longer than the model takes, rather than
      refuse them.

  Raises:
    InputError: for a source longer than the model takes.
  """
  return translate_corpus(
    model, params, tokenizer, lines, method, score=score, key=key,
    batch_tokens=batch_tokens, progress=progress, truncate=truncate,
  ).lines  # fmt: skip


def translate_corpus(
  model: nn.Module,
  params: Params,
  tokenizer: Tokenizer,
  lines: Sequence[str],
  method: Method,
  *,
  score: Score | None = None,
  key: Key | None = None,
  batch_tokens: int = 4096,
  progress: Callable[[Iterable], Iterable] | None = None,
  truncate: bool = False,
  bound: bool = False,
) -> Translations:
  """Translates lines of text, and tells what is known of the translations.

  Args:
    model: of any family.
    params: its parameters.
    tokenizer: of the run.
    lines: n source sentences.
    method: see `translate`.
    score: see `translate`.
    key: see `translate_lines`.
    batch_tokens: see `translate_lines`.
    progress: see `translate_lines`.
    truncate: see `translate_lines`.
    bound: ask a latent model also for its `own_bound` of each translation.

  Raises:
    InputError: for a source longer than the model takes.
  """
  x = encode_lines(model, tokenizer, lines, truncate)
  # A blank line is EOS alone; its translation is blank, too.
  number = np.array([i for i, ids in enumerate(x) if ids != [EOS]], int)
  batches = data.length_batches(
    [x[i] for i in number],
    batch_tokens=batch_tokens,
    max_shapes=data.few_shapes(len(number)),
  )
  # Lines are known by their number among all: blank ones are in no batch.
  batches = [
    (np.where(ids < 0, -1, number[ids]), tokens) for ids, tokens in batches
  ]
  result = _no_translations(len(lines), bound)
  for ids, best, own in translate_batches(
    model, params, progress(batches) if progress else batches, method,
    score=score, key=key, bound=bound,
  ):  # fmt: skip
    _put(result, tokenizer, method, ids, best, own)
  return result


def translate_batches(
  model: nn.Module,
  params: Params,
  batches: Iterable[tuple[np.ndarray, np.ndarray]],
  method: Method,
  *,
  score: Score | None = None,
  key: Key | None = None,
  bound: bool = False,
) -> Iterator[tuple[np.ndarray, Hypotheses, Bound | None]]:
  """Translates batches in turn, each by all devices of this process.

  Args:
    model: see `translate`.
    params: see `translate`.
    batches: ids of sentences int[B], -1 for none, and their int32[B, S].
    method: see `translate`.
    score: see `translate`.
    key: sentence i draws with fold_in(key, i); by default jax.random.key(0).
    bound: ask a latent model also for its `own_bound` of each translation.

  Yields:
    The ids of each batch, on the host its best hypotheses [B, 1, T], and their
    bound; of a method that chooses among strings, all N hypotheses. A batch is
    fetched only once the next is under way.

  Raises:
    InputError: for rows that the devices cannot share; as `translate`.
  """
  mesh = sharding.mesh(jax.local_devices())
  replicated = sharding.replicated(mesh)
  params = jax.device_put(params, replicated)
  key = jax.random.key(0) if key is None else key
  # Others than the best are not worth their way to the host, unless they are
  # to be chosen among there.
  kept = None if getattr(method, "choose", None) else 1
  # What is computed together has to lie on the same devices.
  if isinstance(score, TeacherScore):
    score = score.on(replicated)

  def found():
    for ids, tokens in batches:
      tokens, rows = sharding.put((tokens, np.maximum(ids, 0)), mesh)
      keys = fold_in_each(key, rows)
      hypotheses = translate(model, params, tokens, method, score, keys)
      best = jax.tree.map(lambda leaf: leaf[:, :kept], hypotheses)
      own = own_bound(model, params, tokens, best.tokens) if bound else None
      yield ids, best, own

  return _fetched(found())


def _no_translations(size: int, bound: bool) -> Translations:
  scores, *of_bound = np.zeros((5, size), np.float32)
  bound = Bound(*of_bound) if bound else None
  return Translations([""] * size, scores, np.zeros(size, np.int32), bound)


def _fetched(results: Iterable) -> Iterator:
  """Yields each result on the host, fetched once the next is under way."""
  # JAX computes while Python goes on: with one result always under way the
  # device never waits for detokenisation.
  pending = None
  for result in results:
    if pending is not None:
      yield jax.device_get(pending)
    pending = result
  if pending is not None:
    yield jax.device_get(pending)


def _put(
  result: Translations,
  tokenizer: Tokenizer,
  method: Method,
  ids: np.ndarray,
  best: Hypotheses,
  own: Bound | None,
) -> None:
  """Writes the translations of rows `ids`, -1 for none; arrays of [B, N]."""
  real = np.flatnonzero(ids >= 0)
  ids = ids[real]
  lines, chosen = chosen_lines(tokenizer, method, best.tokens[real])
  tokens = best.tokens[real, chosen]
  for i, line in zip(ids, lines, strict=True):
    result.lines[i] = line
  result.scores[ids] = best.scores[real, chosen]
  result.num_tokens[ids] = np.sum(tokens != PAD, axis=1)
  for old, new in zip(
    jax.tree.leaves(result.bound), jax.tree.leaves(own), strict=True
  ):
    old[ids] = new[real, chosen]


def chosen_lines(
  tokenizer: Tokenizer, method: Method, tokens: np.ndarray
) -> tuple[list[str], np.ndarray]:
  """Returns the text of each sentence's best translation, and which it is.

  Args:
    tokenizer: of the run.
    method: the best is what its `choose` chooses, else the first.
    tokens: int32[n, N, T], as `translate_batches` yields them.

  Returns:
    n lines and int[n], indices below N.
  """
  choose = getattr(method, "choose", None)
  if not choose:
    return tokenizer.decode(tokens[:, 0]), np.zeros(len(tokens), int)
  texts = [tokenizer.decode(row) for row in tokens]
  chosen = np.array([choose(lines) for lines in texts], int)
  return [lines[i] for lines, i in zip(texts, chosen, strict=True)], chosen


def encode_lines(
  model: nn.Module,
  tokenizer: Tokenizer,
  lines: Sequence[str],
  truncate: bool,
  side: str = "source",
) -> list[list[int]]:
  """Returns token ids of each line; `side` is what an error calls a line.

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
