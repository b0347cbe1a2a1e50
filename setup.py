"""Says where the packages lie; all else is in pyproject.toml."""

from setuptools import find_packages, setup

# The binaries lie beside the library and are installed inside it, so that no
# other name than `latentnmt` is taken at the top level.
setup(
  packages=[
    *find_packages(include=["latentnmt", "latentnmt.*"]),
    "latentnmt.experiments",
    *("latentnmt." + name for name in find_packages(include=["experiments.*"])),
  ],
  package_dir={"latentnmt.experiments": "experiments"},
  package_data={"latentnmt": ["*.pyi", "py.typed", "assets/*", "assets/**/*"]},
)
