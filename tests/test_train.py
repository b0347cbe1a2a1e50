"""Training: the step against optax, and whole runs of a few steps."""

import contextlib
import dataclasses
import functools
import io
import json
import os

import chex
import jax
from jax.flatten_util import ravel_pytree
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_sharding import finish, start
from tqdm import tqdm
import workers

from latentnmt import checkpoint, schedules, sharding, train
from latentnmt.data import Batches
from latentnmt.errors import InputError
from latentnmt.models import build
from latentnmt.runs import RunDirectory
from latentnmt.train import loop
from latentnmt.train.recorder import Recorder
from latentnmt.types import Batch


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  return workers.prepared(tmp_path_factory.mktemp("train") / "data")


@pytest.fixture(scope="module")
def teacher(data, tmp_path_factory):
  """A finished run, and the TensorBoard scalars it wrote."""
  events = _Events()
  run = RunDirectory(tmp_path_factory.mktemp("train") / "teacher")
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(loop, "summary_writer", lambda: events)
    train.fit(workers.config(), data, run, progress=None, tensorboard=True)
  return run, events.scalars


class _Events:
  """A TensorBoard writer, and the class that makes it."""

  def __init__(self):
    self.scalars = {}

  def __call__(self, folder, purge_step):
    return self

  def add_scalar(self, tag, value, step):
    self.scalars[tag, step] = value

  def flush(self):
    pass

  close = flush


def _params(run, step=None):
  return checkpoint.load(run, step)[1]


def _losses(run):
  rows = RunDirectory(run).metrics()
  return [(row["step"], row.get("loss"), row.get("dev_elbo")) for row in rows]


def _interrupt(patch, at):
  """As Ctrl-C does in the step after `at`, where each step is logged."""
  add = Recorder.add

  def add_or_stop(self, values):
    if self._step == at:
      raise KeyboardInterrupt
    add(self, values)

  patch.setattr(Recorder, "add", add_or_stop)


def _state(config):
  return train.TrainState(
    jnp.int32(3),
    params := {"w": jnp.ones((2, 3)), "b": jnp.zeros(3)},
    train.make_optimizer(config.train).init(ravel_pytree(params)[0]),
  )


def test_update_is_clipped_adam_at_the_schedule():
  config = workers.config("transformer_tiny", "train.clip=0.5")
  state = _state(config)
  gradient = {"w": jnp.full((2, 3), 2.0), "b": jnp.arange(3.0)}
  new, values = train.make_update(config)(state, gradient)
  rate = schedules.learning_rate(3, config.train, 16)
  adam = optax.chain(
    optax.clip_by_global_norm(0.5),
    optax.adam(float(rate), b1=0.9, b2=0.98, eps=1e-9),
  )
  updates, _ = adam.update(gradient, adam.init(state.params))
  expected = optax.apply_updates(state.params, updates)
  for name in expected:
    np.testing.assert_allclose(new.params[name], expected[name], rtol=1e-5)
  norm = np.sqrt(6 * 4 + 5)
  np.testing.assert_allclose(values["gradient_norm"], norm, rtol=1e-6)
  assert new.step == 4 and values["learning_rate"] == rate


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_is_counted_and_not_applied(bad):
  config = workers.config()
  state, update = _state(config), train.make_update(config)
  gradient = {"w": jnp.full((2, 3), bad), "b": jnp.zeros(3)}
  new, values = update(state, gradient)
  new, values = update(new, gradient)
  assert values["nonfinite"] == 2 and not values["finite"]
  assert new.step == 5
  chex.assert_trees_all_equal(new.params, state.params)
  chex.assert_trees_all_equal(
    new.opt_state.inner_state, state.opt_state.inner_state
  )


