"""From a model and source sentences to translations.

Methods are frozen dataclasses that decode by themselves; `str(method)` is a
file name that tells every setting that is not a default, and `parse_method`
reads it back. `translate` compiles one program per shape. The source is encoded
once, and its cross-attention keys and values are computed once per sentence
whatever the beam, the number of candidates or of refinements.

  protocol.py  the contract of a method; parse.py reads its name
  propose.py   lengths to decode at, and how far a batch is padded for them
  beam.py      Beam: for models that decode from left to right
  one_pass.py  Lookahead, Viterbi, PrefixBeam: for those with an output
  greedy.py    Greedy: for both
  sample.py    Sample: draws of any family; risk.py chooses among them
  delta.py     Delta: for latent models
  bound.py     what a latent model says of given translations
  rank.py      what another model says of them
  latents.py   draws of latents, to look at; alignments.py paths, likewise
  corpus.py    translate, of a batch, of lines of text, on all local devices
"""

from latentnmt.decode.alignments import Alignment, align, can_align
from latentnmt.decode.beam import Beam
from latentnmt.decode.bound import Bound, own_bound
from latentnmt.decode.corpus import (
  Translations,
  check_method,
  chosen_lines,
  encode_lines,
  translate,
  translate_batches,
  translate_corpus,
  translate_lines,
)
from latentnmt.decode.delta import Delta
from latentnmt.decode.greedy import Greedy
from latentnmt.decode.latents import LatentDraws, latent_draws
from latentnmt.decode.one_pass import Lookahead, PrefixBeam, Viterbi
from latentnmt.decode.parse import METHODS, methods_of, parse_method
from latentnmt.decode.protocol import Method, Score
from latentnmt.decode.rank import teacher_score
from latentnmt.decode.risk import minimum_risk
from latentnmt.decode.sample import Sample

__all__ = [
  "METHODS",
  "Alignment",
  "Beam",
  "Bound",
  "Delta",
  "Greedy",
  "LatentDraws",
  "Lookahead",
  "Method",
  "PrefixBeam",
  "Sample",
  "Score",
  "Translations",
  "Viterbi",
  "align",
  "can_align",
  "check_method",
  "chosen_lines",
  "encode_lines",
  "latent_draws",
  "methods_of",
  "minimum_risk",
  "own_bound",
  "parse_method",
  "teacher_score",
  "translate",
  "translate_batches",
  "translate_corpus",
  "translate_lines",
]
