import dataclasses
import functools
import itertools

import chex
from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxprs import equations
import numpy as np
import pytest
import scipy.special
import scipy.stats

from latentnmt import config as cfg
from latentnmt import decode, models, testing
from latentnmt.bijections import glow
from latentnmt.decode import (
  Beam,
  Delta,
  Greedy,
  beam,
  parse_method,
  translate,
)
from latentnmt.errors import InputError
from latentnmt.masks import length_mask, token_mask
from latentnmt.priors import FlowPrior, StandardNormalPrior
from latentnmt.text import Tokenizer
from latentnmt.types import EOS, PAD, Batch, Hypotheses

KEY = jax.random.key(0)
VOCAB = 6
TRANSFORMER = cfg.TransformerConfig(
  VOCAB, width=16, hidden=24, heads=2, max_length=12
)
AUTOREGRESSIVE = cfg.AutoregressiveConfig(TRANSFORMER, 1, 2)
GAUSS = cfg.LatentConfig(
  TRANSFORMER, 1, 1, 1, channels=3, prior=cfg.GaussianPriorConfig(1)
)
FLOW = dataclasses.replace(
  GAUSS,
  channels=8,
  prior=cfg.FlowPriorConfig((2, 1), ("ca", "c"), hidden=16, heads=2),
)
X = jnp.array([[4, 5, 3, 1], [3, 1, 0, 0], [0, 0, 0, 0], [5, 5, 1, 0]])
ROWS = [0, 1, 3]  # the real ones


@functools.cache
def built(config):
  """A model, perturbed parameters in which EOS is likely, a jitted `apply`."""
  model = models.build(config)
  batch = testing.random_batch(KEY, vocab_size=VOCAB)
  params = jax.jit(model.init)(KEY, batch, KEY)["params"]
  params = testing.perturb(params, KEY, 0.5)
  # Sentences that end, but not at once.
  push = 0.3 if config is AUTOREGRESSIVE else -0.3
  norm = params["decoder"]["norm"]
  norm["bias"] += push * params["embedding"]["table"][EOS]
  apply = jax.jit(model.apply, static_argnames="method")
  return model, params, functools.partial(apply, {"params": params})


@functools.cache
def every_sentence(row: int, longest: int):
  """All sentences of at most so many tokens and log p(y|x) of each.

  Also the largest log-probability of a prefix that goes on after them.
  """
  *_, apply = built(AUTOREGRESSIVE)
  letters = range(EOS + 1, VOCAB)

  def log_prob(sentences):
    y = np.zeros((len(sentences), longest), np.int32)
    for i, sentence in enumerate(sentences):
      y[i, : len(sentence)] = sentence
    x = jnp.broadcast_to(X[row], (len(sentences), X.shape[1]))
    return np.asarray(apply(Batch(x, y), KEY).log_py)

  ended = [
    (*prefix, EOS)
    for size in range(longest)
    for prefix in itertools.product(letters, repeat=size)
  ]
  going_on = list(itertools.product(letters, repeat=longest))
  return ended, log_prob(ended), log_prob(going_on).max()


def sentence(tokens) -> tuple[int, ...]:
  return tuple(int(t) for t in tokens if t != PAD)


@pytest.mark.parametrize("row", ROWS)
def test_a_wide_beam_finds_the_likeliest_sentence(row):
  model, params, _ = built(AUTOREGRESSIVE)
  ended, log_prob, open_end = every_sentence(row, 5)
  best = int(log_prob.argmax())
  assert open_end < log_prob[best], "the oracle looks at too short sentences"
  hypotheses = translate(model, params, X, Beam(64, 0.0))
  assert sentence(hypotheses.tokens[row, 0]) == ended[best]
  np.testing.assert_allclose(
    hypotheses.scores[row, 0], log_prob[best], rtol=1e-4
  )


def test_selection_by_parts_is_top_k():
  values = jax.random.randint(KEY, (2, 3, 1300), 0, 400).astype(jnp.float32)
  found, index = beam.top(values, 5)
  expected, first = jax.lax.top_k(values, 5)
  np.testing.assert_array_equal(found, expected)
  np.testing.assert_array_equal(index, first)