def test_two_programs_are_the_one_step():
  config = workers.config()
  model = build(config.model)
  mesh = sharding.mesh()
  state = loop._initial(model, config.train, mesh)
  y = np.array([[5, 6, 1, 0], [7, 1, 0, 0]], np.int32)
  batch = Batch(np.tile(y, (4, 1)), np.tile(y, (4, 1)))
  one, sums = jax.jit(train.make_train_step(model, config))(state, (batch,))
  put = sharding.put(batch, mesh)
  programs = train.Programs(model, config, mesh)
  programs.compile(state, [((8, 4, 4),)])
  two, values = programs(state, (put,))
  assert sums.keys() == values.keys()
  np.testing.assert_allclose(values["loss"], sums["loss"], rtol=1e-6)
  for a, b in zip(
    jax.tree.leaves(two.opt_state), jax.tree.leaves(one.opt_state), strict=True
  ):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("preset", ["transformer_tiny", "gauss_tiny"])
def test_parts_count_as_one_batch_of_all_their_sentences(preset):
  # Without noise, so that the same sentences have the same terms.
  off = ("dropout", "attention_dropout", "hidden_dropout")
  config = workers.config(
    preset, *(f"model.transformer.{name}=0.0" for name in off)
  )
  y = np.array([[5, 6, 1, 0], [7, 8, 9, 1], [7, 1, 0, 0]], np.int32)
  model = build(config.model)
  params = train.init_state(model, config.train).params
  gradient = jax.jit(train.make_gradient(model, config))
  parts = Batch(y[:2], y[:2]), Batch(y[2:, :2], y[2:, :2])
  grads, sums = gradient(params, 0, parts)
  assert sums["num_sentences"] == 3 and sums["num_tokens"] == 9
  if preset == "transformer_tiny":
    whole, expected = gradient(params, 0, (Batch(y, y),))
    np.testing.assert_allclose(sums["loss"], expected["loss"], rtol=1e-5)
    chex.assert_trees_all_close(grads, whole, rtol=1e-3, atol=1e-5)


def test_parts_draw_noise_of_their_own():
  config = workers.config("transformer_tiny")
  y = np.array([[5, 6, 7, 1]], np.int32)
  model = build(config.model)
  params = train.init_state(model, config.train).params
  gradient = jax.jit(train.make_gradient(model, config))
  _, one = gradient(params, 0, (Batch(y, y),))
  _, two = gradient(params, 0, (Batch(y, y), Batch(y, y)))
  assert not np.isclose(two["log_py"], 2 * one["log_py"], rtol=1e-6)


def test_a_run_on_mixed_lengths_counts_its_epochs(data, tmp_path):
  config = workers.config(
    "transformer_tiny", "train.mixed_lengths=True", "train.steps=2"
  )
  run = RunDirectory(tmp_path / "run")
  train.fit(config, data, run.path, progress=None)
  (row, *_) = [row for row in run.metrics() if row["step"] == 2]
  store, batch_tokens = data.store("train"), config.train.batch_tokens
  batches = Batches(store, batch_tokens, max_shapes=8, mixed=True)
  assert row["epoch"] == 2 / batches.per_epoch


def test_a_run_leaves_its_files(teacher):
  run, scalars = teacher
  rows = run.metrics()
  steps = [row for row in rows if "loss" in row]
  dev = [row for row in rows if "dev_bleu" in row]
  assert [row["step"] for row in steps] == [1, 2, 3, 4]
  assert [row["step"] for row in dev] == [2, 4]
  assert steps[-1]["loss"] < steps[0]["loss"]
  assert steps[-1]["tokens_per_second"] > 0
  assert {"dev_elbo", "dev_log_py", "dev_kl", "dev_log_pl"} <= dev[0].keys()
  for row in steps:
    assert row["elbo"] == row["elbo_given_length"] == row["log_py"]
  end = run.finished()
  assert end["reason"] == "steps" and end["step"] == 4
  assert end["best_score"] == max(row["dev_bleu"] for row in dev)
  for row in steps:
    assert scalars["train/loss", row["step"]] == row["loss"]
  assert scalars["dev/bleu", 4] == dev[1]["dev_bleu"]
  assert len(scalars) == sum(len(row) - 1 for row in rows)


