"""Models: conditional densities p(y|x), with and without latent variables.

A model is a Linen module with one call, `model.apply(variables, batch, key)`,
which returns `Terms`. Dropout is on where a "dropout" rng is given, and that is
allowed only with `train=True`; `key` draws the posterior sample.

  protocol.py        the contract, `Model`, and what latents add to it
  autoregressive.py  AutoregressiveTransformer
  latent.py          LatentTransformer, with its length predictor in length.py
  one_pass.py        OnePassTransformer: an output's exact likelihood
  source_latent.py   SourceLatentTransformer: latents on source positions
  latent_terms.py    what latents add to a bound; upsample.py and glancing.py
                     what a non-causal decoder sees
  parameters.py      their start; what is prepared of a finished model
  build.py           from a configuration to its model
"""

from latentnmt.models.autoregressive import AutoregressiveTransformer
from latentnmt.models.build import build, num_parameters
from latentnmt.models.latent import LatentTransformer
from latentnmt.models.length import LengthPredictor
from latentnmt.models.one_pass import OnePassTransformer
from latentnmt.models.parameters import (
  abstract_params,
  count_parameters,
  example_batch,
  for_inference,
  init_params,
  initialise_prior,
  starts_from_data,
)
from latentnmt.models.protocol import (
  LatentModel,
  Model,
  TargetLatents,
  can_glance,
  can_smooth,
)
from latentnmt.models.source_latent import SourceLatentTransformer

__all__ = [
  "AutoregressiveTransformer",
  "LatentModel",
  "LatentTransformer",
  "LengthPredictor",
  "Model",
  "OnePassTransformer",
  "SourceLatentTransformer",
  "TargetLatents",
  "abstract_params",
  "build",
  "can_glance",
  "can_smooth",
  "count_parameters",
  "example_batch",
  "for_inference",
  "init_params",
  "initialise_prior",
  "num_parameters",
  "starts_from_data",
]
