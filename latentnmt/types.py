"""Every noun of the library, as a struct with named fields.

Letters, the same everywhere: `B` sentences, `S` source positions, `T` target
positions, `U` decoder positions (slots of a CTC, vertices of a graph), `D`
model width, `C` latent channels, `H` heads, `V` vocabulary, `K` samples, `N`
hypotheses.

Token ids are int32; 0 is padding, 1 ends a sentence (EOS). There is no BOS: a
decoder that needs a shifted target starts from PAD. A row that is all padding
stands for no sentence at all: it fills up the last batch of a corpus and has
zero tokens, zero positions and zero nats.
"""

from typing import Any

from flax import struct
import jax
import jax.numpy as jnp

PAD = 0
EOS = 1

Array = jax.Array
Key = jax.Array
Tokens = jax.Array  # int32[B, T]
Mask = jax.Array  # bool[B, T], true on real positions
Latents = jax.Array  # float[B, T, C]
Nats = jax.Array  # float32[B], summed over the sentence, never normalised
Params = Any  # a tree of arrays
Variables = Any  # collections by name, {"params": ...}, as `apply` takes them


@struct.dataclass
class Batch:
  """Source and target sentences, both ending in EOS.

  Attributes:
    x: int32[B, S].
    y: int32[B, T].
  """

  x: Tokens
  y: Tokens


@struct.dataclass
class Source:
  """A source sentence as a conditional density sees it.

  Attributes:
    states: float[B, S, D], the encoder's output.
    mask: bool[B, S], true on real source positions.
    cache: what the module that gets this has computed from it before, by a
      method `precompute` of its own; None for nothing. (In a model that has
      several such modules, that of each by its name.)
  """

  states: Array
  mask: Mask
  cache: Any = None

  def of(self, part: str) -> "Source":
    """Returns the source with the cache of one module, if it has any."""
    if self.cache is None:
      return self
    return self.replace(cache=self.cache[part])


@struct.dataclass
class Terms:
  """The pieces of an evidence lower bound, in nats per sentence.

  A model without latents has zero `log_pz`, `log_qz`, `kl` and `kl_standard`,
  and one that models the length by its structure, as an autoregressive one does
  by EOS, zero `log_pl`. Where a model is exact, `elbo` is log p(y|x) itself.

  Attributes:
    log_py: float32[B], log p(y|z, x) at one sample z of the posterior.
    log_py_uniform: float32[B], the log-probability averaged over the
      vocabulary at each position, which label smoothing mixes in.
    log_pz: float32[B], log p(z|x) at the same sample.
    log_qz: float32[B], log q(z|x, y) at the same sample.
    kl: float32[B], KL(q || p): closed form where the prior offers one, else
      log_qz - log_pz.
    kl_standard: float32[B], KL(q || N(0, I)) in closed form.
    log_pl: float32[B], log p(T|x) of the length predictor.
    num_tokens: float32[B], tokens up to and including the first EOS.
    num_positions: float32[B], positions that the model scores; larger than
      `num_tokens` where EOS is appended to reach a multiple.
    escaped: float32[B], 1 where the escape of an exact output, which reaches
      every string, has more than half of the probability; else 0.
  """

  log_py: Nats
  log_py_uniform: Nats
  log_pz: Nats
  log_qz: Nats
  kl: Nats
  kl_standard: Nats
  log_pl: Nats
  num_tokens: Array
  num_positions: Array
  escaped: Array

  @classmethod
  def without_latents(
    cls,
    log_py: Nats,
    log_py_uniform: Nats,
    num_tokens: Array,
    log_pl: Nats | None = None,
    escaped: Array | None = None,
  ) -> "Terms":
    """Returns the terms of a model without latents.

    Args:
      log_py: see `Terms`.
      log_py_uniform: see `Terms`.
      num_tokens: see `Terms`.
      log_pl: None where the model has the length in its structure.
      escaped: bool[B]; None for a model without an escape.
    """
    zero = jnp.zeros_like(log_py)
    return cls(
      log_py=log_py,
      log_py_uniform=log_py_uniform,
      log_pz=zero,
      log_qz=zero,
      kl=zero,
      kl_standard=zero,
      log_pl=zero if log_pl is None else log_pl,
      num_tokens=num_tokens,
      num_positions=num_tokens,
      escaped=zero if escaped is None else escaped.astype(jnp.float32),
    )

  @property
  def elbo(self) -> Nats:
    """Evidence lower bound on log p(y|x), the length paid for."""
    return self.given_length + self.log_pl

  @property
  def given_length(self) -> Nats:
    """Evidence lower bound on log p(y|x, T), of a given length."""
    return self.log_py - self.kl


