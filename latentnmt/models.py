"""The two model families: p(y|x) with and without latent variables.

Both are Linen modules with one call, `model.apply(variables, batch, key)`,
which returns `Terms`. Dropout is on where a "dropout" rng is given, and that
is allowed only with `train=True`; `key` draws the posterior sample.
"""

import functools
import math

from flax import linen as nn
import jax
import jax.numpy as jnp

from latentnmt import config as cfg
from latentnmt import distributions
from latentnmt.bijections import memory_of, recall, with_inverses
from latentnmt.embedding import Embedding
from latentnmt.masks import (
  append_eos,
  lengths,
  masked_sum,
  real_mask,
  round_up,
  shift_right,
  token_mask,
)
from latentnmt.priors import build_prior
from latentnmt.transformer import (
  Cache,
  DecoderStack,
  Dropout,
  EncoderStack,
  Steps,
  WeightNormDense,
  add_positions,
  apart,
  sinusoids,
)
from latentnmt.types import (
  Array,
  Batch,
  InputError,
  Key,
  Latents,
  Mask,
  Nats,
  Params,
  Source,
  Terms,
  Tokens,
)


def build(config: cfg.ModelConfig) -> nn.Module:
  """The model that a configuration describes."""
  match config:
    case cfg.AutoregressiveConfig():
      return AutoregressiveTransformer(config)
    case cfg.LatentConfig():
      return LatentTransformer(config)


@functools.partial(jax.jit, static_argnums=0)
def for_inference(model: nn.Module, params: Params) -> Params:
  """Parameters as a finished model computes fastest with them.

  Layers are apart rather than stacked; what products see rounded is rounded,
  and the matrices of a flow's convolutions are inverted, here rather than in
  every call. What a model computes is the same, but for rounding; there is more
  to compile, which pays where single sentences have to be quick. They are not
  to be trained further. A prior of one's own stays as it is.

  Args:
    model: either family.
    params: as trained.
  """
  sizes = model.config.transformer

  def prepared(tree: Params | Array) -> Params | Array:
    if not isinstance(tree, dict):
      return tree
    if "table" in tree and sizes.product_dtype != "float32":
      return tree | {"multiplied": tree["table"].astype(sizes.product_dtype)}
    return {
      name: apart(value, sizes) if stacked(name, value) else prepared(value)
      for name, value in tree.items()
    }

  def stacked(name: str, value: Params | Array) -> bool:
    return name == "layers" and "feed_forward" in value

  known = dict(params)
  if not _knows_prior(model):
    known.pop("prior", None)
  return params | with_inverses(prepared(known))


def _knows_prior(model: nn.Module) -> bool:
  """Whether a model has no prior but, if any, one that this package makes."""
  if not isinstance(model, LatentTransformer):
    return True
  own = isinstance(model.config.prior, cfg.CustomPriorConfig)
  return not own and model.prior == build_prior(model.config)


class Encoder(nn.Module):
  """Source tokens to `Source`."""

  config: cfg.TransformerConfig
  num_layers: int

  def setup(self):
    self.stack = EncoderStack(self.config, self.num_layers)

  def __call__(self, embedding: Embedding, x: Tokens) -> Source:
    """Encodes int32[B, S]."""
    mask = token_mask(x)
    return Source(self.stack(add_positions(embedding(x)), mask), mask)


