"""Checks of the contract of models."""

import itertools

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from latentnmt.keys import fold_in_each, normal_each, row_keys
from latentnmt.masks import lengths, token_mask
from latentnmt.models import LatentModel, init_params
from latentnmt.objectives import negative_elbo
from latentnmt.testing.assertions import (
  assert_array,
  assert_close,
  check_start,
)
from latentnmt.testing.inputs import perturb, random_tokens
from latentnmt.types import (
  EOS,
  PAD,
  Batch,
  Hypotheses,
  Key,
  Terms,
  Tokens,
  Variables,
)

# Both sides pad one row and another, and the last row is all padding.
_SOURCE_LENGTHS, _TARGET_LENGTHS = (5, 3, 2, 0), (3, 5, 2, 0)
_ROWS = np.arange(4)
_MOST_STRINGS, _MOST_TOKENS = 400, 6  # one batch: 3 tokens of 20, 5 of 6
_ZERO_IF_EXACT = ("log_pz", "log_qz", "kl", "kl_standard")


def check_model(model: nn.Module, key: Key) -> None:
  """Checks that a Linen module keeps the contract `latentnmt.models.Model`.

  It has `exact`, `methods`, and a `config` with `transformer` and `family`. And
  with randomly perturbed parameters, on sentences of different lengths:

  * Terms have the right shapes and dtypes, and are zero in a row of padding.
  * A sentence has the same terms alone, in any batch and under any padding.
  * Gradients are finite, and training reaches every parameter (`check_start`).
  * Each method that can be built without arguments gives well-formed
    translations, best first.
  * An exact model has zero KL terms and ignores the key. Its log p(y|x) is at
    most 0, and the probabilities of all short strings sum to at most 1.
  * Any other has the methods of `LatentModel`, which return the right shapes.

  Args:
    model: unbound, with a vocabulary of 3 to 20 tokens, for its strings of up
      to 3 tokens and more are all scored.
    key: of everything random.

  Raises:
    AssertionError: saying which property fails.
  """
  vocab_size = _check_face(model)
  keys = jax.random.split(key, 6)
  batch = _random_batch(keys[0], vocab_size)
  params = jax.jit(init_params, static_argnums=0)(model, keys[1])
  variables = {"params": perturb(params, keys[2])}

  @jax.jit
  def score(batch, rows, key):
    terms = model.apply(variables, batch, key)
    return terms, _invariants(model, variables, terms, batch, rows, key)

  # One program for each shape: this one, a sentence alone, and the strings.
  terms, invariants = score(batch, _ROWS, keys[3])
  _check_terms(terms, batch)
  _check_padding(score, batch, keys[3], invariants)
  if model.exact:
    _check_exact(terms, score(batch, _ROWS, keys[4])[0])
    _check_sum(score, batch, vocab_size)
  else:
    _check_latent_shapes(model, variables, batch)

  def loss(params):
    terms = model.apply({"params": params}, batch, keys[3], train=True)
    return negative_elbo(terms)[0]  # of one sample: its noise is fixed

  check_start(loss, params, keys[5])
  for cls in model.methods:
    _check_method(cls, model, variables, batch.x)


def _check_face(model) -> int:
  """Checks what a model says of itself, and returns its V."""
  exact = getattr(model, "exact", None)
  assert isinstance(exact, bool), f"exact: {exact!r}, not True or False"
  methods = getattr(model, "methods", None)
  good = isinstance(methods, tuple) and methods
  assert good, f"methods: {methods!r}, not a tuple of classes"
  for cls in methods:
    good = isinstance(cls, type) and hasattr(cls, "decode")
    assert good, f"methods: {cls!r} is no class with a method `decode`"
  config = getattr(model, "config", None)
  family = getattr(config, "family", None)
  assert isinstance(family, str) and family, f"config.family: {family!r}"
  sizes = getattr(config, "transformer", None)
  vocab_size = getattr(sizes, "vocab_size", 0)
  good = 3 <= vocab_size <= 20
  assert good, f"config.transformer.vocab_size: {vocab_size}, not 3 to 20"
  # Methods of the protocol, so that this knows of those to come.
  latent = [name for name in vars(LatentModel) if not name.startswith("_")]
  missing = [name for name in latent if not hasattr(model, name)]
  assert exact or not missing, f"not exact, and without {', '.join(missing)}"
  return vocab_size


