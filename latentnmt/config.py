"""Frozen configuration, `override` for changes, JSON for the run directory.

A model is described by an `AutoregressiveConfig` or a `LatentConfig`, its
training by a `TrainConfig`; an `ExperimentConfig` holds both and is what
`config.json` in a run directory contains. Defaults live here and nowhere else.
"""

import ast
import dataclasses
import math
import types
import typing
from typing import Any

from latentnmt.types import InputError

# What the numbers of any group may be: in words, as a test, and which.
_RANGES = (
  (
    "1 or more",
    lambda value: value >= 1,
    "width hidden heads max_length encoder_layers posterior_layers"
    " decoder_layers layers channels length_multiple max_length_difference"
    " steps batch_tokens max_shapes eval_every log_every",
  ),
  ("3 or more (padding, end, unknown)", lambda v: v >= 3, "vocab_size"),
  (
    "0 or more",
    lambda value: 0 <= value < math.inf,
    "seed warmup schedule_restart clip kl_start kl_ramp free_nats alpha"
    " patience keep_every posterior_gain",
  ),
  ("above 0", lambda value: 0 < value < math.inf, "learning_rate adam_eps"),
  (
    "at least 0 and less than 1",
    lambda value: 0 <= value < 1,
    "dropout attention_dropout hidden_dropout posterior_word_dropout adam_b1"
    " adam_b2 label_smoothing",
  ),
)


def _check_ranges(config) -> None:
  for words, test, names in _RANGES:
    for name in names.split():
      value = getattr(config, name, None)
      values = value if isinstance(value, tuple) else (value,)
      if value is not None and not all(map(test, values)):
        raise InputError(f"{name}={value}; it should be {words}.")


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
  """What every stack of layers in a model shares.

  Attributes:
    vocab_size: V, rows of the one embedding that source, target and softmax
      share.
    width: D, the width of the model.
    hidden: width of the feed-forward layer.
    heads: H, attention heads; must divide `width`.
    dropout: on embeddings and on what each sub-layer adds.
    attention_dropout: on attention weights.
    hidden_dropout: inside the feed-forward layer.
    max_length: longest source or target, in tokens with EOS, that the model
      takes in evaluation and decoding.
    scan_layers: compile one layer and scan it, rather than unroll them all.
    remat: recompute activations in the backward pass to save memory.
    dtype: compute dtype, "float32" or "bfloat16"; parameters, softmax and
      everything that becomes a nat stay float32.
    products: "bfloat16" rounds what linear maps, the softmax and attention to
      the caches of a search multiply; sums and activations stay float32. Fast
      on a CPU with AVX512-BF16; on accelerators use `dtype`.
  """

  vocab_size: int
  width: int = 512
  hidden: int = 2048
  heads: int = 8
  dropout: float = 0.1
  attention_dropout: float = 0.1
  hidden_dropout: float = 0.1
  max_length: int = 256
  scan_layers: bool = True
  remat: bool = False
  dtype: str = "float32"
  products: str = "float32"

  def __post_init__(self):
    _check_ranges(self)
    if self.width % (2 * self.heads):
      raise InputError(
        f"heads={self.heads} must divide width={self.width} into heads of an"
        " even size."
      )
    for name in ("dtype", "products"):
      value = getattr(self, name)
      if value not in ("float32", "bfloat16"):
        raise InputError(
          f"{name}={value!r}; valid are 'float32' and 'bfloat16'."
        )

  @property
  def product_dtype(self) -> str:
    """Of the numbers that linear maps and the softmax multiply."""
    rounded = "bfloat16" in (self.dtype, self.products)
    return "bfloat16" if rounded else "float32"


@dataclasses.dataclass(frozen=True)
class AutoregressiveConfig:
  """An encoder and a causal decoder (Vaswani et al. 2017), pre-norm."""

  transformer: TransformerConfig
  encoder_layers: int = 6
  decoder_layers: int = 6

  def __post_init__(self):
    _check_ranges(self)


@dataclasses.dataclass(frozen=True)
class StandardNormalPriorConfig:
  """p(z|x) = N(0, I); no parameters."""


@dataclasses.dataclass(frozen=True)
class GaussianPriorConfig:
  """Diagonal Gaussian p(z|x) of a Transformer decoder over positions."""

  layers: int = 3

  def __post_init__(self):
    _check_ranges(self)


