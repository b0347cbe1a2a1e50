"""latentnmt: sequence-to-sequence density estimators in JAX and Flax.

text -> Tokenizer -> tokens -> batches -> model.apply -> Terms -> loss
                                   |            |
                                   |        log_likelihood -> Estimate
                                   +-> translate -> Hypotheses -> text -> BLEU

The design in one page: `types` has the nouns, `config` the settings, `zoo` the
presets; `text` and `data` make batches; `transformer`, `bijections`, `priors`
and `models` make densities; `objectives` and `train` fit them, `decode` and
`likelihood` ask them for translations and for log p(y|x); `runs` is the run
directory, `checkpoint` what was trained there, and `testing` checks priors,
bijections and models of one's own.

The names of the face stand in `__init__.pyi`. Each is imported when it is first
asked for, so that what needs no JAX does not wait for it.
"""

import lazy_loader

__version__ = "0.2.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
