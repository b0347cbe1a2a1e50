"""Recipes: one table of corpus, models, training, decoding and expectations.

`latentnmt study --recipe=NAME` runs one. `tiny` is what the tests run; the
paper's language pairs are written in `lee2020.recipes`. Times are without
installation.
"""

import dataclasses

from latentnmt.custom import find_custom
from latentnmt.errors import InputError
from latentnmt.experiments.lee2020.recipes import PAIRS, TATOEBA
from latentnmt.experiments.study.schema import (
  Recipe,
  Run,
  kept,
  longer,
  raw_and_distilled,
  refined,
  train,
)

_TEACHER = Run(
  preset="transformer_tiny",
  settings=(
    *train(steps=320, eval_every=320, max_length=40),
    *train(max_shapes=4, mixed_lengths=True),
    *train(warmup=200, learning_rate=0.5),
  ),
  methods=("greedy", "beam4"),
  quick_method="greedy",
)
# Half the batch, for twice the steps in the same time: what is not trained to
# the end gains more by steps. The shapes are given, so that raw and distilled
# twins share their programs. A posterior that tells of y from the start and a
# KL budget keep the latents in use: without, none would be after so few steps.
_GAUSS = Run(
  preset="gauss_tiny",
  settings=(
    *train(steps=160, eval_every=160, batch_tokens=2048, max_length=40),
    *train(shapes=((16, 12), (24, 20), (40, 40))),
    *train(warmup=100, learning_rate=0.6),
    *train(kl_start=40, kl_ramp=80, free_nats=0.3),
    "model.posterior_gain=2.0",
  ),
  methods=("delta0", "delta1", "delta4"),
  quick_method="delta1",
  warm_start=True,
)
# A flow takes long to compile: a shape less.
_FLOW = dataclasses.replace(
  _GAUSS,
  preset="flow_tiny",
  settings=(*_GAUSS.settings, *train(shapes=((20, 16), (40, 40)))),
)

# A graph writes sentences after few steps. Two vertices a source token do, and
# cost half of what four do. Fewer shapes compile sooner.
_DAG = Run(
  preset="dag_tiny",
  settings=(
    *train(steps=200, eval_every=200, max_length=40),
    *train(max_shapes=3, mixed_lengths=True),
    *train(warmup=80, learning_rate=0.6),
    "model.output.scale=2.0",
  ),
  methods=("lookahead", "viterbi-p1.25"),
  quick_method="lookahead",
  distilled=True,
  warm_start=True,
)

_QUICKSTART = Recipe(
  summary="German to English on the corpus that comes with the package.",
  corpus="embedded",
  vocab_size=4000,
  runs={
    "teacher": _TEACHER,
    "dag-distilled": _DAG,
    "gauss-distilled": dataclasses.replace(_GAUSS, distilled=True),
    "flow-distilled": dataclasses.replace(_FLOW, distilled=True),
  },
  seconds={
    "preprocess": 4, "train": 200, "distill": 40, "translate": 12, "bleu": 5,
    "likelihood": 15, "benchmark": 15, "analyze": 10,
  },
  expected="teacher at least 15 BLEU, the graph at least 70 % of it",
  distill="beam2",
)  # fmt: skip

_LONGER = train(warmup=150, kl_start=100, kl_ramp=300)
_EMBEDDED = dataclasses.replace(
  _QUICKSTART,
  summary="As quickstart, trained for longer.",
  runs={
    "teacher": kept(_TEACHER, 800, 8, *train(max_length=64, max_shapes=5)),
    **raw_and_distilled("gauss", refined(kept(_GAUSS, 720, 8, *_LONGER))),
    **raw_and_distilled("flow", refined(kept(_FLOW, 720, 8, *_LONGER))),
  },
  seconds={
    "preprocess": 4, "train": 480, "distill": 100, "translate": 25,
    "translate-checkpoints": 30, "bleu": 5, "likelihood": 60,
    "likelihood-of-checkpoints": 60, "benchmark": 25, "analyze": 20,
  },
  expected="teacher at least 25 BLEU",
  distill="beam4",
  samples=200,
  checkpoint_samples=20,
)  # fmt: skip