@pytest.mark.parametrize("config", [AUTOREGRESSIVE, GAUSS, FLOW])
@pytest.mark.parametrize("matmul_dtype", ["float32", "bfloat16"])
def test_parameters_for_inference_compute_the_same(config, matmul_dtype):
  _, params, _ = built(config)
  sizes = dataclasses.replace(config.transformer, matmul_dtype=matmul_dtype)
  config = dataclasses.replace(config, transformer=sizes)
  model = models.build(config)
  prepared = models.for_inference(model, params)
  assert prepared.keys() == {"params", "inference"}
  chex.assert_trees_all_equal(prepared["params"], params)
  [layer] = prepared["inference"]["encoder"]["stack"]["unstacked_layers"]
  kernel = layer["feed_forward"]["hidden"]["kernel"]
  assert kernel.shape == (16, 24) and kernel.dtype == matmul_dtype
  method = parse_method("beam2" if config.decoder_layers > 1 else "delta1")
  found, expected = (translate(model, p, X, method) for p in (prepared, params))
  np.testing.assert_array_equal(found.tokens, expected.tokens)
  np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5)


def test_the_parts_of_a_flow_are_prepared_whoever_made_it():
  ours, params, _ = built(FLOW)
  own = FlowPrior(glow(FLOW.prior, 8, "bfloat16"), 8)
  for model in ours, models.LatentTransformer(FLOW, prior=own):
    prepared = models.for_inference(model, params)["inference"]
    step = prepared["prior"]["bijection"]["levels_1"]["inner"]
    assert step["bijections_1"].keys() == {"inverse"}


class Named(StandardNormalPrior):
  """A prior of one's own, whose parameters are called as ours might be."""

  def setup(self):
    names = "factors", "inverse", "layers", "rounded_table", "0"
    normal, shape = nn.initializers.normal(), (self.channels,)
    self.means = [self.param(name, normal, shape) for name in names]

  def center(self, mask, source):
    mean = sum(self.means)[None, None]
    return jnp.where(mask[..., None], mean, 0)


def test_a_prior_of_ones_own_may_call_its_parameters_anything():
  _, params, _ = built(GAUSS)
  model = models.LatentTransformer(GAUSS, prior=Named(3))
  names = "factors", "inverse", "layers", "rounded_table", "0"
  keys = jax.random.split(KEY, len(names))
  own = {
    n: jax.random.normal(k, (3,)) for n, k in zip(names, keys, strict=True)
  }
  params = {**params, "prior": own}
  prepared = models.for_inference(model, params)
  chex.assert_trees_all_equal(prepared["params"], params)
  assert "prior" not in prepared["inference"]
  found, expected = (
    translate(model, p, X, Delta()) for p in (prepared, params)
  )
  np.testing.assert_array_equal(found.tokens, expected.tokens)


def test_a_beam_copies_neither_the_source_nor_its_cache():
  model, params, _ = built(AUTOREGRESSIVE)
  x = jnp.full((5, 13), 3).at[:, -1].set(EOS)

  def search(params, x):
    return beam.beam_search(model, Beam(3), params, x)

  steps = list(equations(jax.make_jaxpr(search)(params, x).jaxpr))
  made = [(e.primitive.name, v.aval.shape) for e in steps for v in e.outvars]
  # Keys and values of 5 sentences, 2 heads of 8 and 13 source positions: never
  # of 3 hypotheses a sentence, nor of 15.
  of_source = {shape for _, shape in made if 13 in shape and 8 in shape}
  assert {(5, 2, 8, 13), (5, 2, 13, 8)} <= of_source
  assert not any({3, 15} & set(shape) for shape in of_source)
  # Caches of 43 steps are made and written to, but not gathered from.
  caches = (5, 2, 8, 43, 3), (5, 2, 43, 3, 8)
  how = {name for name, shape in made if shape in caches}
  assert how == {"broadcast_in_dim", "dynamic_update_slice", "while", "jit"}


