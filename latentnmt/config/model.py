"""Configuration of models and of their parts."""

import dataclasses

from latentnmt.config.outputs import (
  CtcConfig,
  OutputConfig,
  check_output_heads,
)
from latentnmt.config.ranges import check_ranges
from latentnmt.errors import InputError


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
  """Sizes and settings that every stack of layers in a model shares.

  Attributes:
    vocab_size: V, rows of the one embedding that source, target and softmax
      share.
    width: D, the width of the model.
    hidden: width of the feed-forward layer.
    heads: H, attention heads; must divide `width`.
    dropout: on embeddings and on what each sub-layer adds.
    attention_dropout: on attention weights.
    hidden_dropout: inside the feed-forward layer.
    shared_dropout: whether one draw of dropout serves a whole sentence, and of
      attention weights all sentences and heads, as in the paper's public code:
      the fewest random numbers. Draws of their own teach more from the same
      data, at the cost of drawing them.
    max_length: longest source or target, in tokens with EOS, that the model
      takes in evaluation and decoding.
    scan_layers: compile one layer and scan it, rather than unroll them all.
    remat: recompute activations in the backward pass to save memory.
    dtype: compute dtype, "float32" or "bfloat16"; parameters, softmax and
      everything that becomes a nat stay float32.
    matmul_dtype: "bfloat16" rounds what linear maps, the softmax and attention
      to the caches of a search multiply; sums and activations stay float32.
      Fast on a CPU with AVX512-BF16; on accelerators use `dtype`.
  """

  vocab_size: int
  width: int = 512
  hidden: int = 2048
  heads: int = 8
  dropout: float = 0.1
  attention_dropout: float = 0.1
  hidden_dropout: float = 0.1
  shared_dropout: bool = True
  max_length: int = 256
  scan_layers: bool = True
  remat: bool = False
  dtype: str = "float32"
  matmul_dtype: str = "float32"

  def __post_init__(self):
    check_ranges(self)
    if self.width % (2 * self.heads):
      raise InputError(
        f"heads={self.heads} must divide width={self.width} into heads of an"
        " even size."
      )
    for name in ("dtype", "matmul_dtype"):
      value = getattr(self, name)
      if value not in ("float32", "bfloat16"):
        raise InputError(
          f"{name}={value!r}; valid are 'float32' and 'bfloat16'."
        )

  @property
  def operand_dtype(self) -> str:
    """Dtype of the numbers that linear maps and the softmax multiply."""
    rounded = "bfloat16" in (self.dtype, self.matmul_dtype)
    return "bfloat16" if rounded else "float32"


@dataclasses.dataclass(frozen=True)
class AutoregressiveConfig:
  """An encoder and a causal decoder (Vaswani et al. 2017), pre-norm.

  Attributes:
    transformer: sizes shared by both stacks.
    encoder_layers: of the source encoder.
    decoder_layers: of the decoder.
    family: what models are grouped by in a report.
  """

  transformer: TransformerConfig
  encoder_layers: int = 6
  decoder_layers: int = 6
  family: str = "autoregressive"

  def __post_init__(self):
    check_ranges(self)


@dataclasses.dataclass(frozen=True)
class StandardNormalPriorConfig:
  """p(z|x) = N(0, I); no parameters.

  Attributes:
    family: what models with this prior are grouped by in a report.
  """

  family: str = "standard normal prior"


@dataclasses.dataclass(frozen=True)
class GaussianPriorConfig:
  """Diagonal Gaussian p(z|x) of a Transformer decoder over positions.

  Attributes:
    layers: of the decoder.
    family: what models with this prior are grouped by in a report.
  """

  layers: int = 3
  family: str = "Gaussian prior"

  def __post_init__(self):
    check_ranges(self)


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
    family: what models with this prior are grouped by in a report.
  """

  steps: tuple[int, ...] = (4, 8, 8)
  plans: tuple[str, ...] = ("cat", "cat", "ca")
  hidden: int = 640
  heads: int = 8
  coupling: str = "affine"
  remat: bool = False
  family: str = "flow prior"

  def __post_init__(self):
    if not all(type(times) is int for times in self.steps):
      raise InputError(f"steps={self.steps}; they should be whole numbers.")
    check_ranges(self)
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
    family: what models with this prior are grouped by in a report.
  """

  target: str
  fields: tuple = ()
  family: str = "custom prior"


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
    check_ranges(self)

  @property
  def family(self) -> str:
    """Group of the model in a report: that of the prior."""
    return self.prior.family


@dataclasses.dataclass(frozen=True)
class OnePassConfig:
  """An encoder, a non-causal decoder and an output; no latents.

  Attributes:
    transformer: sizes shared by both stacks.
    encoder_layers: of the source encoder.
    decoder_layers: of the decoder.
    output: how the decoder's positions become a string.
    max_length_difference: as in `LatentConfig`; read only where the output is
      of a given length.
    length_gradient: as in `LatentConfig`, likewise.
  """

  transformer: TransformerConfig
  encoder_layers: int = 6
  decoder_layers: int = 6
  output: OutputConfig = CtcConfig()
  max_length_difference: int = 30
  length_gradient: bool = False

  def __post_init__(self):
    check_ranges(self)
    check_output_heads(self.output, self.transformer.width)

  @property
  def family(self) -> str:
    """Group of the model in a report: that of the output."""
    return self.output.family


@dataclasses.dataclass(frozen=True)
class SourceLatentConfig:
  """Latents on source positions, and an output that models the length.

  Attributes:
    transformer: sizes shared by every stack.
    encoder_layers: of the source encoder.
    posterior_layers: of q(z|x, y), and of its encoder of y.
    decoder_layers: of p(y|z, x).
    output: how the decoder's positions become a string.
    channels: C, latent channels per source position.
    prior: configuration of p(z|x).
    posterior_gain: as in `LatentConfig`.
    posterior_word_dropout: as in `LatentConfig`.
  """

  transformer: TransformerConfig
  encoder_layers: int = 6
  posterior_layers: int = 3
  decoder_layers: int = 6
  output: OutputConfig = CtcConfig()
  channels: int = 8
  prior: PriorConfig = GaussianPriorConfig()
  posterior_gain: float = 0.0
  posterior_word_dropout: float = 0.2

  def __post_init__(self):
    check_ranges(self)
    check_output_heads(self.output, self.transformer.width)

  @property
  def family(self) -> str:
    """Group of the model in a report: those of output and prior."""
    return f"{self.output.family}, {self.prior.family}"


@dataclasses.dataclass(frozen=True)
class CustomModelConfig:
  """A model from the user's own code.

  Attributes:
    target: "package.module:Class", built as `Class(config, **fields)` with
      this configuration.
    transformer: sizes; whatever the model is made of, its vocabulary and its
      longest sentence stand here, and the width by which the learning rate is
      scaled.
    fields: further constructor arguments as (name, value) pairs.
    family: what models are grouped by in a report.
  """

  target: str
  transformer: TransformerConfig
  fields: tuple = ()
  family: str = "custom"


ModelConfig = (
  AutoregressiveConfig
  | LatentConfig
  | OnePassConfig
  | SourceLatentConfig
  | CustomModelConfig
)