class AutoregressiveTransformer(nn.Module):
  """The log p(y|x) = sum over t of log p(y_t | y_<t, x), exactly."""

  config: cfg.AutoregressiveConfig

  def setup(self):
    c = self.config
    self.embedding = Embedding(c.transformer)
    self.encoder = Encoder(c.transformer, c.encoder_layers)
    self.decoder = DecoderStack(c.transformer, c.decoder_layers, causal=True)

  def __call__(self, batch: Batch, key: Key, train: bool = False) -> Terms:
    """Terms of a teacher-forced pass, nats per sentence; `key` is not used.

    Raises:
      ValueError: for a "dropout" rng without `train`.
    """
    _check_dropout(self, train)
    source = self.encode(batch.x)
    mask = token_mask(batch.y)
    x = add_positions(self.embedding(shift_right(batch.y)))
    states = self.decoder(x, mask, self.decoder.memory(source))
    log_py, uniform = self.embedding.log_probs(states, batch.y)
    count = lengths(mask).astype(jnp.float32)
    zero = jnp.zeros_like(count)
    return Terms(
      log_py=masked_sum(log_py, mask),
      log_py_uniform=masked_sum(uniform, mask),
      log_pz=zero,
      log_qz=zero,
      kl=zero,
      kl_standard=zero,
      log_pl=zero,
      num_tokens=count,
      num_positions=count,
    )

  def encode(self, x: Tokens) -> Source:
    """Encodes int32[B, S]."""
    return self.encoder(self.embedding, x)

  def start(
    self, x: Tokens, length: int, hypotheses: int
  ) -> tuple[Steps, tuple[Cache, ...]]:
    """What steps share, and empty caches for `length` steps."""
    memory = self.decoder.memory(self.encode(x))
    return self.decoder.start(memory, length, hypotheses)

  def step(
    self,
    tokens: Tokens,
    t: Array,
    caches: tuple[Cache, ...],
    history: Mask,
    steps: Steps,
  ) -> tuple[Array, tuple[Cache, ...]]:
    """Logits after one more token of each of N hypotheses a sentence.

    Args:
      tokens: int32[B, N], the token before position t (PAD at t = 0).
      t: int32 scalar.
      caches: of the positions before.
      history: bool[B, N, T, N], see `DecoderStack.step`.
      steps: as `start` gives it.

    Returns:
      float32[B, N, V] and the caches with position t in them.
    """
    x = self.embedding(tokens)
    signal = sinusoids(history.shape[2], x.shape[-1]).astype(x.dtype)
    x += jax.lax.dynamic_index_in_dim(signal, t)[None]
    states, caches = self.decoder.step(x, t, caches, history, steps)
    return self.embedding.logits(states), caches


class LengthPredictor(nn.Module):
  """p(T|x): a classifier of T - S on the mean of the source states.

  Two hidden layers, 2 `bound` + 1 classes. A class that would give no positive
  multiple of `multiple` is impossible.

  Of any 2 `bound` + 1 lengths in a row, two or more must be multiples.
  """

  width: int
  bound: int
  multiple: int
  gradient: bool

  @nn.compact
  def __call__(self, source: Source) -> Array:
    """float32[B, 2 bound + 1]: log-probability of each class."""
    states, mask = source.states.astype(jnp.float32), source.mask[..., None]
    if not self.gradient:
      states = jax.lax.stop_gradient(states)
    count = jnp.maximum(jnp.sum(mask, axis=1), 1)
    h = jnp.sum(jnp.where(mask, states, 0), axis=1) / count
    h = nn.elu(nn.Dense(self.width)(h))
    h = nn.elu(nn.Dense(self.width)(h))
    logits = nn.Dense(2 * self.bound + 1)(h)
    return nn.log_softmax(jnp.where(self._possible(source), logits, -1e9))

  def log_prob(self, length: Array, source: Source, spread: bool) -> Nats:
    """float32[B]: log p(T|x) of the target lengths int32[B], in nats.

    A length beyond the classes counts as its nearest class. With `spread`,
    an end class gives half its mass to its own length, a quarter to the next
    beyond and so on (downwards the shortest possible length takes the rest),
    so that p(T|x) sums to one over all lengths and is never zero.
    """
    log_probs, lowest, highest = self._range(source)
    nearest = jnp.clip(length, lowest, highest)
    index = nearest - lengths(source.mask) + self.bound
    log_prob = jnp.take_along_axis(log_probs, index[:, None], axis=1)[:, 0]
    if not spread:
      return log_prob
    return log_prob + self._tail(length, lowest, highest)

  def best(self, source: Source, count: int) -> tuple[Array, Nats]:
    """The `count` likeliest lengths, int32[B, count], and log p of each."""
    log_probs, classes = jax.lax.top_k(self(source), count)
    length = lengths(source.mask)[:, None] + classes - self.bound
    return round_up(jnp.maximum(length, 1), self.multiple), log_probs

  def _possible(self, source: Source) -> Mask:
    length = self._lengths(source)
    return (length > 0) & (length % self.multiple == 0)

  def _lengths(self, source: Source) -> Array:
    classes = jnp.arange(-self.bound, self.bound + 1)
    return lengths(source.mask)[:, None] + classes[None, :]

  def _range(self, source: Source):
    log_probs = self(source)
    possible, length = self._possible(source), self._lengths(source)
    lowest = jnp.min(jnp.where(possible, length, 1 << 30), axis=1)
    return log_probs, lowest, jnp.max(jnp.where(possible, length, 0), axis=1)

  def _tail(self, length: Array, lowest: Array, highest: Array) -> Nats:
    above = jnp.maximum(length - highest, 0) // self.multiple
    below = jnp.maximum(lowest - length, 0) // self.multiple
    depth = lowest // self.multiple - 1  # how many shorter lengths there are
    halvings_above = jnp.where(length >= highest, above + 1, 0)
    halvings_below = jnp.where(
      length <= lowest, jnp.minimum(below + 1, depth), 0
    )
    return -math.log(2.0) * (halvings_above + halvings_below)


