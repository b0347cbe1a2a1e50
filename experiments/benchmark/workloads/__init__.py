"""Workloads of our own models, each measured by a function `measure`.

  subjects.py    a model with sentences to measure it on
  timing.py      repetitions, and what they say
  decoding.py, training.py, likelihood.py

A row is a rate with its range over repetitions, the median seconds, and the
matrix products that have to be computed at the least (see `roofline`).
"""
