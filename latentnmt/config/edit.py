"""Changing a configuration, and writing it as JSON."""

import ast
import dataclasses
import types
import typing
from typing import Any

from latentnmt.config import model, outputs, train
from latentnmt.errors import InputError

_CLASSES = {
  cls.__name__: cls
  for cls in (
    *(model.TransformerConfig, train.TrainConfig, train.ExperimentConfig),
    *typing.get_args(model.PriorConfig),
    *typing.get_args(outputs.OutputConfig),
    *typing.get_args(model.ModelConfig),
  )
}

# Fields that earlier versions wrote by another name.
_RENAMED = {"TransformerConfig": {"products": "matmul_dtype"}}


def override(config, *assignments: str):
  """Returns `config` with fields replaced, given as "path.to.field=value".

  Values are Python literals ("3", "(4, 4)", "True"); what is none is taken
  as a string. Of two for one field the last counts, and only what comes out
  has to be valid.

  Args:
    config: any configuration dataclass.
    *assignments: for example "train.steps=1000" or "prior.layers=2".

  Raises:
    InputError: for a path that does not exist (the valid fields are named),
      a missing "=", or a value that the field cannot take.
  """
  values = {}
  for assignment in assignments:
    path, equals, text = assignment.partition("=")
    if not equals:
      raise InputError(f"{assignment!r} is not of the form field=value.")
    names = tuple(path.strip().split("."))
    values[names] = _value(config, names, text.strip(), path)
  return _replace(config, values)


def _replace(config, values: dict[tuple[str, ...], Any]):
  """Replaces the fields at the given paths, those of each group at once."""
  changes = {}
  for (name, *rest), value in values.items():
    changes.setdefault(name, {})[tuple(rest)] = value
  for name, inner in changes.items():
    value = inner[()] if () in inner else _replace(getattr(config, name), inner)
    changes[name] = value
  return dataclasses.replace(config, **changes)


def _value(config, path: tuple[str, ...], text: str, whole: str):
  """Returns the value that `text` gives to the field at `path`."""
  name, *rest = path
  valid = field_names(config)
  if name not in valid:
    raise InputError(
      f"{type(config).__name__} has no field {name!r} (in {whole!r});"
      f" valid are: {', '.join(valid) or 'none'}."
    )
  if not rest:
    return _parse(text, typing.get_type_hints(type(config))[name], whole)
  group = getattr(config, name)
  if not dataclasses.is_dataclass(group):
    raise InputError(f"{name!r} in {whole!r} has no fields of its own.")
  return _value(group, tuple(rest), text, whole)


def _parse(text: str, hint, whole: str):
  try:
    value = ast.literal_eval(text)
  except (ValueError, SyntaxError):
    value = text
  if hint is float and type(value) is int:
    value = float(value)
  # A field of text takes "3" as it stands.
  if hint is str:
    value = text
  elif isinstance(hint, types.UnionType) or dataclasses.is_dataclass(hint):
    raise InputError(f"{whole!r} is a group of fields; set those one by one.")
  # Exact types: True is an int to `isinstance`, and no number of layers.
  if type(value) is not (typing.get_origin(hint) or hint):
    raise InputError(f"{whole}={text} should be of type {hint.__name__}.")
  return value


def field_names(config) -> list[str]:
  """Returns the names of a dataclass's fields; none for anything else."""
  if not dataclasses.is_dataclass(config):
    return []
  return [field.name for field in dataclasses.fields(config)]


def to_dict(config) -> Any:
  """Returns nested dicts, each with its class name under "type"."""
  if isinstance(config, (tuple, list)):
    return [to_dict(item) for item in config]
  if not dataclasses.is_dataclass(config):
    return config
  fields = {
    name: to_dict(getattr(config, name)) for name in field_names(config)
  }
  return {"type": type(config).__name__, **fields}


def from_dict(tree) -> Any:
  """Returns the configuration that `to_dict` wrote, also in older versions.

  Raises:
    InputError: for a class or field that this version does not have.
  """
  if isinstance(tree, list):
    return tuple(from_dict(item) for item in tree)
  if not isinstance(tree, dict):
    return tree
  tree = dict(tree)
  name = tree.pop("type", None)
  if name not in _CLASSES:
    raise InputError(
      f"Unknown configuration {name!r}; valid are: {', '.join(_CLASSES)}."
    )
  renamed = _RENAMED.get(name, {})
  fields = {renamed.get(k, k): from_dict(v) for k, v in tree.items()}
  try:
    return _CLASSES[name](**fields)
  except TypeError as error:
    raise InputError(f"{name}: {error}.") from None


def flatten(config, prefix: str = "") -> dict[str, Any]:
  """Returns every setting by its path, "train.steps", and each group's type."""
  if not dataclasses.is_dataclass(config):
    return {prefix: config}
  flat = {f"{prefix}.type".lstrip("."): type(config).__name__}
  for name in field_names(config):
    path = f"{prefix}.{name}".lstrip(".")
    flat |= flatten(getattr(config, name), path)
  return flat