@dataclasses.dataclass(frozen=True)
class FlowPriorConfig:
  """A normalizing flow: Glow for sequences (Ma et al. 2019).

  Attributes:
    steps: of the flow in each level; each level but the first works at half
      the length of the one before.
    plans: of a step in each level, a letter for each coupling layer and what
      it splits in two: "c" channels in a row, "a" alternate channels, "t"
      positions in time.
    hidden: width of a coupling layer's feed-forward part.
    heads: attention heads of a coupling layer; one that is too narrow for
      them has fewer.
    coupling: "affine", or "additive" for one that preserves volume.
    remat: recompute the activations of each step in the backward pass.
  """

  steps: tuple[int, ...] = (4, 8, 8)
  plans: tuple[str, ...] = ("cat", "cat", "ca")
  hidden: int = 640
  heads: int = 8
  coupling: str = "affine"
  remat: bool = False

  def __post_init__(self):
    if not all(type(times) is int for times in self.steps):
      raise InputError(f"steps={self.steps}; they should be whole numbers.")
    _check_ranges(self)
    if not self.steps or len(self.steps) != len(self.plans):
      raise InputError(
        f"steps={self.steps} and plans={self.plans} should be of one length,"
        " that of the levels."
      )
    for plan in self.plans:
      if not (isinstance(plan, str) and plan and set(plan) <= set("cat")):
        raise InputError(
          f"plans={self.plans}; a plan is made of the letters 'c', 'a' and 't'."
        )
    if self.coupling not in ("affine", "additive"):
      raise InputError(
        f"coupling={self.coupling!r}; valid are 'affine' and 'additive'."
      )


@dataclasses.dataclass(frozen=True)
class CustomPriorConfig:
  """A prior from the user's own code.

  Attributes:
    target: "package.module:Class", built as `Class(channels=C, **fields)`.
    fields: further constructor arguments as (name, value) pairs.
  """

  target: str
  fields: tuple = ()


PriorConfig = (
  StandardNormalPriorConfig
  | GaussianPriorConfig
  | FlowPriorConfig
  | CustomPriorConfig
)


@dataclasses.dataclass(frozen=True)
class LatentConfig:
  """A latent-variable model with a non-autoregressive decoder.

  Attributes:
    transformer: sizes shared by every stack.
    encoder_layers: of the source encoder.
    posterior_layers: of q(z|x, y).
    decoder_layers: of p(y|z, x).
    channels: C, latent channels per target position, independent of the
      width: where they differ, the decoder projects C to D.
    prior: configuration of p(z|x).
    posterior_gain: standard deviation of the posterior's means at the start,
      where its scale is 1. With 0 (the paper's public code) it starts as
      N(0, I) and has to learn that latents are of use, in thousands of steps
      without a KL term; with 2 a hundred steps are enough.
    posterior_word_dropout: share of target positions hidden from the
      posterior in training.
    length_multiple: targets are filled up with EOS to a multiple of this and
      of the prior's own `length_multiple`.
    max_length_difference: the length predictor's classes are T - S in
      [-max_length_difference, max_length_difference].
    length_gradient: whether the length loss trains the encoder too.
  """

  transformer: TransformerConfig
  encoder_layers: int = 6
  posterior_layers: int = 3
  decoder_layers: int = 3
  channels: int = 512
  prior: PriorConfig = GaussianPriorConfig()
  posterior_gain: float = 0.0
  posterior_word_dropout: float = 0.2
  length_multiple: int = 1
  max_length_difference: int = 30
  length_gradient: bool = False

  def __post_init__(self):
    _check_ranges(self)


ModelConfig = AutoregressiveConfig | LatentConfig


@dataclasses.dataclass(frozen=True)
class TrainConfig:
  """How a model is trained.

  Attributes:
    steps: optimiser steps at most.
    batch_tokens: rows times the longer side's length, per step.
    max_shapes: shapes of batch at most; each costs a compilation, and with
      few of them more of a batch is padding.
    shapes: lengths (S, T) of the batches, for runs on different data that are
      to share compiled programs; by default chosen from the corpus.
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
    eval_every: steps between dev evaluations, which also save checkpoints.
    patience: dev evaluations without a better BLEU before stopping; 0 for
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
  eval_every: int = 1000
  patience: int = 10
  keep_every: int = 0
  log_every: int = 50
  nonfinite: str = "stop"

  def __post_init__(self):
    _check_ranges(self)
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
    preset: name the model configuration started from.
    data: fingerprint of the prepared data the run was trained on.
    warm_start: name and step of the run whose parameters training started
      from; "" for a random start.
  """

  model: ModelConfig
  train: TrainConfig
  preset: str = ""
  data: str = ""
  warm_start: str = ""