_ANY_LENGTH = train(max_length=64, shapes=())
# A KL term that comes slowly, rather than a budget, keeps the latents open
# here: what is compared with the truth is trained on the bound itself, without
# smoothing and to the end, as its teacher.
_GRAMMAR_GAUSS = longer(
  dataclasses.replace(_GAUSS, warm_start=False),
  900,
  1,
  *_ANY_LENGTH,
  *train(max_shapes=3, kl_start=100, kl_ramp=500, free_nats=0.0),
  *train(label_smoothing=0.0),
)
# Smoothing would cost the likelihood that is compared with the truth, and dev
# BLEU, against one of many valid references, would choose an early checkpoint:
# there is but the last.
_GRAMMAR_TEACHER = longer(
  _TEACHER,
  800,
  1,
  *_ANY_LENGTH,
  *train(max_shapes=5, batch_tokens=2048, label_smoothing=0.0),
)
_GRAMMAR = Recipe(
  summary="Phrase pairs with known log p(y|x): is a likelihood one?",
  corpus="grammar",
  vocab_size=700,
  runs={
    "teacher": _GRAMMAR_TEACHER,
    "gauss": _GRAMMAR_GAUSS,
    "flow": dataclasses.replace(_GRAMMAR_GAUSS, preset="flow_tiny"),
  },
  seconds={
    "preprocess": 15, "train": 300, "train gauss": 450, "train flow": 500,
    "translate": 20, "bleu": 5, "likelihood": 60, "benchmark": 15,
    "analyze": 10,
  },
  expected="teacher within 0.05 nats per token of the truth",
  samples=200,
)  # fmt: skip

_NARROW = (
  "model.transformer.width=16",
  "model.transformer.hidden=32",
  "model.transformer.heads=2",
  "model.transformer.max_length=64",
  *train(batch_tokens=512, log_every=2),
)
_TINY_KL = train(kl_start=1, kl_ramp=1)
_TINY_GAUSS = kept(_GAUSS, 4, 2, *_NARROW, *_TINY_KL, "model.channels=4")
_TINY = dataclasses.replace(
  _GRAMMAR,
  summary="Every stage on next to nothing, for the tests.",
  runs={
    "teacher": kept(_TEACHER, 4, 2, *_NARROW),
    **raw_and_distilled(
      "gauss", dataclasses.replace(_TINY_GAUSS, methods=("delta0", "delta2"))
    ),
  },
  vocab_size=300,
  prepare={"sizes": "8,8,8"},
  seconds={
    "preprocess": 5, "train": 15, "distill": 10, "translate": 10,
    "translate-checkpoints": 10, "bleu": 3, "likelihood": 10,
    "likelihood-of-checkpoints": 10, "benchmark": 10, "analyze": 5,
  },
  expected="a table",
  samples=4,
  checkpoint_samples=2,
  batch_sizes=(1, 2),
)  # fmt: skip

# Sentences of about ten tokens, few above twenty. A flow is initialised from
# data at step 150: each of the checkpoints is after that.
_TATOEBA_STUDENT = train(
  warmup=200,
  kl_start=150,
  kl_ramp=600,
  shapes=((12, 12), (20, 20), (40, 40)),
)
_TATOEBA_CPU = Recipe(
  summary="As tatoeba_deen, tiny models on 40,000 pairs, in three hours.",
  corpus=None,
  train_pairs=40_000,
  vocab_size=4000,
  runs={
    "teacher": kept(_TEACHER, 1600, 8),
    **raw_and_distilled(
      "gauss", refined(kept(_GAUSS, 1600, 8, *_TATOEBA_STUDENT))
    ),
    **raw_and_distilled(
      "flow", refined(kept(_FLOW, 1600, 8, *_TATOEBA_STUDENT))
    ),
  },
  seconds={
    "preprocess": 5, "train teacher": 1000, "train": 1300, "distill": 200,
    "translate": 100, "translate-checkpoints": 120, "bleu": 60,
    "likelihood": 200, "likelihood-of-checkpoints": 200, "benchmark": 35,
    "analyze": 20,
  },
  expected="teacher at least 25 BLEU",
  samples=200,
  checkpoint_samples=20,
)  # fmt: skip

RECIPES: dict[str, Recipe] = {
  "quickstart": _QUICKSTART,
  "embedded": _EMBEDDED,
  "grammar": _GRAMMAR,
  "tatoeba_deen": TATOEBA,
  "tatoeba_deen_cpu": _TATOEBA_CPU,
  **PAIRS,
  "tiny": _TINY,
}


def find_recipe(name: str) -> Recipe:
  """Returns a recipe of the table, or one's own.

  Args:
    name: a key of `RECIPES`, or package.module:NAME.

  Raises:
    InputError: for a name of neither.
  """
  if name in RECIPES:
    return RECIPES[name]
  if ":" not in name:
    raise InputError(
      f"--recipe={name}: value should be one of <{'|'.join(RECIPES)}>, or"
      " package.module:NAME for a recipe of your own."
    )
  found = find_custom("recipe", name)
  if not isinstance(found, Recipe):
    raise InputError(f"--recipe={name} is no `Recipe` of latentnmt.")
  return found
