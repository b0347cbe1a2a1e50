"""Training: `fit` from prepared data to a finished run directory.

`make_train_step` is the pure step behind it, for loops of one's own.
"""

from latentnmt.train.evaluation import Dev, quick_method
from latentnmt.train.loop import as_trained, fit
from latentnmt.train.step import (
  Programs,
  TrainState,
  init_state,
  make_gradient,
  make_initialise,
  make_optimizer,
  make_train_step,
  make_update,
  step_key,
)

__all__ = [
  "Dev",
  "Programs",
  "TrainState",
  "as_trained",
  "fit",
  "init_state",
  "make_gradient",
  "make_initialise",
  "make_optimizer",
  "make_train_step",
  "make_update",
  "quick_method",
  "step_key",
]
