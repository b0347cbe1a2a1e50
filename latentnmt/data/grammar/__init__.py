"""A corpus drawn from a grammar, of which log p(y|x) is known.

synchronous.py   probabilistic synchronous grammars: draw, parse, score
phrases.py       the grammar of German and English phrases, and its corpus
lexicon.py       its words
"""

from latentnmt.data.grammar.phrases import (
  grammar_corpus,
  grammar_log_prob,
  grammar_translations,
)

__all__ = ["grammar_corpus", "grammar_log_prob", "grammar_translations"]