class LatentTransformer(nn.Module):
  """p(y|x, T) = E over p(z|x) of prod over t of p(y_t|z, x).

  One latent vector of C channels for each target position; see Eq. 1 and 2 of
  the paper. Targets are filled up with EOS to a multiple of `length_multiple`.

  Attributes:
    config: sizes.
    prior: any module with the `Prior` contract; by default the one that
      `config.prior` describes.

  Raises:
    InputError: for a prior of other channels than the configuration's, or
      too small a `max_length_difference` for `length_multiple`.
  """

  config: cfg.LatentConfig
  prior: nn.Module | None = None

  def __post_init__(self):
    if self.prior is None:
      object.__setattr__(self, "prior", build_prior(self.config))
    super().__post_init__()
    self._check()

  def _check(self):
    channels, prior = self.config.channels, self.prior.channels
    if prior != channels:
      raise InputError(
        f"The prior has channels={prior} and the model channels={channels};"
        " make them equal."
      )
    if self.most_lengths < 2:
      bound, multiple = self.config.max_length_difference, self.length_multiple
      raise InputError(
        f"max_length_difference={bound} leaves no choice between target lengths"
        f" that are multiples of {multiple}; set it to {multiple} or more."
      )

  @property
  def length_multiple(self) -> int:
    """Least common multiple of the configuration's and the prior's."""
    return math.lcm(self.config.length_multiple, self.prior.length_multiple)

  @property
  def most_lengths(self) -> int:
    """How many target lengths `best_lengths` can tell apart."""
    classes = 2 * self.config.max_length_difference + 1
    return classes // self.length_multiple

  def setup(self):
    c = self.config
    transformer = c.transformer
    self.embedding = Embedding(transformer)
    self.encoder = Encoder(transformer, c.encoder_layers)
    self.length = LengthPredictor(
      transformer.width,
      c.max_length_difference,
      self.length_multiple,
      c.length_gradient,
    )
    self.word_dropout = Dropout(c.posterior_word_dropout, shared=(-1,))
    self.posterior_stack = DecoderStack(transformer, c.posterior_layers)
    self.posterior_out = WeightNormDense(
      2 * c.channels, functools.partial(_mean_gain, c.posterior_gain)
    )
    self.decoder = DecoderStack(transformer, c.decoder_layers)
    if c.channels != transformer.width:
      self.from_latents = nn.Dense(transformer.width, dtype=transformer.dtype)

  def __call__(self, batch: Batch, key: Key, train: bool = False) -> Terms:
    """Terms at one posterior sample drawn with `key`, nats per sentence.

    Raises:
      ValueError: for a "dropout" rng without `train`.
    """
    _check_dropout(self, train)
    source = self.encode(batch.x)
    y, mask = self.targets(batch.y)
    mean, scale = self.posterior(y, mask, source)
    z = mean + scale * jax.random.normal(key, mean.shape)
    log_py, uniform = self._log_probs(z, y, mask, source)
    # There is no data in `init`: a prior that starts from some waits.
    seen = mask & (not self.is_initializing())
    log_pz = self.prior.log_prob(z, seen, source)
    log_qz = masked_sum(distributions.normal_log_prob(z, mean, scale), mask)
    if hasattr(self.prior, "kl"):
      kl = self.prior.kl(mean, scale, mask, source)
    else:
      kl = log_qz - log_pz
    return Terms(
      log_py=log_py,
      log_py_uniform=uniform,
      log_pz=log_pz,
      log_qz=log_qz,
      kl=kl,
      kl_standard=masked_sum(
        distributions.kl_standard_normal(mean, scale), mask
      ),
      log_pl=self.log_prob_length(mask, source, spread=not train),
      num_tokens=lengths(real_mask(y)).astype(jnp.float32),
      num_positions=lengths(mask).astype(jnp.float32),
    )

  def encode(self, x: Tokens) -> Source:
    """Encodes int32[B, S]."""
    return self.encoder(self.embedding, x)

  def remember(self, x: Tokens) -> Source:
    """Encodes int32[B, S], with what all parts compute from the source alone.

    For whoever goes on to call the model's methods often, but not its parts:
    `memory` is that of each part by its name, keys and values of layers.
    """
    source = self.encode(x)
    memory = {
      "posterior": self.posterior_stack.memory(source),
      "decoder": self.decoder.memory(source),
      "prior": memory_of(self.prior, source),
    }
    return source.replace(memory=memory)

  def _for(self, part: str, source: Source) -> Source:
    """The source for one part, with its own memory where there is any."""
    if source.memory is None:
      return source
    return source.replace(memory=source.memory[part])

  def targets(self, y: Tokens) -> tuple[Tokens, Mask]:
    """Targets with EOS appended to the length multiple, and their mask."""
    y = append_eos(y, self.length_multiple)
    return y, token_mask(y)

  def posterior(
    self, y: Tokens, mask: Mask, source: Source
  ) -> tuple[Latents, Latents]:
    """Mean and standard deviation of q(z|x, y), two float32[B, T, C]."""
    x = add_positions(self.word_dropout(self.embedding(y)))
    memory = recall(self.posterior_stack, self._for("posterior", source))
    states = self.posterior_stack(x, mask, memory)
    mean, log_scale = jnp.split(self.posterior_out(states), 2, axis=-1)
    return mean, jnp.exp(log_scale)

  def decode(self, z: Latents, mask: Mask, source: Source) -> Array:
    """float32[B, T, V]: logits of p(y_t|z, x)."""
    return self.embedding.logits(self._states(z, mask, source))

  def likeliest(
    self, z: Latents, mask: Mask, source: Source
  ) -> tuple[Tokens, Array]:
    """The argmax of p(y_t|z, x), never PAD, and its log-probability.

    int32[B, T] and float32[B, T]; the logits are not kept.
    """
    return self.embedding.likeliest(self._states(z, mask, source))

  def log_joint(
    self, z: Latents, y: Tokens, mask: Mask, source: Source
  ) -> tuple[Nats, Nats]:
    """The log p(y|z, x) and log p(z|x), nats per sentence."""
    log_py, _ = self._log_probs(z, y, mask, source)
    return log_py, self.prior.log_prob(z, mask, self._for("prior", source))

  def log_prob_length(
    self, mask: Mask, source: Source, spread: bool = True
  ) -> Nats:
    """The log p(T|x) of the lengths in `mask`, zero for empty rows."""
    length = lengths(mask)
    log_prob = self.length.log_prob(length, source, spread)
    return jnp.where(length > 0, log_prob, 0.0)

  def best_lengths(self, source: Source, count: int) -> tuple[Array, Nats]:
    """The `count` likeliest target lengths, int32[B, count], and log p."""
    return self.length.best(source, count)

  def center(self, mask: Mask, source: Source) -> Latents:
    """Where refinement starts, float[B, T, C]."""
    return self.prior.center(mask, self._for("prior", source))

  def sample(
    self, key: Key, mask: Mask, source: Source, temperature: float = 1.0
  ) -> Latents:
    """A draw from the prior, float[B, T, C]."""
    source = self._for("prior", source)
    return self.prior.sample(key, mask, source, temperature=temperature)

  def _states(self, z: Latents, mask: Mask, source: Source) -> Array:
    z = z.astype(self.config.transformer.dtype)
    if self.config.channels != self.config.transformer.width:
      z = self.from_latents(z)
    memory = recall(self.decoder, self._for("decoder", source))
    return self.decoder(add_positions(z), mask, memory)

  def _log_probs(self, z, y, mask, source) -> tuple[Nats, Nats]:
    states = self._states(z, mask, source)
    log_py, uniform = self.embedding.log_probs(states, y)
    return masked_sum(log_py, mask), masked_sum(uniform, mask)


def _mean_gain(gain: float, key, shape, dtype=jnp.float32) -> Array:
  """Gains of a posterior's output: `gain` for means, zero for log scales."""
  del key
  return jnp.where(jnp.arange(shape[0]) < shape[0] // 2, gain, 0).astype(dtype)


def _check_dropout(model: nn.Module, train: bool):
  if model.has_rng("dropout") and not train:
    raise ValueError("A 'dropout' rng was given without train=True.")


def num_parameters(config: cfg.ModelConfig) -> int:
  """How many numbers a model has, without making one."""
  model = build(config)
  tokens = jax.ShapeDtypeStruct((1, 4), jnp.int32)
  key = jax.eval_shape(lambda: jax.random.key(0))
  init = functools.partial(_init_shapes, model)
  shapes = jax.eval_shape(init, key, Batch(tokens, tokens))
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))


def _init_shapes(model: nn.Module, key: Key, batch: Batch):
  return model.init(key, batch, key)["params"]
