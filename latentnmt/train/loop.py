"""The loop that drives the training step, and what it stops for.

A step's batch is a pure function of (seed, step) too, so that a run that was
killed continues from its checkpoint bit for bit as if it had not been.
"""

from collections.abc import Callable, Iterator
import concurrent.futures
import contextlib
import dataclasses
import functools
import os
from typing import Any

from flax import linen as nn
import jax
from jax.sharding import Mesh
from tqdm import tqdm

from latentnmt import sharding
from latentnmt.checkpoint import Checkpoints, Progress
from latentnmt.config import ExperimentConfig, TrainConfig
from latentnmt.data import Batches, PreparedData
from latentnmt.errors import InputError
from latentnmt.models import build, can_glance, can_smooth, starts_from_data
from latentnmt.runs import RunDirectory
from latentnmt.train import warm_start as warm
from latentnmt.train.evaluation import Dev
from latentnmt.train.recorder import Recorder, summary_writer
from latentnmt.train.step import Programs, TrainState, init_state
from latentnmt.types import Batch, Params

# An interruption loses so many seconds at most, and the steps to a log point:
# saved where metrics are written, a continued run writes the same ones.
SAVE_AFTER = 120.0


def fit(
  config: ExperimentConfig,
  data: PreparedData,
  run: str | os.PathLike,
  *,
  warm_start: str | os.PathLike | None = None,
  progress: Callable[..., tqdm] | None = tqdm,
  tensorboard: bool = False,
) -> RunDirectory:
  """Trains a model to the end, from wherever an earlier call was cut off.

  Args:
    config: of model and training; `data` and `warm_start` are filled in.
    data: with the splits "train" and "dev".
    run: directory, made if it is not there.
    warm_start: a run with the same vocabulary, of whose best checkpoint the
      modules of the same name and shapes are taken over, to be trained on.
    progress: makes progress bars, called as `tqdm` is; None for silence.
    tensorboard: also write TensorBoard events, to `run`/tensorboard.

  Returns:
    The run directory; at once where the run is finished already.

  Raises:
    InputError: for a run directory of another configuration, data that do
      not fit the configuration, a run to start from that does not fit, or
      checkpoints none of which can be read.
    FloatingPointError: at the log point after a gradient that is not finite,
      where `config.train.nonfinite` is "stop".
  """
  train, mesh = config.train, sharding.mesh()
  config, learned = _with_start(_checked(config, data), data, warm_start)
  batches = Batches(
    data.store("train"),
    train.batch_tokens,
    max_length=train.max_length,
    seed=train.seed,
    max_shapes=train.max_shapes,
    edges=train.shapes,
    mixed=train.mixed_lengths,
  )
  for rows, _, _ in batches.shapes:
    sharding.check_rows(rows, mesh)
  writer = summary_writer() if tensorboard else None
  # Everything that can be refused has been: from here on there are files.
  run = RunDirectory(run)
  run.create(config, data.tokenizer)
  if run.finished():
    return run
  silent = progress is None or not sharding.is_main()
  make_bar = functools.partial(tqdm, disable=True) if silent else progress
  step, past = _train(config, data, run, batches, learned, make_bar, writer)
  if sharding.is_main():
    reason = "steps" if step == train.steps else "patience"
    run.mark_finished(
      reason,
      step=step,
      best_step=past.best_step,
      best_score=past.best,
      select=train.select,
    )
  return run


def as_trained(
  config: ExperimentConfig, data: PreparedData, warm_start=None
) -> ExperimentConfig:
  """Returns the configuration that `fit` would train by, having checked it."""
  return _with_start(_checked(config, data), data, warm_start)[0]


def _with_start(
  config: ExperimentConfig, data: PreparedData, warm_start
) -> tuple[ExperimentConfig, Params]:
  """Returns the configuration with its start, and the modules taken over."""
  if warm_start is None:
    return config, {}
  model = build(config.model)
  shapes = jax.eval_shape(lambda: init_state(model, config.train)).params
  name, learned = warm.read(RunDirectory(warm_start), shapes, data.tokenizer)
  return dataclasses.replace(config, warm_start=name), learned


def _train(
  config: ExperimentConfig,
  data: PreparedData,
  run: RunDirectory,
  batches: Batches,
  learned: Params,
  make_bar: Callable[..., tqdm],
  writer: Callable | None,
) -> tuple[int, Progress]:
  """Trains to the end; returns the steps taken and the evaluations."""
  train, mesh, model = config.train, sharding.mesh(), build(config.model)
  with contextlib.ExitStack() as stack:
    checkpoints = stack.enter_context(Checkpoints(run, train.keep_every))
    state = _initial(model, train, mesh)
    state = state.replace(params=warm.replace(state.params, learned))
    state, past = checkpoints.restore(state)
    start = int(state.step)
    events = None
    if writer and sharding.is_main():
      events = writer(str(run.tensorboard_path), purge_step=start)
      stack.callback(events.close)
    bar = stack.enter_context(
      make_bar(desc=run.name, total=train.steps, initial=start, unit="step")
    )
    programs = Programs(model, config, mesh, bar.set_postfix_str)
    initialise = starts_from_data(model) and "prior" not in learned
    initialise &= start <= train.kl_start < train.steps
    loop = _Loop(
      train,
      has_prior=not model.exact,
      batch=lambda step: tuple(sharding.put(p, mesh) for p in batches[step]),
      programs=programs,
      initialise=initialise,
      recorder=Recorder(
        run, train, start, batches.per_epoch, programs, bar, events
      ),
      dev=Dev(model, data, train, make_bar),
      checkpoints=checkpoints,
    )
    if start < train.steps:
      first = loop.batch(train.kl_start) if initialise else None
      programs.compile(state, batches.kinds, first)
      bar.unpause()  # the rate is that of the steps alone
    return loop.run(state, past)


