"""The face of the package; see `__init__.py`."""

from . import (
  bijections,
  checkpoint,
  closed_forms,
  config,
  data,
  decode,
  distributions,
  errors,
  files,
  inference,
  keys,
  likelihood,
  masks,
  matmul,
  metrics,
  models,
  objectives,
  outputs,
  priors,
  runs,
  schedules,
  sharding,
  testing,
  text,
  train,
  transformer,
  types,
  zoo,
)
from .bijections import (
  ActNorm,
  Bijection,
  Chain,
  Coupling,
  Invertible1x1,
  MultiScale,
  Repeat,
  Squeeze,
)
from .checkpoint import load
from .config import (
  AutoregressiveConfig,
  CtcConfig,
  CustomModelConfig,
  CustomOutputConfig,
  CustomPriorConfig,
  DagConfig,
  ExperimentConfig,
  FactorisedConfig,
  FlowPriorConfig,
  GaussianPriorConfig,
  LatentConfig,
  OnePassConfig,
  SourceLatentConfig,
  StandardNormalPriorConfig,
  TrainConfig,
  TransformerConfig,
  override,
)
from .decode import (
  Beam,
  Delta,
  Greedy,
  Lookahead,
  PrefixBeam,
  Sample,
  Viterbi,
  parse_method,
  teacher_score,
  translate,
  translate_lines,
)
from .errors import InputError
from .likelihood import log_likelihood
from .metrics import bleu
from .models import (
  AutoregressiveTransformer,
  LatentModel,
  LatentTransformer,
  Model,
  OnePassTransformer,
  SourceLatentTransformer,
  build,
  for_inference,
  initialise_prior,
  num_parameters,
)
from .objectives import negative_elbo
from .outputs import Ctc, Dag, Factorised, Output
from .priors import (
  FlowPrior,
  GaussianPrior,
  Prior,
  StandardNormalPrior,
)
from .runs import Result, RunDirectory
from .text import Tokenizer
from .train import fit
from .types import (
  Batch,
  Estimate,
  Hypotheses,
  Source,
  Terms,
)
