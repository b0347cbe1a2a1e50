"""log p(y|x): exact where a model allows, by importance weights elsewhere.

Each of K samples z_k of the posterior q(z|x, y) gives a sentence three numbers,
log p(y|z_k, x), log p(z_k|x) and log q(z_k|x, y). Every estimator is made of
them. With l = log p(y|z, x), u = log p(z|x) - log q(z|x, y):

  iwae             log 1/K sum_k exp(l_k + u_k)   (Burda et al. 2016)
  elbo             1/K sum_k (l_k + u_k)
  reconstruction   1/K sum_k l_k
  lee2020          L log [sum_k exp((l_k + u_k)/L) / sum_k exp(u_k/L)]
  sweep            iwae at K, K/2, K/4, ..., 1 samples
  extrapolate      what the sweep seems to tend to

In expectation `elbo` <= `iwae` <= log p(y|x). As K grows `iwae` closes the gap,
slowly where latents are many and q is not exact; `annealed` closes it by moving
the samples. `reconstruction` and `lee2020` are not likelihoods: they leave out
what it costs to name z, about KL(q || p) nats. `extrapolate` is no bound.

  estimators.py   pure functions of the weights
  importance.py   log_likelihood: the weights of a batch
  annealing.py    annealed, simulate: annealed importance sampling
  corpus.py       both, of lines of text
"""

from latentnmt.likelihood.annealing import annealed, simulate
from latentnmt.likelihood.corpus import annealed_lines, log_likelihood_lines
from latentnmt.likelihood.estimators import (
  effective_sample_size,
  elbo,
  extrapolate,
  iwae,
  lee2020,
  reconstruction,
  standard_error,
  sweep,
  sweep_sizes,
)
from latentnmt.likelihood.importance import (
  CHUNK_BYTES,
  default_chunk,
  log_likelihood,
)

__all__ = [
  "CHUNK_BYTES",
  "annealed",
  "annealed_lines",
  "default_chunk",
  "effective_sample_size",
  "elbo",
  "extrapolate",
  "iwae",
  "lee2020",
  "log_likelihood",
  "log_likelihood_lines",
  "reconstruction",
  "simulate",
  "standard_error",
  "sweep",
  "sweep_sizes",
]
