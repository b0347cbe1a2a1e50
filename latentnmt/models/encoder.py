"""The encoder of source sentences, which every family shares."""

from flax import linen as nn

from latentnmt import config as cfg
from latentnmt.embedding import Embedding
from latentnmt.masks import token_mask
from latentnmt.transformer import EncoderStack, add_positions
from latentnmt.types import Source, Tokens


class Encoder(nn.Module):
  """An encoder of source tokens."""

  config: cfg.TransformerConfig
  num_layers: int

  def setup(self):
    self.stack = EncoderStack(self.config, self.num_layers)

  def __call__(self, embedding: Embedding, x: Tokens) -> Source:
    """Encodes int32[B, S], each position seeing the whole sentence."""
    mask = token_mask(x)
    return Source(self.stack(add_positions(embedding(x)), mask), mask)