@pytest.mark.parametrize("row", ROWS)
def test_greedy_takes_the_likeliest_next_token(row):
  model, params, apply = built(AUTOREGRESSIVE)
  tokens = sentence(translate(model, params, X, Greedy()).tokens[row, 0])
  for t in range(len(tokens)):
    choices = np.zeros((VOCAB - 1, len(tokens)), np.int32)
    choices[:, :t] = tokens[:t]
    choices[:, t] = range(1, VOCAB)
    x = jnp.broadcast_to(X[row], (VOCAB - 1, X.shape[1]))
    log_prob = apply(Batch(x, jnp.array(choices)), KEY).log_py
    assert tokens[t] == 1 + int(log_prob.argmax())


@pytest.mark.parametrize("penalty", [0.0, 0.6])
def test_a_beam_of_one_is_greedy(penalty):
  model, params, _ = built(AUTOREGRESSIVE)
  greedy = translate(model, params, X, Greedy())
  beam = translate(model, params, X, Beam(1, penalty))
  np.testing.assert_array_equal(beam.tokens, greedy.tokens)


@pytest.mark.parametrize("method", [Greedy(), Beam(), Beam(3, 1.0)])
def test_scores_are_the_models_log_probabilities(method):
  """A re-ordered cache gives what a teacher-forced pass gives."""
  model, params, apply = built(AUTOREGRESSIVE)
  hypotheses = translate(model, params, X, method)
  penalty = getattr(method, "length_penalty", 0.0)
  for n in range(hypotheses.tokens.shape[1]):
    y = hypotheses.tokens[:, n]
    length = np.asarray((y != PAD).sum(1))
    expected = apply(Batch(X, y), KEY).log_py / ((5 + length) / 6) ** penalty
    np.testing.assert_allclose(hypotheses.scores[:, n], expected, rtol=1e-4)
    for row in ROWS:
      assert sentence(y[row])[-1] == EOS
  assert (np.diff(np.asarray(hypotheses.scores), axis=1) <= 0).all()
  assert not hypotheses.tokens[2].any() and not hypotheses.scores[2].any()


def test_the_longest_translation_is_the_sources_length_and_thirty():
  model, params, _ = built(AUTOREGRESSIVE)
  table = params["embedding"]["table"]
  never_ends = {**params, "embedding": {"table": table.at[EOS].set(-9.0)}}
  norm = {**params["decoder"]["norm"], "bias": jnp.full(16, 9.0)}
  never_ends["decoder"] = {**params["decoder"], "norm": norm}
  for method in (Greedy(), Beam(3)):
    hypotheses = translate(model, never_ends, X, method)
    for n in range(hypotheses.tokens.shape[1]):
      found = [len(sentence(y)) for y in hypotheses.tokens[:, n]]
      assert found == [34, 32, 0, 33]
      assert [sentence(hypotheses.tokens[r, n])[-1] for r in ROWS] == [EOS] * 3


@pytest.mark.parametrize(
  "method",
  [Beam(), Delta(2, lengths=2), Delta(0, 2, samples=3, temperature=1.0)],
  ids=str,
)
def test_a_translation_does_not_depend_on_its_batch(method):
  model, params, _ = built(
    AUTOREGRESSIVE if isinstance(method, Beam) else GAUSS
  )
  keys = jax.random.split(KEY, len(X))
  together = translate(model, params, X, method, key=keys)
  for row, size in ((0, 4), (1, 2)):
    x, key = X[row : row + 1, :size], keys[row : row + 1]
    alone = translate(model, params, x, method, key=key)
    width = min(alone.tokens.shape[2], together.tokens.shape[2])
    np.testing.assert_array_equal(
      alone.tokens[0, :, :width], together.tokens[row, :, :width]
    )
    np.testing.assert_allclose(alone.scores[0], together.scores[row], rtol=1e-4)


def refine_by_hand(row, length, steps):
  """Tokens after each refinement of one unpadded sentence, and mask, source."""
  *_, apply = built(GAUSS)
  source = apply(X[row : row + 1], method="encode")
  mask = length_mask(jnp.array([length]), length)

  def read(z):
    logits = apply(z, mask, source, method="decode").at[..., PAD].set(-1e9)
    return jnp.argmax(logits, -1)

  history = [read(apply(mask, source, method="center"))]
  for _ in range(steps):
    mean, _ = apply(history[-1], mask, source, method="posterior")
    history.append(read(mean))
  return history, mask, source


