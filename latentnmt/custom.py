"""Classes from a user's own code, by their names."""

import importlib
from typing import Any

from flax import linen as nn

from latentnmt.errors import InputError


def build_custom(
  kind: str, target: str, *args: Any, **fields: Any
) -> nn.Module:
  """Builds a module of a class that is named.

  Args:
    kind: what it is to be, for messages: "prior" or "model".
    target: "package.module:Class".
    *args: of its constructor.
    **fields: of its constructor.

  Raises:
    InputError: for a class that cannot be imported or built, or whose objects
      are no Linen modules.
  """
  module, colon, name = target.partition(":")
  if not colon:
    raise InputError(
      f"{kind}={target!r} is not of the form package.module:Class."
    )
  try:
    built = getattr(importlib.import_module(module), name)(*args, **fields)
  except InputError:
    raise
  except (ImportError, AttributeError, TypeError, ValueError) as error:
    reason = " ".join(str(error).split())
    raise InputError(
      f"Cannot build the {kind} {target!r}: {reason}."
    ) from error
  if not isinstance(built, nn.Module):
    raise InputError(f"The {kind} {target!r} is no Linen module.")
  return built
