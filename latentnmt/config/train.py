"""Configuration of training, and of a whole experiment."""

import dataclasses

from latentnmt.config.model import ModelConfig
from latentnmt.config.ranges import check_ranges
from latentnmt.errors import InputError


@dataclasses.dataclass(frozen=True)
class TrainConfig:
  """Settings of a training.

  Attributes:
    steps: optimiser steps at most.
    batch_tokens: rows times the longer side's length, per step.
    max_shapes: shapes of batch at most; each costs a compilation, and with
      few of them more of a batch is padding.
    shapes: lengths (S, T) of the batches, for runs on different data that are
      to share compiled programs; by default chosen from the corpus.
    mixed_lengths: whether each step has sentences of all lengths, a few of
      every shape, rather than a batch of one shape. Its gradient is then of
      the whole corpus, not of one length: more is learned from the same data.
      Each part is small, which costs time on accelerators.
    max_length: pairs with a longer side, in tokens, are left out of training.
    seed: of initialisation, data order, dropout and latents.
    learning_rate: factor on width^-0.5 min(step^-0.5, step warmup^-1.5).
    warmup: steps of linear warm-up.
    schedule_restart: step at which the schedule starts again from zero; 0 for
      never (the paper's public code: where the KL term starts).
    adam_b1: decay of Adam's first moment.
    adam_b2: decay of Adam's second moment (public code: 0.997).
    adam_eps: Adam's epsilon.
    clip: largest global norm of the gradient; 0 for no clipping.
    label_smoothing: share of the uniform distribution in the training target.
    kl_start: steps with KL weight zero.
    kl_ramp: steps over which the KL weight then rises to one.
    free_nats: nats of KL a position that cost nothing (free bits, LaNMT's KL
      budget); above 0 the latents stay in use.
    alpha: weight of KL(q || N(0, I)).
    alpha_mix: as the public code: alpha follows the KL weight beta and takes
      its share from the KL, beta ((1 - alpha) kl + alpha kl_standard).
    glancing: shares of wrong words that a non-autoregressive decoder is shown
      in training (Qian et al. 2021), the first at the first step, the last at
      the last one, others evenly between; () for none.
    select: what makes a checkpoint the best on dev, and what `patience` waits
      for: "bleu", or "nats", the bound on log p(y|x) a token.
    eval_every: steps between dev evaluations, which also save checkpoints.
    patience: dev evaluations without a better one before stopping; 0 for
      never.
    keep_every: keep a checkpoint every so many steps for ever; 0 for none.
    log_every: steps between lines of metrics.
    nonfinite: "stop" or "skip" a step whose gradient is not finite; either
      way it is not applied, counted and logged.
  """

  steps: int = 100_000
  batch_tokens: int = 4096
  max_shapes: int = 8
  shapes: tuple = ()
  mixed_lengths: bool = False
  max_length: int = 64
  seed: int = 0
  learning_rate: float = 1.0
  warmup: int = 4000
  schedule_restart: int = 0
  adam_b1: float = 0.9
  adam_b2: float = 0.98
  adam_eps: float = 1e-9
  clip: float = 1.0
  label_smoothing: float = 0.1
  kl_start: int = 5000
  kl_ramp: int = 20_000
  free_nats: float = 0.0
  alpha: float = 1e-4
  alpha_mix: bool = False
  glancing: tuple = ()
  select: str = "bleu"
  eval_every: int = 1000
  patience: int = 10
  keep_every: int = 0
  log_every: int = 50
  nonfinite: str = "stop"

  def __post_init__(self):
    check_ranges(self)
    if self.select not in ("bleu", "nats"):
      raise InputError(f"select={self.select!r}; valid are 'bleu' and 'nats'.")
    if self.nonfinite not in ("stop", "skip"):
      raise InputError(
        f"nonfinite={self.nonfinite!r}; valid are 'stop' and 'skip'."
      )


@dataclasses.dataclass(frozen=True)
class ExperimentConfig:
  """A model and its training: what `config.json` rebuilds.

  Attributes:
    model: configuration of the model.
    train: configuration of its training.
    preset: what the model's configuration started from: a name in `zoo`, or
      the class of a model of one's own.
    data: fingerprint of the prepared data the run was trained on.
    warm_start: name and step of the run whose parameters training started
      from; "" for a random start.
  """

  model: ModelConfig
  train: TrainConfig
  preset: str = ""
  data: str = ""
  warm_start: str = ""