def until_eos(y) -> tuple[int, ...]:
  tokens = [int(t) for t in y[0]]
  tokens = tokens[: tokens.index(EOS)] if EOS in tokens else tokens
  return (*tokens, EOS)


@pytest.mark.parametrize("steps", [0, 1, 3, 40])
def test_delta_is_refinement_by_hand(steps):
  """40 steps stop early, at a fixed point or with the last of them."""
  model, params, apply = built(GAUSS)
  hypotheses = translate(model, params, X, Delta(steps))
  assert hypotheses.tokens.shape[:2] == (4, 1)
  assert not hypotheses.tokens[2].any()
  for row in ROWS:
    source = apply(X[row : row + 1], method="encode")
    length, _ = model.apply(
      {"params": params}, source, 1, method="best_lengths"
    )
    history, *_ = refine_by_hand(row, int(length[0, 0]), steps)
    assert sentence(hypotheses.tokens[row, 0]) == until_eos(history[-1])


CANDIDATES = Delta(1, lengths=3, samples=2, temperature=30.0)
WIDTH = 40  # no candidate is as long


@functools.cache
def candidates_by_hand(row):
  """The translations that CANDIDATES asks for, made one after the other."""
  model, params, apply = built(GAUSS)
  source = apply(X[row : row + 1], method="encode")
  lengths, _ = model.apply(
    {"params": params}, source, CANDIDATES.lengths, method="best_lengths"
  )
  found = []
  for length, k in itertools.product(lengths[0], range(CANDIDATES.samples)):
    mask = length_mask(length[None], WIDTH)
    if k == 0:
      z = apply(mask, source, method="center")
    else:
      key = jax.random.fold_in(jax.random.fold_in(KEY, row), k)
      z = apply(key, mask, source, CANDIDATES.temperature, method="sample")
    for _ in range(CANDIDATES.steps + 1):
      logits = apply(z, mask, source, method="decode")
      y = jnp.where(mask, 1 + jnp.argmax(logits[..., 1:], -1), PAD)
      z, _ = apply(y, mask, source, method="posterior")
    found.append(until_eos(y[:, : int(length)]))
  return set(found)


def prior_mean_scale(model, mask, source):
  return model.prior.mean_scale(mask, source)


def own_bound_by_hand(row, sentence) -> tuple[float, float]:
  """`Bound.value` and `Bound.eq3`."""
  *_, apply = built(GAUSS)
  source = apply(X[row : row + 1], method="encode")
  size = len(sentence)
  y = jnp.array([sentence + (PAD,) * (WIDTH - size)])
  mask = y != PAD
  mean, scale = apply(y, mask, source, method="posterior")
  logits = np.asarray(apply(mean, mask, source, method="decode"))[0]
  log_probs = scipy.special.log_softmax(logits, axis=-1)
  log_py = sum(log_probs[t, token] for t, token in enumerate(sentence))
  log_pz, log_qz = (
    scipy.stats.norm.logpdf(mean[0], m[0], s[0])[:size].sum()
    for m, s in (
      apply(mask, source, method=prior_mean_scale),
      (mean, scale),
    )
  )
  log_pl = float(apply(mask, source, method="log_prob_length")[0])
  return log_py + log_pz - log_qz + log_pl, log_py + log_pz


def teacher_by_hand(row, sentence) -> float:
  *_, apply = built(AUTOREGRESSIVE)
  y = jnp.array([sentence + (PAD,) * (WIDTH - len(sentence))])
  return float(apply(Batch(X[row : row + 1], y), KEY).log_py[0])