@struct.dataclass
class Hypotheses:
  """Translations of B sentences, best first.

  Attributes:
    tokens: int32[B, N, T], each ending in EOS and padded with PAD.
    scores: float32[B, N], what they are ranked by, in nats; the decoding
      method says which quantity that is.
  """

  tokens: Array
  scores: Array


@struct.dataclass
class Estimate:
  """Figures of log p(y|x) of B sentences, in nats of each.

  Attributes:
    log_likelihood: float32[B], log p(y|x), the length paid for: the one figure
      that compares across families. Exact where the model is, else `iwae`.
    given_length: float32[B], log p(y|x, T), as the paper reports it; the same
      for a model that models the length by its structure.
    elbo: float32[B], mean over samples of the log importance weight, the
      length paid for.
    reconstruction: float32[B], mean over samples of log p(y|z, x), for a given
      length. Not a likelihood.
    lee2020: float32[B], the length-normalised, self-normalised figure of the
      paper's public code, times num_positions, for a given length. Not a
      likelihood.
    sweep: float32[B, n], `log_likelihood` at K, K/2, K/4, ..., 1 samples.
    kl: float32[B], mean over samples of log q(z|x, y) - log p(z|x).
    ess: float32[B], effective sample size of the importance weights, 1 to K.
    standard_error: float32[B], of `log_likelihood`, by the delta method.
    log_pl: float32[B], log p(T|x), the difference of the first two.
    num_tokens: float32[B], tokens up to and including the first EOS.
    num_positions: float32[B], positions the model scores.
    escaped: float32[B], as in `Terms`; where there are latents, at the mean of
      the posterior.
  """

  log_likelihood: Nats
  given_length: Nats
  elbo: Nats
  reconstruction: Nats
  lee2020: Nats
  sweep: Array
  kl: Nats
  ess: Array
  standard_error: Nats
  log_pl: Nats
  num_tokens: Array
  num_positions: Array
  escaped: Array

  def __repr__(self) -> str:
    # While JAX traces there are no numbers to show yet.
    if isinstance(self.log_likelihood, jax.core.Tracer):
      return f"Estimate({self.log_likelihood!r}, ...)"
    nats, tokens = jnp.sum(self.log_likelihood), jnp.sum(self.num_tokens)
    return (
      f"Estimate({len(self.log_likelihood)} sentences, log p(y|x)"
      f" {nats:.2f} nats, {nats / jnp.maximum(tokens, 1):.3f} a token, ESS"
      f" {jnp.median(self.ess):.1f})"
    )

  def length_paid(self, nats: Nats) -> Nats:
    """Returns a figure for a given length, say `lee2020`, the length paid."""
    return nats + self.log_pl

  def length_given(self, nats: Nats) -> Nats:
    """Returns a figure that pays for the length, say `elbo`, without that."""
    return nats - self.log_pl


@struct.dataclass
class AnnealedEstimate:
  """Figures of log p(y|x) by annealed importance sampling, in nats.

  Attributes:
    log_likelihood: float32[B], the length paid for: a lower bound in
      expectation; of chains that start from exact posterior samples, an upper
      bound in expectation.
    given_length: float32[B], the same of log p(y|x, T).
    ess: float32[B], effective sample size of the chains' weights, 1 to K.
    standard_error: float32[B], of `log_likelihood`, by the delta method. It
      does not know of the one sample that reverse chains of a sentence share.
    acceptance: float32[B], share of Hamiltonian moves accepted.
    log_pl: float32[B], log p(T|x).
    num_tokens: float32[B], tokens up to and including the first EOS.
    num_positions: float32[B], positions the model scores.
  """

  log_likelihood: Nats
  given_length: Nats
  ess: Array
  standard_error: Nats
  acceptance: Array
  log_pl: Nats
  num_tokens: Array
  num_positions: Array
