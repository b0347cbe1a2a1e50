"""Alignments of a sentence pair, and their pictures."""

import functools
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from latentnmt import checkpoint, decode, zoo
from latentnmt.config import ExperimentConfig, TrainConfig
from latentnmt.errors import InputError
from latentnmt.experiments import alignment_picture
from latentnmt.models import build, init_params
from latentnmt.runs import RunDirectory
from latentnmt.text import Tokenizer

PRESETS = "ctc_tiny", "dag_tiny", "ctc_gauss_tiny"
LINES = ["ein haus am see", "das rote auto", "der alte mann sieht das haus"]
X, Y = np.int32([[5, 6, 7, 8, 1]]), np.int32([[9, 10, 10, 11, 1]])
TRANSFORMER = dict(width=16, hidden=16, heads=2, max_length=40)


@functools.cache
def _built(preset, vocab_size=20):
  config = zoo.config(preset, vocab_size=vocab_size, transformer=TRANSFORMER)
  model = build(config)
  return model, jax.jit(init_params, static_argnums=0)(model, jax.random.key(0))


@functools.cache
def _aligned(preset):
  return jax.device_get(decode.align(*_built(preset), X, Y))


def _log_prob(found, path):
  """Adds up what a path of the reference takes, one position at a time."""
  on = np.flatnonzero(path >= 0)
  if found.links is None:
    blanks = np.delete(found.blank, on)
    return found.emissions[path[on], on].sum() + blanks.sum()
  links = found.links[[0, *on[:-1]], on].sum()
  return links + found.emissions[path[on[:-1]], on[:-1]].sum()


@pytest.mark.parametrize("preset", PRESETS)
def test_arrays_make_the_path_and_it_makes_the_reference(preset):
  found = _aligned(preset)
  path = found.reference
  output = _built(preset)[0].output
  assert len(path) == int(output.positions(np.int32([5]))[0])
  emitted = path[path >= 0]
  assert list(dict.fromkeys(emitted)) == list(range(4 + output_ends(found)))
  assert (np.diff(emitted) >= 0).all()
  np.testing.assert_allclose(_log_prob(found, path), found.log_path, rtol=1e-5)
  assert found.log_path < found.log_prob


def output_ends(found):
  """1 where a vertex of its own ends the string."""
  return 0 if found.links is None else 1


def _neighbours(path, slots):
  """Yields paths of which a position does what the next one did."""
  for u in range(1, len(path) - 2):
    here, there = path[[u, u + 1]]
    if max(here, there) < 4 and here != there:  # EOS stays where it is
      changes = [(there, here)]
      changes += slots * [(here, here), (there, there)]
      for change in changes:
        other = path.copy()
        other[[u, u + 1]] = change
        yield other


@pytest.mark.parametrize("preset", PRESETS)
def test_no_neighbour_of_the_path_is_likelier(preset):
  found, tried = _aligned(preset), 0
  for path in _neighbours(found.reference, found.links is None):
    pairs = zip(path, [-1, *path[:-1]], strict=True)
    words = [k for k, before in pairs if 0 <= k < 4 and k != before]
    if words == [0, 1, 2, 3] and _distinct(path):
      tried += 1
      assert _log_prob(found, path) <= found.log_path + 1e-4
  assert tried


def _distinct(path):
  """Whether a blank is between the two equal words, 1 and 2."""
  return not any((path[:-1] == 1) & (path[1:] == 2))


@pytest.mark.parametrize("preset", PRESETS)
def test_padding_changes_nothing(preset):
  x, y = (np.pad(v, ((0, 0), (0, 3))) for v in (X, Y))
  padded = jax.device_get(decode.align(*_built(preset), x, y))
  found = _aligned(preset)
  for name in ("tokens", "reference", "found"):
    np.testing.assert_array_equal(getattr(padded, name), getattr(found, name))
  np.testing.assert_allclose(padded.log_path, found.log_path, rtol=1e-5)
  np.testing.assert_allclose(padded.emissions[:5], found.emissions, rtol=1e-4)


def test_the_path_found_is_the_models_own():
  found = _aligned("ctc_tiny")
  np.testing.assert_array_equal(found.found >= 0, found.tokens > 0)
  found = _aligned("dag_tiny")
  model, params = _built("dag_tiny")
  (hypothesis,) = decode.translate(
    model, params, X, decode.parse_method("viterbi")
  ).tokens[0]
  on = np.flatnonzero(found.found >= 0)[:-1]
  np.testing.assert_array_equal(found.tokens[on], hypothesis[: len(on)])


def test_only_slots_and_vertices_are_aligned():
  for preset in ("transformer_tiny", "factorised_tiny", "gauss_tiny"):
    model = build(zoo.config(preset, vocab_size=20, transformer=TRANSFORMER))
    with pytest.raises(InputError, match="no slots or vertices"):
      decode.align(model, {}, X, Y)
  with pytest.raises(InputError, match="one pair"):
    decode.align(*_built("ctc_tiny"), np.repeat(X, 2, axis=0), Y)


def test_a_reference_without_a_path_has_a_picture():
  y = np.int32([[*range(2, 19), *range(2, 19), 1]])
  for preset in ("ctc_tiny", "dag_tiny"):
    found = jax.device_get(decode.align(*_built(preset), X, y))
    assert (found.reference == -1).all() and np.isneginf(found.log_path)
    assert np.isfinite(found.log_prob)
    figure = alignment_picture.draw(found, str, y[0], "$_x", "caption")
    figure.canvas.draw()


@pytest.mark.parametrize("preset", PRESETS)
def test_the_binary_draws(preset, tmp_path, binary):
  tokenizer = Tokenizer.train(LINES * 5, 30)
  model, params = _built(preset, tokenizer.vocab_size)
  run = RunDirectory(tmp_path / "run")
  run.create(ExperimentConfig(model.config, TrainConfig(), preset), tokenizer)
  state = SimpleNamespace(step=1, params=params, opt_state={})
  with checkpoint.Checkpoints(run) as checkpoints:
    checkpoints.save(state, checkpoint.Progress(), 1.0)
  pair = f"--run={run}", "--source=ein $ haus", "--target=das rote auto"
  drawn = binary("visualize", *pair)
  path = run.figures_path / "own.alignment.png"
  assert (drawn.status, drawn.stdout) == (0, f"{path}\n"), drawn.stderr
  assert path.read_bytes().startswith(b"\x89PNG")
  bad = binary("visualize", *pair, "--draws=50")
  assert bad.status == 2 and "is for --picture=latents" in bad.stderr
  draws = "--picture=latents", "--draws=3", "--perplexity=2"
  drawn = binary("visualize", *pair, *draws)
  if model.exact:
    assert drawn.status == 2 and "has no latents" in drawn.stderr
  else:
    assert drawn.status == 0, drawn.stderr
    assert (run.figures_path / "own.delta1.png").is_file()
