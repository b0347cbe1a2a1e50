"""Pre-norm Transformer stacks (Vaswani et al. 2017), scanned over layers.

Dropout is active exactly where a "dropout" rng is given to `apply`; no module
takes a training flag. By default its noise is shared along the length (and, for
attention weights, over sentences and heads), as in the paper's public code;
`shared_dropout=False` gives every number its own.

Decoders attend to the source through a `CrossAttentionCache`: the keys and
values of every layer, computed once per sentence by `DecoderStack.precompute`.
Under `jax.vmap` over samples or candidates they stay one copy. In a beam search
the hypotheses of a sentence stand where positions would, and share it as well.

  parts.py    positions, dropout, weight-normalised linear map
  layers.py   attention and its caches, encoder and decoder layers
  stacks.py   scanned stacks of layers, and their steps in a search
"""

from latentnmt.transformer.layers import (
  Attention,
  CrossAttentionCache,
  DecoderLayer,
  EncoderLayer,
  FeedForward,
  SelfAttentionCache,
)
from latentnmt.transformer.parts import (
  Dropout,
  WeightNormDense,
  add_positions,
  sinusoids,
)
from latentnmt.transformer.stacks import (
  DecoderStack,
  EncoderStack,
  SearchContext,
  unstack_layers,
)

__all__ = [
  "Attention",
  "CrossAttentionCache",
  "DecoderLayer",
  "DecoderStack",
  "Dropout",
  "EncoderLayer",
  "EncoderStack",
  "FeedForward",
  "SearchContext",
  "SelfAttentionCache",
  "WeightNormDense",
  "add_positions",
  "sinusoids",
  "unstack_layers",
]
