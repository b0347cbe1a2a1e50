"""The face of the package: everything public is there and documented."""

import importlib
import inspect
import pkgutil
import subprocess
import sys

import pytest

import latentnmt

MODULES = [latentnmt.__name__] + [
  module.name
  for module in pkgutil.walk_packages(latentnmt.__path__, "latentnmt.")
]


def documented(thing) -> bool:
  """Whether it has a docstring, and not one that `dataclass` made up."""
  doc = (thing.__doc__ or "").strip()
  return bool(doc) and not doc.startswith(f"{thing.__name__}(")


def public_things(module):
  """(name, thing) of functions and classes of a module and their methods."""
  for name, thing in vars(module).items():
    if name.startswith("_") or getattr(thing, "__module__", "") != (
      module.__name__
    ):
      continue
    if inspect.isfunction(inspect.unwrap(thing)) or inspect.isclass(thing):
      yield name, thing
    if inspect.isclass(thing):
      yield from public_methods(module, thing)


def public_methods(module, cls):
  for name, member in vars(cls).items():
    if isinstance(member, property):
      member = member.fget
    member = getattr(member, "__func__", member)
    # Linen's `setup` only names what the class's docstring describes.
    if name.startswith("_") or name == "setup":
      continue
    if inspect.isfunction(member) and member.__module__ == module.__name__:
      yield f"{cls.__name__}.{name}", member


def test_every_name_of_the_face_is_there_and_documented():
  for name in latentnmt.__all__:
    assert documented(getattr(latentnmt, name)), name


def test_the_face_is_sorted_and_without_repetition():
  assert latentnmt.__all__ == sorted(set(latentnmt.__all__))


def test_the_face_alone_imports_no_jax():
  program = (
    "import sys, latentnmt as ln; ln.TrainConfig, ln.RunDirectory, dir(ln);"
    " assert 'jax' not in sys.modules; ln.translate; import jax"
  )
  subprocess.run([sys.executable, "-c", program], check=True)
  with pytest.raises(AttributeError, match="wings"):
    _ = latentnmt.wings


@pytest.mark.parametrize("name", MODULES)
def test_public_things_are_documented(name):
  module = importlib.import_module(name)
  assert documented(module)
  bare = [n for n, thing in public_things(module) if not documented(thing)]
  assert not bare, f"{name}: {', '.join(bare)}"