def test_a_finished_run_is_left_alone(teacher, data):
  run, _ = teacher
  before = {p: p.stat().st_mtime_ns for p in run.path.rglob("*")}
  assert train.fit(workers.config(), data, run, progress=None) == run
  assert {p: p.stat().st_mtime_ns for p in run.path.rglob("*")} == before


def test_a_killed_run_continues_bit_for_bit(teacher, data, tmp_path):
  run = RunDirectory(tmp_path / "run")
  with pytest.raises(AssertionError):
    finish(start("killed", data.path, run, 3))
  assert run.finished() is None
  logged = run.metrics()
  assert [row["step"] for row in logged] == [1, 2, 2, 3]
  train.fit(workers.config(), data, run, progress=None)
  chex.assert_trees_all_equal(_params(run, 4), _params(teacher[0], 4))
  rows = run.metrics()
  assert [row["step"] for row in rows] == [1, 2, 2, 3, 4, 4]
  assert _losses(run) == _losses(teacher[0])


@pytest.fixture
def fast(monkeypatch):
  """All runs of a test are one model, compiled once and not judged."""
  settings = (*workers.POSTERIOR, "train.kl_start=2", "train.eval_every=4")
  config = workers.fitted(*settings)
  model, mesh = build(config.model), sharding.mesh()
  initial = jax.device_get(loop._initial(model, config.train, mesh))
  programs = train.Programs(model, config, mesh)

  def compile_once(*args):
    train.Programs.compile(programs, *args)
    monkeypatch.setattr(programs, "compile", lambda *_: None)

  monkeypatch.setattr(programs, "compile", compile_once)
  monkeypatch.setattr(loop, "Programs", lambda *_: programs)
  monkeypatch.setattr(
    loop,
    "_initial",
    lambda *_: jax.device_put(initial, sharding.replicated(mesh)),
  )
  row = dict.fromkeys(("bleu", "elbo", "log_py", "kl", "log_pl"), 0.0)
  monkeypatch.setattr(loop, "Dev", lambda *_: lambda params: row)
  monkeypatch.setattr(loop, "SAVE_AFTER", 0.0)
  return config


def test_a_prior_is_initialised_once_however_often_a_run_is_interrupted(
  fast, data, tmp_path, monkeypatch, capsys
):
  def fit(name, at=None):
    """The state a run ends in, and whether its prior was initialised."""
    bar = functools.partial(tqdm, file=io.StringIO())
    with monkeypatch.context() as patch:
      _interrupt(patch, at)
      with contextlib.suppress(KeyboardInterrupt):
        train.fit(fast, data, tmp_path / name, progress=bar)
    with checkpoint.Checkpoints(tmp_path / name) as checkpoints:
      state, _ = checkpoints.restore(loop._initial())
    return state, "step 2: the prior is" in capsys.readouterr().err

  before, new = fit("run", at=2)  # after it was, before that is saved
  assert before.step == 2 and new
  assert checkpoint.steps(tmp_path / "run") == []
  moments = before.opt_state.inner_state[1]
  _, unravel = ravel_pytree(before.params)
  for tree in before.params, unravel(moments.mu), unravel(moments.nu):
    chex.assert_trees_all_equal(tree["prior"]["m"], jnp.zeros(4))
  after, new = fit("run", at=3)
  assert after.step == 3 and new
  assert jnp.all(jnp.abs(after.params["prior"]["m"]) > 0.01)
  end, new = fit("run")
  assert end.step == 4 and not new
  whole, new = fit("whole")
  assert new
  chex.assert_trees_all_equal(end, whole)
  assert _losses(tmp_path / "run") == _losses(tmp_path / "whole")
  assert os.listdir(tmp_path / "run" / "checkpoints") == ["4"]


