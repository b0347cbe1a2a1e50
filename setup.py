"""Installs latentnmt; the tools' settings are in pyproject.toml."""

from setuptools import find_packages, setup

setup(
  name="latentnmt",
  version="0.2.0",
  description=(
    "Sequence-to-sequence density estimators in JAX: how good is p(y|x), how"
    " good are its translations, and do the two agree?"
  ),
  license="Apache-2.0",
  python_requires=">=3.11",
  packages=[
    *find_packages(include=["latentnmt", "latentnmt.*"]),
    "latentnmt.experiments",
    *("latentnmt." + name for name in find_packages(include=["experiments.*"])),
  ],
  package_dir={"latentnmt.experiments": "experiments"},
  package_data={"latentnmt": ["*.pyi", "py.typed", "assets/*", "assets/**/*"]},
  install_requires=[
    "absl-py>=2.1",
    "flax>=0.12.4,<0.13",
    "jax>=0.10.0,<0.13",
    "lazy-loader>=0.4",
    "numpy>=2.0",
    "optax>=0.2.5",
    "orbax-checkpoint>=0.11.30,<1.0",
    "sacrebleu>=2.4",
    "scipy>=1.14",
    "sentencepiece>=0.2.0",
    "tqdm>=4.60",
  ],
  extras_require={
    "test": [
      "chex>=0.1.90",
      "matplotlib>=3.8",
      "pytest>=8",
      "pytest-xdist>=3.6",
      "ruff>=0.6",
      "scikit-learn>=1.5",
      "tensorboardX>=2.6",
      "tensorflow-datasets>=4.9.10",
    ],
    "plots": ["matplotlib>=3.8", "scikit-learn>=1.5"],
    # Reading what is prepared takes the first alone. TFDS prepares WMT with
    # the second, too, without asking for it.
    "tfds": [
      "tensorflow-datasets>=4.9.10",
      "importlib_resources>=6",
      "tensorflow-cpu>=2.20; sys_platform != 'darwin'",
      "tensorflow>=2.20; sys_platform == 'darwin'",
    ],
    # What `benchmark --peers` compares with.
    "peers": ["ctranslate2>=4.5", "torch>=2.4", "transformers>=4.45"],
    "tensorboard": ["tensorboardX>=2.6"],
    "notebooks": ["ipykernel>=6", "jupyterlab>=4"],
  },
)
