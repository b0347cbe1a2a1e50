"""Classes and values from a user's own code, by their names."""

import importlib
from typing import TYPE_CHECKING, Any

from latentnmt.errors import InputError

if TYPE_CHECKING:
  from flax import linen as nn


def find_custom(kind: str, target: str) -> Any:
  """Returns what a name in a module stands for.

  Args:
    kind: what it is to be, for messages: "prior", "model" or "recipe".
    target: "package.module:NAME".

  Raises:
    InputError: for a name of another form, or one that cannot be imported.
  """
  module, colon, name = target.partition(":")
  if not colon:
    raise InputError(
      f"{kind}={target!r} is not of the form package.module:NAME."
    )
  try:
    return getattr(importlib.import_module(module), name)
  except (ImportError, AttributeError, TypeError, ValueError) as error:
    raise _refusal(kind, target, error) from error


def build_custom(
  kind: str, target: str, *args: Any, **fields: Any
) -> "nn.Module":
  """Builds a module of a class that is named.

  Args:
    kind: as `find_custom` takes it.
    target: "package.module:Class".
    *args: of its constructor.
    **fields: of its constructor.

  Raises:
    InputError: for a class that cannot be imported or built, or whose objects
      are no Linen modules.
  """
  from flax import linen as nn  # imports JAX, for which a recipe does not wait

  try:
    built = find_custom(kind, target)(*args, **fields)
  except (AttributeError, TypeError, ValueError) as error:
    raise _refusal(kind, target, error) from error
  if not isinstance(built, nn.Module):
    raise InputError(f"The {kind} {target!r} is no Linen module.")
  return built


def _refusal(kind: str, target: str, error: Exception) -> InputError:
  """Says why a name is of no use; a user's own refusal stays as it is."""
  if isinstance(error, InputError):
    return error
  reason = " ".join(str(error).split())
  return InputError(f"Cannot build the {kind} {target!r}: {reason}.")
