"""Values that modules prepare once for a finished model.

A module may compute something from its parameters alone: a rounded table, the
inverse of a matrix. In training that changes at every step; of a finished model
it is the same in every call. `prepared` is for both: where the variables of a
call have a collection "inference" it takes the value from there, and where that
collection is mutable it puts it there. `models.for_inference` makes one.
"""

from collections.abc import Callable
from typing import Any

from flax import linen as nn

from latentnmt.types import Params, Variables

COLLECTION = "inference"


def variables(params: Params | Variables) -> Variables:
  """Returns what `model.apply` takes, of parameters or of all variables."""
  return params if "params" in params else {"params": params}


def prepared(module: nn.Module, name: str, make: Callable[[], Any]) -> Any:
  """Returns what was prepared for a module, None in training.

  Args:
    module: bound.
    name: of the value, which no submodule has.
    make: computes the value from the module's parameters.
  """
  if module.has_variable(COLLECTION, name):
    return module.get_variable(COLLECTION, name)
  # In `init` every collection is mutable, and there is nothing to prepare yet.
  if module.is_mutable_collection(COLLECTION) and not module.is_initializing():
    module.put_variable(COLLECTION, name, make())
  return None