@pytest.mark.parametrize("judge", ["own bound", "teacher"])
def test_candidates_are_made_and_ranked_as_by_hand(judge):
  model, params, _ = built(GAUSS)
  score, method = None, CANDIDATES
  if judge == "teacher":
    score = decode.teacher_score(*built(AUTOREGRESSIVE)[:2])
    method = dataclasses.replace(method, teacher=True)
  hypotheses = translate(model, params, X, method, score, KEY)
  several = False
  for row in ROWS:
    expected = {
      sentence: teacher_by_hand(row, sentence)
      if score
      else own_bound_by_hand(row, sentence)[0]
      for sentence in candidates_by_hand(row)
    }
    scores = np.asarray(hypotheses.scores[row])
    found = [sentence(tokens) for tokens in hypotheses.tokens[row]]
    count = len(expected)
    several |= count > 1
    assert np.isinf(scores[count:]).all()
    assert found[:count] == sorted(expected, key=expected.get, reverse=True)
    np.testing.assert_allclose(
      scores[:count], [expected[y] for y in found[:count]], rtol=1e-3
    )
  assert several
  assert not hypotheses.tokens[2].any() and hypotheses.scores[2, 0] == 0


def test_bound_of_given_translations():
  model, params, _ = built(GAUSS)
  y = [[4, 5, 1, 0], [3, 1, 0, 0], [0, 0, 0, 0], [2, 2, 5, 1]]
  bound = decode.own_bound(model, params, X, jnp.array(y)[:, None])
  for row in ROWS:
    expected = own_bound_by_hand(row, sentence(y[row]))
    found = bound.value[row, 0], bound.eq3[row, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-3)
  assert bound.value[2, 0] == bound.eq3[2, 0] == 0
  teacher, teacher_params, _ = built(AUTOREGRESSIVE)
  with pytest.raises(InputError, match="Autoregressive.*no latents"):
    decode.own_bound(teacher, teacher_params, X, jnp.array(y)[:, None])


def test_duplicates_go_last():
  # Temperature next to nothing: all samples of a length are its centre.
  model, params, _ = built(GAUSS)
  method = Delta(0, samples=3, temperature=1e-6)
  hypotheses = translate(model, params, X, method, key=KEY)
  scores = np.asarray(hypotheses.scores)[ROWS]
  assert np.isfinite(scores[:, 0]).all() and np.isinf(scores[:, 1:]).all()
  center = translate(model, params, X, Delta(0))
  width = center.tokens.shape[2]
  np.testing.assert_array_equal(
    hypotheses.tokens[:, 0, :width], center.tokens[:, 0]
  )


def test_samples_differ_at_a_temperature_and_by_key():
  model, params, _ = built(GAUSS)
  method = Delta(0, samples=8, temperature=30.0)
  first = translate(model, params, X, method, key=KEY)
  again = translate(model, params, X, method, key=KEY)
  other = translate(model, params, X, method, key=jax.random.key(1))
  np.testing.assert_array_equal(first.tokens, again.tokens)
  assert np.isfinite(np.asarray(first.scores)[0]).sum() > 1
  assert (np.asarray(first.tokens) != np.asarray(other.tokens)).any()


def test_a_teachers_method_needs_a_teacher():
  model, params, _ = built(GAUSS)
  with pytest.raises(InputError, match="delta1-l2-teacher needs a teacher"):
    translate(model, params, X, Delta(lengths=2, teacher=True))


def test_draws_of_latents_are_those_of_a_loop_by_hand():
  model, params, apply = built(GAUSS)
  x, y = X[:1], jnp.array([[4, 5, 2, 3, 1]])
  found = decode.latent_draws(model, params, x, y, KEY, draws=60, steps=2)
  assert found.prior.shape == (60, 5, 3)
  source, mask = apply(x, method="encode"), y != PAD
  mean, scale = (
    np.asarray(m[0]) for m in apply(y, mask, source, method="posterior")
  )
  for draw in (0, 59):
    z = found.prior[draw][None]
    for _ in range(2):
      logits = apply(z, mask, source, method="decode")
      z, _ = apply(
        1 + jnp.argmax(logits[..., 1:], -1), mask, source, method="posterior"
      )
    np.testing.assert_allclose(found.delta[draw], z[0], rtol=1e-4, atol=1e-5)
  for draws, m, s in (
    (found.posterior, mean, scale),
    (
      found.prior,
      *(v[0] for v in apply(mask, source, method=prior_mean_scale)),
    ),
  ):
    standard = (np.asarray(draws) - np.asarray(m)) / np.asarray(s)
    result = scipy.stats.kstest(standard.ravel(), "norm")
    assert result.pvalue > 1e-3
  again = decode.latent_draws(model, params, x, y, KEY, draws=3, steps=0)
  np.testing.assert_array_equal(again.delta, again.prior)
  np.testing.assert_array_equal(again.prior, found.prior[:3])


