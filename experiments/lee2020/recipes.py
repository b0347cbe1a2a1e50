"""Recipes at the paper's settings: its five language pairs, and Tatoeba.

Models, corpora, vocabulary, KL schedule, K and decoding are the paper's, most
of them as the defaults of the presets and of `TrainConfig`; warm-up and
dropout are chosen on dev, as there. The paper does not say for how many steps
it trained on batches of which size: those are ours. The teacher is Tr-B, on
IWSLT Tr-S, and translates by beam 4.

The times are arithmetic, at rates taken for granted; nothing was measured.
"""

import dataclasses

from latentnmt.experiments.study.schema import (
  Recipe,
  Run,
  Sweep,
  raw_and_distilled,
  refined,
  train,
)

_OPERATIONS_PER_SECOND = 5e13  # a third of an A100's peak in TF32
_HARDWARE = (
  "one accelerator (estimated, not measured: 6 operations a parameter and"
  " token at 50 TFLOP/s, 20 ms a step besides)"
)

# Of the presets with 32,000 pieces.
_PARAMETERS = {
  "transformer_small": 17e6, "transformer_base": 60e6,
  "transformer_large": 209e6, "gauss_base": 75e6, "gauss_large": 96e6,
  "flow_small": 54e6, "flow_base": 68e6, "gauss_base_iwslt": 22e6,
  "flow_small_iwslt": 35e6, "flow_base_iwslt": 44e6,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Corpus:
  """A corpus and what is trained on it.

  Attributes:
    name: as `preprocess --corpus` takes it, <title>_<source>_<target>; None
      for the user's own.
    title: for people.
    pairs: training pairs.
    preprocess: seconds of one core, downloads not counted.
    teacher: preset of the run "teacher".
    students: other presets, each trained on raw and on distilled text.
    steps: of a training, at most.
    batch_tokens: of a step.
  """

  name: str | None
  title: str
  pairs: int
  preprocess: float
  teacher: str
  students: tuple[str, ...]
  steps: int
  batch_tokens: int


_LATENT = ("gauss_base", "gauss_large", "flow_small", "flow_base")
_WMT14 = _Corpus(
  "wmt14_de_en",
  "WMT'14",
  pairs=4_592_289,
  preprocess=900,
  teacher="transformer_base",
  students=("transformer_small", "transformer_large", *_LATENT),
  steps=200_000,
  batch_tokens=32_768,
)
_WMT16 = _Corpus(
  "wmt16_ro_en",
  "WMT'16, Romanian without diacritics",
  pairs=610_320,
  preprocess=120,
  teacher="transformer_base",
  students=("transformer_small", *_LATENT),
  steps=100_000,
  batch_tokens=16_384,
)
_IWSLT16 = _Corpus(
  "iwslt16_de_en",
  "IWSLT'16, dev tst2013, test tst2014 (the paper's 2K/2K are not known)",
  pairs=196_884,
  preprocess=30,
  teacher="transformer_small",
  students=("gauss_base_iwslt", "flow_small_iwslt", "flow_base_iwslt"),
  steps=100_000,
  batch_tokens=8192,
)
_TATOEBA = _Corpus(
  None,
  "Tatoeba",
  pairs=160_000,
  preprocess=30,
  teacher="transformer_small",
  students=("gauss_base_iwslt", "flow_base_iwslt"),
  steps=48_000,
  batch_tokens=8192,
)

# The KL weight is 1 from step 25,000 on: dev BLEU sees the whole objective.
_SWEEP = Sweep(
  grid={
    "train.warmup": (4000, 8000),
    "model.transformer.dropout": (0.1, 0.2, 0.3),
  },
  settings=train(steps=30_000, eval_every=2500, keep_every=0),
)
_SWEEP_STEPS = 6 * 30_000

# Dev evaluations of a training, those of them that keep a checkpoint, and how
# many without a better BLEU end it: no fewer than 8 checkpoints are kept.
_EVALUATIONS, _KEPT, _PATIENCE = 80, 20, 32


def _run(corpus: _Corpus, preset: str) -> Run:
  """Makes a training, decoded in every way of the paper's tables."""
  run = Run(
    preset=preset,
    settings=train(
      steps=corpus.steps,
      batch_tokens=corpus.batch_tokens,
      eval_every=corpus.steps // _EVALUATIONS,
      keep_every=corpus.steps // _KEPT,
      patience=_PATIENCE,
    ),
    methods=("greedy", "beam4"),
    quick_method="greedy",
  )
  return run if preset.startswith("transformer") else refined(run)


def _runs(corpus: _Corpus) -> dict[str, Run]:
  """Trains every model on raw and on distilled text."""
  teacher = _run(corpus, corpus.teacher)
  runs = {"teacher": teacher}
  for preset in corpus.students:
    runs |= raw_and_distilled(preset, _run(corpus, preset))
  twin = dataclasses.replace(teacher, distilled=True)
  return {**runs, f"{corpus.teacher}-distilled": twin}


def _training(corpus: _Corpus, preset: str, steps: int) -> float:
  """Estimates the seconds of a training."""
  operations = 6 * _PARAMETERS[preset] * corpus.batch_tokens
  if preset.startswith("flow"):
    operations *= 2  # activations are recomputed, couplings narrow
  return steps * (0.02 + operations / _OPERATIONS_PER_SECOND)


def _seconds(corpus: _Corpus, runs: dict[str, Run], swept: bool) -> dict:
  """Estimates the seconds of every stage.

  Beam search at 200 sentences/s; K = 1,000 samples of 3,000 sentences, or all
  checkpoints on dev, in ten minutes.
  """
  presets = (corpus.teacher, *corpus.students) if swept else ()
  return {
    "preprocess": corpus.preprocess,
    **{f"sweep {p}": _training(corpus, p, _SWEEP_STEPS) for p in presets},
    **{
      f"train {name}": _training(corpus, run.preset, corpus.steps)
      for name, run in runs.items()
    },
    "distill": corpus.pairs / 200, "translate": 300, "likelihood": 600,
    "translate-checkpoints": 600, "likelihood-of-checkpoints": 600,
    "bleu": 60 * len(runs), "benchmark": 600, "analyze": 120,
  }  # fmt: skip


def _recipe(corpus: _Corpus, sweep: Sweep | None = None, **fields) -> Recipe:
  runs = _runs(corpus)
  return Recipe(
    corpus=corpus.name,
    runs=runs,
    seconds=_seconds(corpus, runs, swept=sweep is not None),
    hardware=_HARDWARE,
    sweep=sweep,
    samples=1000,
    checkpoint_samples=100,
    batch_sizes=(1, 256),
    **fields,
  )


def _pair(name: str, corpus: _Corpus) -> Recipe:
  """Makes the paper's study of one direction of a corpus."""
  source, target = name.split("_")[1:]
  return _recipe(
    corpus,
    _SWEEP,
    summary=f"The paper's row: {corpus.title}, {source} to {target}.",
    vocab_size=32_000,
    prepare={} if name == corpus.name else {"swap": "true"},
    expected="about the paper's Table 1, which gives no sacreBLEU signature",
    paper=name,
  )


PAIRS: dict[str, Recipe] = {
  name: _pair(name, corpus)
  for name, corpus in {
    "wmt14_en_de": _WMT14,
    "wmt14_de_en": _WMT14,
    "wmt16_en_ro": _WMT16,
    "wmt16_ro_en": _WMT16,
    "iwslt16_de_en": _IWSLT16,
  }.items()
}

TATOEBA = _recipe(
  _TATOEBA,
  summary="Short everyday sentences at the paper's IWSLT settings.",
  vocab_size=8000,
  expected="teacher at least 30 BLEU",
)
