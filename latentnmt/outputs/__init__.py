"""Distributions p(y | states of U decoder positions) over strings, exactly.

An output is a Linen module that keeps the `Output` contract: what turns the
states of decoder positions into a string. Those here sum to one over all
strings, their length included, and log p(y|x) is found by dynamic programming.

  Factorised   one word at each of T positions; T comes from elsewhere
  Ctc          a word or a blank in each of U slots; the length is in the blanks
  Dag          a walk over U vertices, of which each emits a word

A model is an encoder, what its decoder sees at each position, a non-causal
decoder stack, and an output:

  mask = length_mask(output.positions(lengths(source.mask)), U)
  states = decoder(inputs, mask, source)                        # [B, U, D]
  output.log_prob(embedding, states, y, mask).unmixed           # to train
  output.log_prob(embedding, states, y, mask).log_prob          # to evaluate
  output.best(embedding, states, mask)                          # to translate

with U = output.max_positions(S) positions in a batch whose sources have S.

  protocol.py     the contract, and what a log-likelihood comes with
  words.py        the distribution of one word at each position
  strings.py      number of positions, the escape mixture, words to strings
  factorised.py
  ctc.py          the module; ctc_paths.py sums over its paths
  prefix_beam.py  search over strings of a CTC
  dag.py          the module; lattice.py sums over its paths, and finds the best
  build.py        from a configuration to its output
"""

from latentnmt.outputs.build import build_output
from latentnmt.outputs.ctc import Ctc
from latentnmt.outputs.dag import Dag
from latentnmt.outputs.factorised import Factorised
from latentnmt.outputs.protocol import Likelihood, Output, output_mask
from latentnmt.outputs.strings import escape_log_prob, with_escape

__all__ = [
  "Ctc",
  "Dag",
  "Factorised",
  "Likelihood",
  "Output",
  "build_output",
  "escape_log_prob",
  "output_mask",
  "with_escape",
]