def test_latents_are_of_one_pair_and_of_a_latent_model():
  model, params, _ = built(GAUSS)
  with pytest.raises(InputError, match="4 sources and 1 targets"):
    decode.latent_draws(model, params, X, X[:1], KEY)
  teacher, teacher_params, _ = built(AUTOREGRESSIVE)
  with pytest.raises(InputError, match="Autoregressive.*no latents"):
    decode.latent_draws(teacher, teacher_params, X[:1], X[:1], KEY)


def test_a_length_multiple_is_kept():
  config = dataclasses.replace(GAUSS, length_multiple=4)
  model, params, apply = built(config)
  source = apply(X, method="encode")
  lengths, _ = model.apply({"params": params}, source, 3, method="best_lengths")
  assert (np.asarray(lengths) % 4 == 0).all()
  hypotheses = translate(model, params, X, Delta(1, lengths=3))
  assert token_mask(hypotheses.tokens[jnp.array(ROWS)]).any(-1).all()


METHODS = {
  "greedy": Greedy(),
  "beam4": Beam(),
  "beam10-p1": Beam(10, 1.0),
  "delta0": Delta(0),
  "delta1": Delta(),
  "delta4-l5-s3-t0.5": Delta(4, 5, 3, 0.5),
  "delta1-t0.25": Delta(1, temperature=0.25),
  "delta1-l5-s4-t0.5-teacher": Delta(1, 5, 4, 0.5, teacher=True),
  "delta0-l2-teacher": Delta(0, 2, teacher=True),
}


@pytest.mark.parametrize("name", METHODS)
def test_names_of_methods_are_read_back(name):
  assert str(METHODS[name]) == name
  assert parse_method(name) == METHODS[name]


@pytest.mark.parametrize(
  "name",
  ["beam", "beam0", "delta", "best", "delta1-s2", "delta1-teacher"],
)
def test_what_is_no_method_is_refused(name):
  with pytest.raises(InputError):
    parse_method(name)


def test_names_are_read_among_the_methods_of_a_model():
  model, *_ = built(GAUSS)
  assert parse_method("delta2", model.methods) == Delta(2)
  with pytest.raises(InputError, match="'greedy'; .* example delta1"):
    parse_method("greedy", model.methods)


@pytest.mark.parametrize("config", [AUTOREGRESSIVE, GAUSS])
def test_the_first_method_of_a_model_is_the_quick_one(config):
  model, params, _ = built(config)
  quick = model.methods[0]()
  assert parse_method(str(quick), model.methods) == quick
  assert translate(model, params, X, quick).tokens.shape[:2] == (4, 1)


@dataclasses.dataclass(frozen=True)
class Reverse:
  """A decoding method of one's own: the source, backwards."""

  def decode(self, model, params, x, score, keys):
    tokens = jnp.flip(x, axis=1)[:, None]
    return Hypotheses(tokens, jnp.zeros(tokens.shape[:2]))


class Reversing(models.AutoregressiveTransformer):
  methods = (Reverse, Beam)


def test_a_method_of_ones_own_decodes_by_itself():
  _, params, _ = built(AUTOREGRESSIVE)
  model = Reversing(AUTOREGRESSIVE)
  found = translate(model, params, X, Reverse())
  np.testing.assert_array_equal(found.tokens[:, 0], X[:, ::-1])
  assert translate(model, params, X, Beam(2)).tokens.shape[1] == 2


@pytest.mark.parametrize(
  ("config", "method", "message"),
  [
    (GAUSS, Beam(), "Latent.* cannot decode by beam4; it takes delta"),
    (AUTOREGRESSIVE, Delta(2), "Auto.* delta2; it takes greedy or beam"),
    (AUTOREGRESSIVE, Reverse(), "Auto.* it takes greedy or beam"),
  ],
)
def test_a_method_that_is_none_of_the_models_is_refused(
  config, method, message
):
  model, params, _ = built(config)
  with pytest.raises(InputError, match=message):
    translate(model, params, X, method)


