"""Checks of what one brings oneself, and small inputs to try it on.

The library's own tests call these functions too. Each check raises an
`AssertionError` that says which property fails.

  check_model, check_prior, check_bijection,
  check_output                                the contracts
  check_start                                 can training leave its start?
  random_batch, perturb                       inputs
"""

from latentnmt.testing.assertions import check_start
from latentnmt.testing.bijections import check_bijection
from latentnmt.testing.inputs import perturb, random_batch
from latentnmt.testing.models import check_model
from latentnmt.testing.outputs import check_output
from latentnmt.testing.priors import check_prior

__all__ = [
  "check_bijection",
  "check_model",
  "check_output",
  "check_prior",
  "check_start",
  "perturb",
  "random_batch",
]
