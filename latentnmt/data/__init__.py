"""Corpora, the token store on disk, and batches planned from it.

read_parallel_folder, read_manythings, embedded, grammar   -> Corpus
read_published (read_tfds, read_iwslt16): the paper's      -> Corpus
prepare(corpus, out, vocab_size=...)                       -> PreparedData
Batches(prepared.store("train"), batch_tokens)[step]       -> Batch
length_batches(x, y, batch_tokens=...)     evaluation: each pair exactly once
"""

from latentnmt.data.batches import (
  Batches,
  TokenStore,
  few_shapes,
  length_batches,
)
from latentnmt.data.corpora import (
  SPLITS,
  Corpus,
  embedded,
  read_lines,
  read_manythings,
  read_parallel,
  read_parallel_folder,
  thinned,
)
from latentnmt.data.phrases import (
  grammar,
  grammar_log_prob,
  grammar_translations,
)
from latentnmt.data.published import (
  PUBLISHED,
  Published,
  read_iwslt16,
  read_published,
  read_tfds,
)
from latentnmt.data.store import PreparedData, prepare, with_targets

__all__ = [
  "PUBLISHED",
  "SPLITS",
  "Batches",
  "Corpus",
  "PreparedData",
  "Published",
  "TokenStore",
  "embedded",
  "few_shapes",
  "grammar",
  "grammar_log_prob",
  "grammar_translations",
  "length_batches",
  "prepare",
  "read_iwslt16",
  "read_lines",
  "read_manythings",
  "read_parallel",
  "read_parallel_folder",
  "read_published",
  "read_tfds",
  "thinned",
  "with_targets",
]
