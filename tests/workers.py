"""Small training runs, also as processes of their own.

python tests/workers.py gradient OUT DEVICES
python tests/workers.py translate OUT DEVICES
python tests/workers.py train DATA RUN [ADDRESS PROCESSES NUMBER]
python tests/workers.py killed DATA RUN STEP
"""

import dataclasses
import os
import signal
import sys

import jax
import numpy as np

from latentnmt import (
  data,
  decode,
  objectives,
  sharding,
  testing,
  train,
  zoo,
)
from latentnmt.config import (
  CustomPriorConfig,
  ExperimentConfig,
  TrainConfig,
  override,
)
from latentnmt.models import build, init_params
from latentnmt.train.recorder import Recorder
from latentnmt.types import Batch

WORDS = "ab cd ef gh".split()  # with V = 36, a piece each
POSTERIOR = ("model.channels=4", "model.posterior_gain=2.0")
SMALL = ("model.transformer.width=16", "model.transformer.hidden=32")


def prepared(path) -> data.PreparedData:
  """Word by word "translation" of random three-word sentences."""
  random = np.random.default_rng(0)

  def side(count):
    ids = random.integers(len(WORDS), size=(count, 3))
    source = [" ".join(WORDS[i] for i in row) for row in ids]
    return source, [line.upper() for line in source]

  splits = {"train": side(60), "dev": side(6), "test": side(6)}
  corpus = data.Corpus(splits, ("de", "en"), "test", {})
  return data.prepare(corpus, path, vocab_size=36)


def config(preset="transformer_tiny", *settings) -> ExperimentConfig:
  """A few steps of a model of a few thousand parameters."""
  settings = (
    *SMALL,
    "train.steps=4",
    "train.eval_every=2",
    "train.log_every=1",
    "train.batch_tokens=128",
    "train.warmup=10",
    "train.kl_start=1",
    "train.kl_ramp=2",
    *settings,
  )
  model = zoo.config(preset, vocab_size=36)
  return override(ExperimentConfig(model, TrainConfig(), preset), *settings)


def fitted(*settings) -> ExperimentConfig:
  """As `config`, of a model whose prior starts from data."""
  small = config("gauss_tiny", *settings)
  prior = CustomPriorConfig("priors_of_ours:Fitted")
  model = dataclasses.replace(small.model, prior=prior)
  return dataclasses.replace(small, model=model)


def gradient(out, devices):
  """Over a mesh: loss and gradient of a batch, and a prior that starts from it.

  Dropout and latents are on.
  """
  jax.config.update("jax_num_cpu_devices", int(devices))
  mesh, settings = sharding.mesh(), config("gauss_tiny", *POSTERIOR)
  assert mesh.size == int(devices)
  model = build(settings.model)
  start = train.make_initialise(build(fitted(*POSTERIOR).model), settings)
  random = np.random.default_rng(0)
  x = random.integers(2, 36, (8, 8)).astype(np.int32)
  x[:, -1], x[6:] = 1, 0  # and two rows of padding

  def loss(params, batch):
    key = jax.random.key(1)
    rngs = {"dropout": jax.random.key(2)}
    terms = model.apply({"params": params}, batch, key, train=True, rngs=rngs)
    return objectives.negative_elbo(terms, alpha=0.1, label_smoothing=0.1)[0]

  same, rows = sharding.replicated(mesh), sharding.by_rows(mesh)
  initial = jax.jit(lambda: train.init_state(model, settings.train))()
  batch = sharding.put(Batch(x, x[:, 2:]), mesh)
  value, gradients = jax.jit(
    jax.value_and_grad(loss), in_shardings=(same, rows), out_shardings=same
  )(initial.params, batch)
  started = jax.jit(start, in_shardings=(same, rows), out_shardings=same)
  gradients["started"] = started(initial, batch).params["prior"]
  leaves = jax.tree_util.tree_leaves_with_path(sharding.local(gradients))
  arrays = {jax.tree_util.keystr(path): leaf for path, leaf in leaves}
  np.savez(out, loss=value, **arrays)


def perturbed(model):
  """Parameters without zeros."""
  key = jax.random.key(0)
  params = jax.jit(lambda: init_params(model, key))()
  return testing.perturb(params, key, 0.6)


def translate(out, devices):
  """By all devices: what is found, and its score and bound.

  Ranked by the model itself and by a teacher. One row stands for no sentence.
  """
  jax.config.update("jax_num_cpu_devices", int(devices))
  assert jax.local_device_count() == int(devices)
  model = build(config("gauss_tiny", *POSTERIOR).model)
  params, teacher = perturbed(model), build(config().model)
  own = decode.Delta(1, lengths=2, samples=2, temperature=2.0)
  judged = dataclasses.replace(own, teacher=True)
  score = decode.teacher_score(teacher, perturbed(teacher))
  x = np.random.default_rng(0).integers(2, 36, (2, 8, 6)).astype(np.int32)
  x[..., -1], x[1, 7] = 1, 0
  ids = np.array([range(7, 15), [*range(7), -1]])
  found = {}
  for method, options in ((own, {"bound": True}), (judged, {"score": score})):
    results = decode.translate_batches(
      model, params, zip(ids, x, strict=True), method, **options
    )
    for i, result in enumerate(results):
      for path, leaf in jax.tree_util.tree_leaves_with_path(result):
        found[f"{method} {i}{jax.tree_util.keystr(path)}"] = leaf
  np.savez(out, **found)


def fit(path, run, address=None, processes=1, number=0):
  """A whole run, alone or as one of several processes."""
  if address:
    sharding.initialize(address, int(processes), int(number), timeout=60)
  train.fit(config(), prepared(path), run, progress=None)


def killed(path, run, step):
  """A run that kills itself, as hard as can be, after so many steps."""
  add = Recorder.add

  def add_or_die(self, values):
    if len(self._pending) + self._step == int(step):
      os.kill(os.getpid(), signal.SIGKILL)
    add(self, values)

  Recorder.add = add_or_die
  fit(path, run)


if __name__ == "__main__":
  {
    "gradient": gradient,
    "translate": translate,
    "train": fit,
    "killed": killed,
  }[sys.argv[1]](*sys.argv[2:])
