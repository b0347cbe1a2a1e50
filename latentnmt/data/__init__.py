"""Corpora, the token store on disk, and batches planned from it.

read_parallel_folder, read_manythings, embedded_corpus,
grammar_corpus, read_published (read_tfds, read_iwslt16)   -> Corpus
prepare(corpus, out, vocab_size=...)                       -> PreparedData
Batches(prepared.store("train"), batch_tokens)[step]       -> Batch, ...
length_batches(x, y, batch_tokens=...)     evaluation: each pair exactly once
"""

from latentnmt.data.batches import Batches, few_shapes, length_batches
from latentnmt.data.corpora import (
  SPLITS,
  Corpus,
  embedded_corpus,
  read_lines,
  read_manythings,
  read_parallel,
  read_parallel_folder,
  thinned,
)
from latentnmt.data.grammar import (
  grammar_corpus,
  grammar_log_prob,
  grammar_translations,
)
from latentnmt.data.prepared import PreparedData, prepare, with_targets
from latentnmt.data.token_store import TokenStore
from latentnmt.data.wmt_iwslt import (
  PUBLISHED,
  Published,
  read_iwslt16,
  read_published,
  read_tfds,
)

__all__ = [
  "PUBLISHED",
  "SPLITS",
  "Batches",
  "Corpus",
  "PreparedData",
  "Published",
  "TokenStore",
  "embedded_corpus",
  "few_shapes",
  "grammar_corpus",
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
