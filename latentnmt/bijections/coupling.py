"""Coupling layers: one half of a sequence moves the other."""

from flax import linen as nn
import jax.numpy as jnp

from latentnmt import config as cfg
from latentnmt.bijections.protocol import Mapped, cache_of
from latentnmt.errors import InputError
from latentnmt.masks import masked_sum
from latentnmt.transformer import (
  CrossAttentionCache,
  DecoderLayer,
  WeightNormDense,
  add_positions,
)
from latentnmt.types import Array, Latents, Mask, Source

# Added before the sigmoid, as in Glow, so that scales start at 0.88.
_SCALE_OFFSET = 2.0


class Coupling(nn.Module):
  """An affine or additive coupling (Dinh et al. 2017; Ma et al. 2019).

  The first half of each latent sequence is kept. The second moves by a shift
  and scale that a Transformer decoder layer computes from the first half and
  the source:

    e_2 = (z_2 + shift) scale,  scale = sigmoid(s + 2)

  Shift and s start at zero. Activations are float32, whatever the source is.
  Where what the layer multiplies is rounded, the coupling is another function,
  but still an exact bijection with this log-determinant: shift and scale depend
  on the kept half alone, and act in float32.

  Attributes:
    channels: C, a multiple of 4.
    split: what the halves are: "c", the first and the last channels; "a", the
      even and the odd channels; "t", the even and the odd positions.
    hidden: width of the layer's feed-forward part.
    heads: attention heads; fewer where the half is too narrow for them.
    affine: whether there is a scale; without one, volume is preserved.
    matmul_dtype: of the layer's linear maps, as in `TransformerConfig`.

  Raises:
    InputError: for `channels` that is no multiple of 4, or another `split`.
  """

  channels: int
  split: str = "c"
  hidden: int = 640
  heads: int = 8
  affine: bool = True
  matmul_dtype: str = "float32"

  def __post_init__(self):
    super().__post_init__()
    if self.channels % 4:
      raise InputError(
        f"channels={self.channels}; a coupling needs a multiple of 4."
      )
    if self.split not in ("c", "a", "t"):
      raise InputError(f"split={self.split!r}; valid are 'c', 'a' and 't'.")

  @property
  def length_multiple(self) -> int:
    """Returns 2 where it splits over time, else 1."""
    return 2 if self.split == "t" else 1

  def setup(self):
    width = self.channels if self.split == "t" else self.channels // 2
    self.layer = DecoderLayer(self._transformer(width))
    self.norm = nn.LayerNorm(epsilon=1e-6)
    self.out = WeightNormDense(2 * width if self.affine else width)

  def precompute(self, source: Source) -> tuple[Array, Array]:
    """Returns the layer's keys and values; see `Attention.keys_values`."""
    return self.layer.cross.keys_values(source.states.astype(jnp.float32))

  def forward(self, e: Latents, mask: Mask, source: Source) -> Mapped:
    """Returns z, float32[B, T, C], and log |det dz/de|, float32[B]."""
    kept, moved = _split(e, self.split)
    mask = self._kept_mask(mask)
    shift, log_scale = self._shift_log_scale(kept, mask, source)
    moved = moved * jnp.exp(-log_scale) - shift  # mirrors `inverse`
    return _join(kept, moved, self.split), -masked_sum(log_scale, mask)

  def inverse(self, z: Latents, mask: Mask, source: Source) -> Mapped:
    """Returns e, float32[B, T, C], and log |det de/dz|, float32[B]."""
    kept, moved = _split(z, self.split)
    mask = self._kept_mask(mask)
    shift, log_scale = self._shift_log_scale(kept, mask, source)
    moved = (moved + shift) * jnp.exp(log_scale)
    return _join(kept, moved, self.split), masked_sum(log_scale, mask)

  def _transformer(self, width: int) -> cfg.TransformerConfig:
    """Returns the layer's sizes, without dropout, as in Glow."""
    heads = self.heads
    while width % (2 * heads):  # heads have to be of an even size
      heads -= 1
    return cfg.TransformerConfig(
      vocab_size=3,  # it embeds nothing; three is the least there may be
      width=width,
      hidden=self.hidden,
      heads=heads,
      dropout=0.0,
      attention_dropout=0.0,
      hidden_dropout=0.0,
      matmul_dtype=self.matmul_dtype,
    )

  def _kept_mask(self, mask: Mask) -> Mask:
    # Lengths are even, so as many odd positions are real.
    return mask[:, ::2] if self.split == "t" else mask

  def _shift_log_scale(self, kept, mask, source) -> tuple[Array, Array]:
    """Computes shift and log-scale of the moved half from the kept one."""
    cache = CrossAttentionCache(*cache_of(self, source), source.mask)
    # Not causal: [B, 1, T], every position sees all of the kept half.
    states = self.layer(add_positions(kept), mask[:, None], cache)
    out = self.out(self.norm(states))
    if not self.affine:  # scales of 1: the volume stays
      return out, jnp.zeros_like(out)
    shift, s = jnp.split(out, 2, axis=-1)
    # A scale below 1 never makes `inverse` explode; `forward` may.
    return shift, nn.log_sigmoid(s + _SCALE_OFFSET)


def _split(x: Latents, how: str) -> tuple[Latents, Latents]:
  """Returns the half that is kept and the half that is moved."""
  match how:
    case "c":  # contiguous
      kept, moved = jnp.split(x, 2, axis=-1)
    case "a":  # alternate
      kept, moved = x[..., ::2], x[..., 1::2]
    case "t":  # in time
      kept, moved = x[:, ::2], x[:, 1::2]
  return kept, moved


def _join(kept: Latents, moved: Latents, how: str) -> Latents:
  """Undoes `_split`."""
  batch, length, channels = kept.shape
  match how:
    case "c":
      return jnp.concatenate((kept, moved), axis=-1)
    case "a":
      # Side by side on a new last axis, which is then merged: they alternate.
      return jnp.stack((kept, moved), -1).reshape(batch, length, 2 * channels)
    case "t":
      return jnp.stack((kept, moved), 2).reshape(batch, 2 * length, channels)
