"""latentnmt: sequence-to-sequence density estimators in JAX and Flax.

text -> Tokenizer -> tokens -> batches -> model.apply -> Terms -> loss
                                   |            |
                                   |        log_likelihood -> Estimate
                                   +-> translate -> Hypotheses -> text -> BLEU

The design in one page: `types` has the nouns, `config` the settings, `zoo` the
presets; `text` and `data` make batches; `transformer`, `bijections`, `priors`
and `models` make densities; `objectives` and `train` fit them, `decode` and
`likelihood` ask them for translations and for log p(y|x); `checkpoint` is the
run directory and `testing` checks priors and bijections of one's own.
"""

from latentnmt import (
  bijections,
  checkpoint,
  data,
  decode,
  distributions,
  likelihood,
  masks,
  metrics,
  models,
  objectives,
  priors,
  testing,
  train,
  transformer,
  zoo,
)
from latentnmt.bijections import (
  ActNorm,
  Bijection,
  Chain,
  Coupling,
  Invertible1x1,
  MultiScale,
  Repeat,
  Squeeze,
)
from latentnmt.checkpoint import load
from latentnmt.config import (
  AutoregressiveConfig,
  CustomPriorConfig,
  ExperimentConfig,
  FlowPriorConfig,
  GaussianPriorConfig,
  LatentConfig,
  StandardNormalPriorConfig,
  TrainConfig,
  TransformerConfig,
  override,
)
from latentnmt.decode import (
  Beam,
  Delta,
  Greedy,
  parse_method,
  teacher_score,
  translate,
  translate_lines,
)
from latentnmt.likelihood import log_likelihood
from latentnmt.metrics import bleu
from latentnmt.models import (
  AutoregressiveTransformer,
  LatentTransformer,
  build,
  num_parameters,
)
from latentnmt.objectives import negative_elbo
from latentnmt.priors import (
  FlowPrior,
  GaussianPrior,
  Prior,
  StandardNormalPrior,
  initialise_prior,
)
from latentnmt.text import Tokenizer
from latentnmt.train import fit
from latentnmt.types import (
  Batch,
  Estimate,
  Hypotheses,
  InputError,
  Source,
  Terms,
)

__version__ = "0.1.0"

__all__ = [
  "ActNorm",
  "AutoregressiveConfig",
  "AutoregressiveTransformer",
  "Batch",
  "Beam",
  "Bijection",
  "Chain",
  "Coupling",
  "CustomPriorConfig",
  "Delta",
  "Estimate",
  "ExperimentConfig",
  "FlowPrior",
  "FlowPriorConfig",
  "GaussianPrior",
  "GaussianPriorConfig",
  "Greedy",
  "Hypotheses",
  "InputError",
  "Invertible1x1",
  "LatentConfig",
  "LatentTransformer",
  "MultiScale",
  "Prior",
  "Repeat",
  "Source",
  "Squeeze",
  "StandardNormalPrior",
  "StandardNormalPriorConfig",
  "Terms",
  "Tokenizer",
  "TrainConfig",
  "TransformerConfig",
  "bijections",
  "bleu",
  "build",
  "checkpoint",
  "data",
  "decode",
  "distributions",
  "fit",
  "initialise_prior",
  "likelihood",
  "load",
  "log_likelihood",
  "masks",
  "metrics",
  "models",
  "negative_elbo",
  "num_parameters",
  "objectives",
  "override",
  "parse_method",
  "priors",
  "teacher_score",
  "testing",
  "train",
  "transformer",
  "translate",
  "translate_lines",
  "zoo",
]