def test_more_lengths_than_the_predictor_knows_are_refused():
  model, params, _ = built(GAUSS)
  with pytest.raises(InputError, match="delta1-l99 .* tells 61 apart"):
    translate(model, params, X, Delta(1, lengths=99))


LINES = ["b a c", "", "a", "c b a b c a b a c a b b c a", "a b"]


@pytest.fixture(scope="module")
def tokenizer():
  return Tokenizer.train(["a b c"] * 20, 7)


def test_lines_come_back_in_their_order(tokenizer):
  model, params, _ = built(AUTOREGRESSIVE)
  kwargs = dict(batch_tokens=16, truncate=True)
  lines = decode.translate_lines(
    model, params, tokenizer, LINES, Greedy(), **kwargs
  )
  seen = []
  again = decode.translate_lines(
    model, params, tokenizer, LINES[::-1], Greedy(),
    progress=lambda batches: seen.extend(batches) or seen, **kwargs,
  )  # fmt: skip
  assert len(lines) == len(LINES) and len(seen) >= 1
  assert again[::-1] == lines
  assert decode.translate_lines(model, params, tokenizer, [], Greedy()) == []


def test_a_corpus_tells_what_is_known_of_each_line(tokenizer):
  model, params, _ = built(GAUSS)
  lines = ["b a c", "", "a", "c b"]
  found = decode.translate_corpus(
    model, params, tokenizer, lines, CANDIDATES, batch_tokens=8, bound=True
  )
  again = decode.translate_lines(model, params, tokenizer, lines, CANDIDATES)
  assert found.lines == again
  # The bound is what the best of several candidates was chosen by.
  np.testing.assert_allclose(found.scores, found.bound.value, rtol=1e-4)
  assert found.num_tokens[1] == found.scores[1] == found.bound.eq3[1] == 0
  assert (found.num_tokens[[0, 2, 3]] > 0).all()


def test_blank_lines_never_reach_the_model(tokenizer, monkeypatch):
  model, params, _ = built(AUTOREGRESSIVE)
  # A model that would say something to nothing.
  seen = []
  monkeypatch.setattr(
    decode.corpus,
    "translate",
    lambda model, params, x, *_: seen.append(x) or translate(
      model, params, x, Greedy()
    ),
  )  # fmt: skip
  lines = decode.translate_lines(
    model, params, tokenizer, ["a b", "", " ", "b"], Greedy()
  )
  assert lines[1:3] == ["", ""]
  assert sum(int((x[:, 0] > 0).sum()) for x in seen) == 2


def test_what_a_line_draws_does_not_depend_on_batching(tokenizer):
  model, params, _ = built(GAUSS)
  lines = ["b a c", "", "a", "c b a", "a b"] * 8
  method = Delta(0, temperature=30.0)
  drawn = [
    decode.translate_lines(
      model, params, tokenizer, lines, method, key=key, batch_tokens=size
    )
    for key, size in ((KEY, 8), (KEY, 999), (jax.random.key(1), 999))
  ]
  assert drawn[0] == drawn[1] != drawn[2]
  # Lines of the same source draw each its own.
  assert len({tuple(drawn[0][i : i + 5]) for i in range(0, 40, 5)}) > 1


def test_keys_are_one_or_one_for_each_sentence():
  model, params, _ = built(GAUSS)
  with pytest.raises(InputError, match="3,.* keys for 4 sentences"):
    translate(model, params, X, Delta(), key=jax.random.split(KEY, 3))
  with pytest.raises(InputError, match="not a uint32 key"):
    translate(model, params, X, Delta(), key=jax.random.PRNGKey(0))


def test_too_long_a_line_is_said_unless_truncation_is_asked(tokenizer):
  model, params, _ = built(AUTOREGRESSIVE)
  with pytest.raises(InputError, match=r"1 of 5 .*max_length=12.*line 4"):
    decode.translate_lines(model, params, tokenizer, LINES, Greedy())
  rows = decode.encode_lines(model, tokenizer, LINES, truncate=True)
  assert [len(row) <= 12 and row[-1] == EOS for row in rows] == [True] * 5