def _random_batch(key: Key, vocab_size: int) -> Batch:
  key_x, key_y = jax.random.split(key)
  return Batch(
    random_tokens(key_x, vocab_size, jnp.array(_SOURCE_LENGTHS)[:, None], 6),
    random_tokens(key_y, vocab_size, jnp.array(_TARGET_LENGTHS)[:, None], 6),
  )


def _check_terms(terms: Terms, batch: Batch) -> None:
  assert isinstance(terms, Terms), f"{type(terms).__name__} instead of Terms"
  for name, value in vars(terms).items():
    assert_array(
      name, value, jnp.float32, len(batch.y)
    )  # whatever it computes in
    assert np.isfinite(value).all(), f"{name}: not finite"
    assert value[-1] == 0, f"{name}: not zero in a row of padding"
  num_tokens = lengths(token_mask(batch.y))
  assert_close(terms.num_tokens, num_tokens, "num_tokens")


def _invariants(model, variables, terms, batch, rows, key) -> dict:
  """Returns figures of each sentence that nothing around it may change."""
  if model.exact:
    return vars(terms)
  # The sample behind the terms is one array, of the batch's shape. In its place
  # comes noise that belongs to the sentence.
  bound = model.bind(variables)
  source = bound.precompute(batch.x)
  y, mask = bound.targets(batch.y)
  mean, scale = bound.posterior(y, mask, source)
  z = mean + scale * normal_each(fold_in_each(key, rows), mean.shape)
  log_py, log_pz = bound.log_joint(z, y, mask, source)
  names = "kl_standard", "log_pl", "num_tokens", "num_positions"
  invariants = {name: getattr(terms, name) for name in names}
  return {"log_py": log_py, "log_pz": log_pz, **invariants}


def _check_padding(score, batch: Batch, key: Key, invariants: dict) -> None:
  """Checks a sentence alone and unpadded, and all in another order."""
  x, y = batch.x, batch.y
  alone = Batch(x[1:2, : _SOURCE_LENGTHS[1]], y[1:2, : _TARGET_LENGTHS[1]])
  _, alone = score(alone, _ROWS[1:2], key)
  _, reverse = score(Batch(x[::-1], y[::-1]), _ROWS[::-1], key)
  for name, value in invariants.items():
    message = f"{name} of a sentence depends on its batch or on padding"
    assert_close(alone[name], value[1:2], message)
    assert_close(reverse[name], value[::-1], message)


def _check_exact(terms: Terms, again: Terms) -> None:
  """Checks that nothing was sampled; `again` is under another key."""
  for name in _ZERO_IF_EXACT:
    zero = not np.any(getattr(terms, name))
    assert zero, f"{name}: not zero, of a model that is exact"
  for name, value in vars(terms).items():
    same = np.array_equal(value, getattr(again, name))
    assert same, f"{name} depends on the key, of a model that is exact"
  # A bound may be above 0 by the noise of its sample; a probability is not.
  assert np.all(terms.elbo <= 1e-4), "log p(y|x) is above 0"


def _check_sum(score, batch: Batch, vocab_size: int) -> None:
  """Checks that the first source has no more translations than there may be."""
  strings = _strings(vocab_size)
  x = np.repeat(batch.x[:1], len(strings), axis=0)
  terms, _ = score(
    Batch(x, strings), np.arange(len(strings)), jax.random.key(0)
  )
  total = np.sum(np.exp(terms.elbo))
  # What is missing is the mass of longer strings.
  assert total <= 1 + 1e-4, f"short strings have probability {total:.4f} > 1"


def _strings(vocab_size: int) -> np.ndarray:
  """Returns all strings of the fewest tokens, int32[n, T]."""
  tokens, rows, size = range(EOS + 1, vocab_size), [], 0
  while size < _MOST_TOKENS and len(rows) + len(tokens) ** size < _MOST_STRINGS:
    rows += ((*row, EOS) for row in itertools.product(tokens, repeat=size))
    size += 1
  columns = itertools.zip_longest(*rows, fillvalue=PAD)  # [T, n]
  return np.array(list(columns), np.int32).T


