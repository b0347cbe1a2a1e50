"""Strict JAX on CPU, for the tests and for the processes that they start."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
# The tests compile much and run little: three times faster compilation is
# worth steps of half the speed.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
