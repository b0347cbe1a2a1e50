"""latentnmt: sequence-to-sequence density estimators in JAX and Flax.

text -> Tokenizer -> tokens -> batches -> model.apply -> Terms -> loss
                                   |            |
                                   |        log_likelihood -> Estimate
                                   +-> translate -> Hypotheses -> text -> BLEU

The design in one page: `types` has the nouns, `config` the settings, `zoo` the
presets; `text` and `data` make batches, `transformer`, `priors` and `models`
make densities; `objectives` and `train` fit them, `decode` and `likelihood`
ask them for translations and for log p(y|x); `checkpoint` is the run
directory and `testing` checks priors of one's own.
"""

from latentnmt import (
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
from latentnmt.checkpoint import load
from latentnmt.config import (
  AutoregressiveConfig,
  CustomPriorConfig,
  ExperimentConfig,
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
from latentnmt.priors import GaussianPrior, Prior, StandardNormalPrior
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
  "AutoregressiveConfig",
  "AutoregressiveTransformer",
  "Batch",
  "Beam",
  "CustomPriorConfig",
  "Delta",
  "Estimate",
  "ExperimentConfig",
  "GaussianPrior",
  "GaussianPriorConfig",
  "Greedy",
  "Hypotheses",
  "InputError",
  "LatentConfig",
  "LatentTransformer",
  "Prior",
  "Source",
  "StandardNormalPrior",
  "StandardNormalPriorConfig",
  "Terms",
  "Tokenizer",
  "TrainConfig",
  "TransformerConfig",
  "bleu",
  "build",
  "checkpoint",
  "data",
  "decode",
  "distributions",
  "fit",
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