def test_latent_models_stop_by_patience_once_the_kl_has_begun(data, tmp_path):
  settings = (
    "train.eval_every=1",
    "train.steps=9",
    "train.learning_rate=1e-30",
    "train.patience=2",
    "train.kl_start=3",
    "model.channels=4",
  )
  config = workers.config("gauss_tiny", *settings)
  run = train.fit(config, data, tmp_path / "run", progress=None)
  end = run.finished()
  assert end["reason"] == "patience"
  assert end["step"] == 5 and end["best_step"] == 5


def test_a_step_that_is_not_finite_stops_the_run_or_is_passed_over(
  data, tmp_path
):
  settings = ("train.learning_rate=1e30", "train.log_every=2")
  config = workers.config("transformer_tiny", *settings)
  with pytest.raises(FloatingPointError, match="step 2 is not finite"):
    train.fit(config, data, tmp_path / "stop", progress=None)
  row = RunDirectory(tmp_path / "stop").metrics()[-1]
  assert row["step"] == 2 and row["nonfinite"] == 1
  config = workers.config("transformer_tiny", *settings, "train.nonfinite=skip")
  run = train.fit(config, data, tmp_path / "skip", progress=None)
  rows = run.metrics()
  assert [r["nonfinite"] for r in rows if "nonfinite" in r] == [1, 3]
  text = run.metrics_path.read_text()
  assert "NaN" not in text and json.loads(text.split("\n")[0])["loss"]


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"data": "other"}, "for other data"),
    ("model.transformer.vocab_size=37", "vocabulary of .* has 36"),
    ("train.keep_every=3", "multiple of train.eval_every=2"),
    ("model.transformer.max_length=8", "is below 64"),
    ("train.glancing=(0.5,)", "has no decoder that could glance"),
    ("train.seed=1", "was made otherwise .*train.seed: 0 -> 1"),
  ],
)
def test_what_does_not_fit_is_refused(teacher, data, change, message):
  run, _ = teacher
  before = sorted(run.path.rglob("*"))
  if isinstance(change, dict):
    config = dataclasses.replace(workers.config(), **change)
  else:
    config = workers.config("transformer_tiny", change)
  with pytest.raises(InputError, match=message):
    train.fit(config, data, run, progress=None)
  assert sorted(run.path.rglob("*")) == before


def test_what_is_exact_is_not_smoothed(data):
  config = workers.config("ctc_tiny", "train.label_smoothing=0.1")
  with pytest.raises(InputError, match="is exact, and smoothing has no"):
    train.as_trained(config, data)


@pytest.mark.slow
def test_a_graph_glances_and_is_chosen_by_its_likelihood(data, tmp_path):
  run = RunDirectory(tmp_path / "run")
  config = workers.config(
    "dag_tiny", "train.label_smoothing=0.0", "train.select=nats",
    "train.glancing=(0.5, 0.0)", "train.steps=4", "train.eval_every=2",
  )  # fmt: skip
  train.fit(config, data, run.path, progress=None)
  dev = {r["step"]: r["dev_elbo"] for r in run.metrics() if "dev_elbo" in r}
  end = run.finished()
  assert end["select"] == "nats" and end["best_score"] == max(dev.values())
  assert checkpoint.find_step(run) == end["best_step"]
  assert dev[end["best_step"]] == end["best_score"]
  model, params, _ = checkpoint.load(run)
  assert model.exact and params


def test_more_devices_than_rows_divide_by_are_refused():
  class Mesh:
    size = 3

  with pytest.raises(InputError, match="3 devices cannot share the 8 rows"):
    sharding.check_rows(8, Mesh)