@dataclasses.dataclass(frozen=True)
class _Loop:
  """Training, once all is set up.

  Attributes:
    train: configuration of the training.
    has_prior: whether the model has a prior, which the KL term trains.
    batch: the parts of each step's batch, on the devices.
    programs: take the steps.
    initialise: whether the prior is still to be initialised from data.
    recorder: takes the metrics.
    dev: judges parameters.
    checkpoints: of the run.
  """

  train: TrainConfig
  has_prior: bool
  batch: Callable[[int], tuple[Batch, ...]]
  programs: Programs
  initialise: bool
  recorder: Recorder
  dev: Dev
  checkpoints: Checkpoints

  def run(self, state: TrainState, past: Progress) -> tuple[int, Progress]:
    """Trains to the end; returns the steps taken and the evaluations."""
    train, done = self.train, int(state.step)
    steps = range(done, 0 if self._exhausted(past) else train.steps)
    for batch in _prefetch(self.batch, steps):
      # From the batch of this very step: a resumed run sees the same one.
      if self.initialise and done == train.kl_start:
        state = self.programs.initialise(state, batch)
        self.recorder.say(f"step {done}: the prior is initialised from data")
      state, values = self.programs(state, batch)
      self.recorder.add(values)
      done += 1
      evaluate = done % train.eval_every == 0 or done == train.steps
      log = evaluate or done % train.log_every == 0
      if log:
        self.recorder.flush()
      if evaluate:
        past = self._evaluate(done, state, past)
        if self._exhausted(past):
          break
      # At log points alone, so that metrics and checkpoint end together.
      elif log and self._due():
        self.checkpoints.save(state, past)
    return done, past

  def _evaluate(self, done: int, state: TrainState, past: Progress) -> Progress:
    """Judges and saves a state."""
    row = self.dev(sharding.local(state.params))
    score = row["elbo" if self.train.select == "nats" else "bleu"]
    past = past.after(done, score)
    # Before the KL term, nothing trains the prior that decoding starts from.
    if self.has_prior and done <= self.train.kl_start:
      past = dataclasses.replace(past, evaluations_since=0)
    self.recorder.dev(row)
    self.checkpoints.save(state, past, score)
    return past

  def _due(self) -> bool:
    """Says if it is time to save; each process decides the same."""
    return bool(sharding.agree(self.checkpoints.age() > SAVE_AFTER))

  def _exhausted(self, past: Progress) -> bool:
    patience = self.train.patience
    return bool(patience) and past.evaluations_since >= patience


def _initial(model: nn.Module, train: TrainConfig, mesh: Mesh) -> TrainState:
  init = jax.jit(
    lambda: init_state(model, train), out_shardings=sharding.replicated(mesh)
  )
  return init()


def _prefetch(make: Callable[[int], Any], steps: range) -> Iterator[Any]:
  """Yields `make(step)` for each step, made two ahead in another thread."""
  # One thread keeps the order; two ahead are enough to hide the gathering.
  with concurrent.futures.ThreadPoolExecutor(1) as pool:
    ahead = [pool.submit(make, step) for step in steps[:2]]
    for step in steps:
      item = ahead.pop(0).result()
      if step + 2 in steps:
        ahead.append(pool.submit(make, step + 2))
      yield item


def _checked(config: ExperimentConfig, data: PreparedData) -> ExperimentConfig:
  """Returns the configuration with the data's fingerprint, if they agree."""
  train, transformer = config.train, config.model.transformer
  if config.data not in ("", data.fingerprint):
    raise InputError(
      f"The configuration is for other data ({config.data}) than"
      f" {data.path} ({data.fingerprint})."
    )
  if transformer.vocab_size != data.tokenizer.vocab_size:
    raise InputError(
      f"model.transformer.vocab_size={transformer.vocab_size}, but the"
      f" vocabulary of {data.path} has {data.tokenizer.vocab_size} pieces."
    )
  model = build(config.model)
  if train.label_smoothing and not can_smooth(model):
    raise InputError(
      f"train.label_smoothing={train.label_smoothing}: the output of"
      f" {type(model).__name__} is exact, and smoothing has no meaning for it;"
      " set 0."
    )
  if train.glancing and not can_glance(model):
    raise InputError(
      f"train.glancing={train.glancing}: {type(model).__name__} has no decoder"
      " that could glance; leave it out."
    )
  if train.keep_every % train.eval_every:
    raise InputError(
      f"train.keep_every={train.keep_every} should be a multiple of"
      f" train.eval_every={train.eval_every}, where checkpoints are saved."
    )
  # Dev is translated while the model trains: better refused now than then.
  lengths = data.store("dev").lengths
  if not len(lengths):
    raise InputError(f"The dev split of {data.path} is empty.")
  longest = max(train.max_length, int(lengths[:, 0].max()))
  if longest > transformer.max_length:
    raise InputError(
      f"model.transformer.max_length={transformer.max_length} is below"
      f" {longest}, the longest of train.max_length and the dev sources;"
      " raise it."
    )
  return dataclasses.replace(config, data=data.fingerprint)