_CLASSES = {
  cls.__name__: cls
  for cls in (
    TransformerConfig,
    AutoregressiveConfig,
    StandardNormalPriorConfig,
    GaussianPriorConfig,
    FlowPriorConfig,
    CustomPriorConfig,
    LatentConfig,
    TrainConfig,
    ExperimentConfig,
  )
}


def override(config, *assignments: str):
  """Returns `config` with fields replaced, given as "path.to.field=value".

  Values are Python literals ("3", "(4, 4)", "True"); what is none is taken
  as a string. Of two for one field the last counts, and only what comes out
  has to be valid.

  Args:
    config: any configuration dataclass.
    *assignments: for example "train.steps=1000" or "prior.layers=2".

  Raises:
    InputError: for a path that does not exist (the valid fields are named),
      a missing "=", or a value that the field cannot take.
  """
  values = {}
  for assignment in assignments:
    path, equals, text = assignment.partition("=")
    if not equals:
      raise InputError(f"{assignment!r} is not of the form field=value.")
    names = tuple(path.strip().split("."))
    values[names] = _value(config, names, text.strip(), path)
  return _replace(config, values)


def _replace(config, values: dict[tuple[str, ...], Any]):
  """Replaces the fields at the given paths, those of each group at once."""
  changes = {}
  for (name, *rest), value in values.items():
    changes.setdefault(name, {})[tuple(rest)] = value
  for name, inner in changes.items():
    value = inner[()] if () in inner else _replace(getattr(config, name), inner)
    changes[name] = value
  return dataclasses.replace(config, **changes)


def _value(config, path: tuple[str, ...], text: str, whole: str):
  """What `text` says the field at `path` should be."""
  name, *rest = path
  valid = field_names(config)
  if name not in valid:
    raise InputError(
      f"{type(config).__name__} has no field {name!r} (in {whole!r});"
      f" valid are: {', '.join(valid) or 'none'}."
    )
  if not rest:
    return _parse(text, typing.get_type_hints(type(config))[name], whole)
  group = getattr(config, name)
  if not dataclasses.is_dataclass(group):
    raise InputError(f"{name!r} in {whole!r} has no fields of its own.")
  return _value(group, tuple(rest), text, whole)


def _parse(text: str, hint, whole: str):
  try:
    value = ast.literal_eval(text)
  except (ValueError, SyntaxError):
    value = text
  if hint is float and type(value) is int:
    value = float(value)
  if hint is str:
    value = text
  elif isinstance(hint, types.UnionType) or dataclasses.is_dataclass(hint):
    raise InputError(f"{whole!r} is a group of fields; set those one by one.")
  if type(value) is not (typing.get_origin(hint) or hint):
    raise InputError(f"{whole}={text} should be of type {hint.__name__}.")
  return value


def field_names(config) -> list[str]:
  """Names of a dataclass's fields, in order; empty for anything else."""
  if not dataclasses.is_dataclass(config):
    return []
  return [field.name for field in dataclasses.fields(config)]


def to_dict(config) -> Any:
  """Nested dict of a configuration, each with its class name under "type"."""
  if isinstance(config, (tuple, list)):
    return [to_dict(item) for item in config]
  if not dataclasses.is_dataclass(config):
    return config
  fields = {
    name: to_dict(getattr(config, name)) for name in field_names(config)
  }
  return {"type": type(config).__name__, **fields}


def from_dict(tree) -> Any:
  """Inverse of `to_dict`.

  Raises:
    InputError: for a class or field that this version does not have.
  """
  if isinstance(tree, list):
    return tuple(from_dict(item) for item in tree)
  if not isinstance(tree, dict):
    return tree
  tree = dict(tree)
  name = tree.pop("type", None)
  if name not in _CLASSES:
    raise InputError(
      f"Unknown configuration {name!r}; valid are: {', '.join(_CLASSES)}."
    )
  try:
    return _CLASSES[name](**{k: from_dict(v) for k, v in tree.items()})
  except TypeError as error:
    raise InputError(f"{name}: {error}.") from None


def differences(old, new, prefix: str = "") -> list[str]:
  """Lines "path: old -> new" for every field in which two configs differ."""
  if type(old) is type(new) and dataclasses.is_dataclass(old):
    lines = []
    for name in field_names(old):
      path = f"{prefix}.{name}" if prefix else name
      lines += differences(getattr(old, name), getattr(new, name), path)
    return lines
  return [] if old == new else [f"{prefix}: {old!r} -> {new!r}"]