def test_prefetch_keeps_order_and_passes_errors_on():
  assert list(loop._prefetch(lambda i: i * i, range(3, 8))) == [
    9, 16, 25, 36, 49,
  ]  # fmt: skip
  assert list(loop._prefetch(str, range(2, 3))) == ["2"]
  assert list(loop._prefetch(str, range(2, 2))) == []
  with pytest.raises(ZeroDivisionError):
    list(loop._prefetch(lambda i: 1 // (2 - i), range(4)))


def test_the_binary_says_what_is_wrong(binary, data, tmp_path):
  flags = [f"--data={data.path}", f"--run={tmp_path / 'run'}"]
  for wrong, message in {
    "--preset=nope": "Unknown preset 'nope'",
    "--preset=transformer_tiny --prior=a:B": "takes no --prior",
    "--preset=gauss_tiny --prior=a.b:C": "Cannot build the prior 'a.b:C'",
    "--preset=gauss_tiny --set=train.stes=2": "has no field 'stes'",
    "--preset=gauss_tiny --set=train.steps=0": "steps=0; it should be",
  }.items():
    result = binary("train", *wrong.split(), *flags)
    assert result.status == 2 and message in result.stderr, result
    assert result.stderr.count("\n") == 1
  assert not (tmp_path / "run").exists()


def test_a_student_starts_from_what_its_teacher_learned(
  teacher, data, tmp_path, monkeypatch
):
  run, _ = teacher
  config = workers.config("gauss_tiny")
  seen = []

  def no_training(self, state, past):
    seen.append(jax.device_get(state.params))
    return 0, past

  monkeypatch.setattr(loop.Programs, "compile", lambda *args: None)
  monkeypatch.setattr(loop._Loop, "run", no_training)
  student = tmp_path / "student"
  train.fit(config, data, student, warm_start=run, progress=None)
  [params], learned = seen, _params(run)
  mesh = sharding.mesh()
  fresh = loop._initial(build(config.model), config.train, mesh).params
  for name in ("embedding", "encoder", "decoder"):
    chex.assert_trees_all_equal(params[name], learned[name])
  for name in ("prior", "length", "from_latents"):
    chex.assert_trees_all_close(params[name], fresh[name], rtol=1e-5)
  step = checkpoint.find_step(run)
  assert RunDirectory(student).config().warm_start == f"teacher, step {step}"
  with pytest.raises(InputError, match="warm_start: teacher, step . -> ''"):
    train.fit(config, data, student, progress=None)


@pytest.mark.parametrize("brought", [True, False])
def test_a_prior_that_is_brought_along_is_not_initialised(
  data, tmp_path, monkeypatch, brought
):
  config = workers.config("gauss_tiny", "train.kl_start=0")
  prior = train.init_state(build(config.model), config.train).params["prior"]
  seen = []

  def no_training(self, state, past):
    seen.append(self.initialise)
    return 0, past

  learned = {"prior": prior} if brought else {}
  monkeypatch.setattr(loop, "starts_from_data", lambda model: True)
  monkeypatch.setattr(loop.warm, "read", lambda *args: ("flow", learned))
  monkeypatch.setattr(loop.Programs, "compile", lambda *args: None)
  monkeypatch.setattr(loop._Loop, "run", no_training)
  train.fit(config, data, tmp_path, warm_start="flow", progress=None)
  assert seen == [not brought]


def test_a_run_that_cannot_be_started_from_leaves_nothing(
  teacher, data, tmp_path, monkeypatch
):
  run, student = teacher[0], tmp_path / "student"
  start = functools.partial(train.fit, data=data, run=student, warm_start=run)
  wide = workers.config("gauss_tiny", "model.transformer.width=24")
  with pytest.raises(InputError, match="no module of the same shapes"):
    start(wide)
  with pytest.raises(InputError, match="is not a run directory"):
    start(workers.config("gauss_tiny"), warm_start=tmp_path / "none")
  monkeypatch.setattr(type(data.tokenizer), "__eq__", lambda a, b: False)
  with pytest.raises(InputError, match="another vocabulary"):
    start(workers.config("gauss_tiny"))
  assert not student.exists()