def _check_latent_shapes(model, variables: Variables, batch: Batch) -> None:
  """Checks what the methods of `LatentModel` return."""

  def call(batch, key):
    bound = model.bind(variables)
    source = bound.precompute(batch.x)
    y, mask = bound.targets(batch.y)
    mean, scale = bound.posterior(y, mask, source)
    return {
      "targets": (y, mask),
      "latent_mask": [bound.latent_mask(mask, source)],
      "posterior": (mean, scale),
      "log_joint": bound.log_joint(mean, y, mask, source),
      "log_prob_length": [bound.log_prob_length(mask, source)],
      "escaped": [bound.escaped(mean, y, mask, source)],
      "best_lengths": bound.best_lengths(source, 1),
      "sample_lengths": bound.sample_lengths(row_keys(key, len(y)), source),
      "center": [bound.center(mask, source)],
      "sample": [bound.sample(key, mask, source)],
      "read": bound.read(mean, mask, source),
      "draw": [bound.draw(key, mean, mask, source)],
    }

  shapes = jax.eval_shape(call, batch, jax.random.key(0))  # computes nothing
  rows, length = shapes["targets"][1].shape
  positions = shapes["latent_mask"][0].shape
  latents = *positions, shapes["posterior"][0].shape[-1]
  written = shapes["read"][0].shape
  expected = {
    "targets": [(jnp.int32, rows, length), (jnp.bool_, rows, length)],
    "latent_mask": [(jnp.bool_, *positions)],
    "posterior": [(jnp.float32, *latents)] * 2,
    "log_joint": [(jnp.float32, rows)] * 2,
    "log_prob_length": [(jnp.float32, rows)],
    "escaped": [(jnp.float32, rows)],
    "best_lengths": [(jnp.int32, rows, 1), (jnp.float32, rows, 1)],
    "sample_lengths": [(jnp.int32, rows), (jnp.float32, rows)],
    "center": [(jnp.floating, *latents)],
    "sample": [(jnp.floating, *latents)],
    "read": [(jnp.int32, *written), (jnp.float32, rows)],
    "draw": [(jnp.int32, *written)],
  }
  for name, values in shapes.items():
    for value, kind in zip(values, expected[name], strict=True):
      assert_array(name, value, *kind)


def _check_method(cls: type, model, variables: Variables, x: Tokens) -> None:
  """Checks the translations by a method's default."""
  try:
    method = cls()
  except TypeError:  # it has settings without defaults
    return
  # Results name a method by its string, and binaries take that.
  assert cls.parse(str(method)) == method, f"{method}: not read back by `parse`"
  keys = row_keys(jax.random.key(0), len(x))
  result = method.decode(model, variables, x, None, keys)
  good = isinstance(result, Hypotheses)
  assert good, f"{method}: {type(result).__name__} instead of Hypotheses"
  tokens, scores = np.asarray(result.tokens), np.asarray(result.scores)
  assert_array(
    f"{method}: tokens", tokens, jnp.int32, len(x), *tokens.shape[1:]
  )
  assert tokens.ndim == 3, f"{method}: tokens {tokens.shape}, not [B, N, T]"
  assert_array(f"{method}: scores", scores, jnp.float32, *tokens.shape[:2])
  assert not tokens[-1].any(), f"{method}: tokens in a row of padding"
  best_first = (scores[:, :-1] >= scores[:, 1:]).all()
  assert best_first, f"{method}: scores are not best first"
  assert np.isfinite(scores[:, 0]).all(), f"{method}: scores are not finite"
  # A search that finds fewer than N fills up with hypotheses at -inf.
  tokens = tokens[:-1][np.isfinite(scores[:-1])]
  end = np.argmax(tokens == EOS, axis=1)[:, None]  # of each, its first EOS
  real = np.arange(tokens.shape[1]) <= end
  ended = np.take_along_axis(tokens, end, axis=1) == EOS
  good = ended.all() and np.array_equal(tokens != PAD, real)
  assert good, f"{method}: a translation that is not tokens, EOS, then padding"
