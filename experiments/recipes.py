"""Recipes: one table of corpus, models, training, decoding and expectations.

`python -m experiments.study --recipe=NAME` runs one. Times are for two cores
of a CPU, without installation; `tiny` is what the tests run.
"""

from collections.abc import Mapping
import dataclasses


@dataclasses.dataclass(frozen=True)
class Run:
  """A model to train, translate with and score.

  Attributes:
    preset: name in `zoo`.
    settings: changes of the preset and of the training, "field=value".
    methods: decoding methods, as `translate --methods` takes them.
    distilled: train on the teacher's translations, not on the references.
    warm_start: start from the teacher's embedding, encoder and decoder.
  """

  preset: str
  settings: tuple[str, ...]
  methods: tuple[str, ...]
  distilled: bool = False
  warm_start: bool = False

  @property
  def steps(self) -> int:
    """Training steps, by the last setting that names them."""
    name = "train.steps="
    found = [s.removeprefix(name) for s in self.settings if s.startswith(name)]
    return int(found[-1])

  @property
  def quick_method(self) -> str:
    """What dev BLEU is measured with: one cheap pass."""
    return "greedy" if self.methods[0] == "greedy" else "delta1"


@dataclasses.dataclass(frozen=True)
class Recipe:
  """A study from text to table.

  Attributes:
    summary: what it shows.
    corpus: as `preprocess --corpus` takes it.
    vocab_size: V, pieces of the shared vocabulary.
    runs: name to run, in order; the run "teacher" comes before any that
      trains on distilled data.
    seconds: expected time of each stage by its name, or by its first word for
      all stages of that kind.
    expected: the numbers to expect, for people.
    prepare: further flags of `preprocess`, by name.
    distill: the teacher's decoding method.
    samples: K, samples of the posterior per likelihood.
    checkpoint_samples: K of the likelihood of every kept checkpoint on dev;
      0 for a study that does not score them.
    batch_sizes: sentences decoded at once in the benchmark.
  """

  summary: str
  corpus: str
  vocab_size: int
  runs: Mapping[str, Run]
  seconds: Mapping[str, float]
  expected: str
  prepare: Mapping[str, str] = dataclasses.field(default_factory=dict)
  distill: str = "beam4"
  samples: int = 100
  checkpoint_samples: int = 0
  batch_sizes: tuple[int, ...] = (1, 32)

  def stage_seconds(self, stage: str) -> float:
    """Expected seconds of a stage, by its name or else by its kind."""
    return self.seconds.get(stage, self.seconds.get(stage.split()[0], 0.0))


def _steps(steps: int, evaluations: int) -> tuple[str, ...]:
  """Training for `steps` steps with so many dev evaluations on the way."""
  return (
    f"train.steps={steps}",
    f"train.eval_every={steps // evaluations}",
  )


def _longer(run: Run, steps: int, evaluations: int, *settings: str) -> Run:
  """The same run trained for longer: of settings given twice the last wins."""
  settings = run.settings + _steps(steps, evaluations) + settings
  return dataclasses.replace(run, settings=settings)


def _raw_and_distilled(name: str, run: Run) -> dict[str, Run]:
  return {
    f"{name}-raw": run,
    f"{name}-distilled": dataclasses.replace(run, distilled=True),
  }


_TEACHER = Run(
  "transformer_tiny",
  (
    *_steps(360, 1),
    "train.max_length=40",
    "train.max_shapes=4",
    "train.warmup=200",
    "train.learning_rate=0.5",
  ),
  ("greedy", "beam4"),
)
# Half the batch, for twice the steps in the same time: what is not trained to
# the end gains more by steps. The shapes are given, so that raw and distilled
# twins share their programs. A posterior that tells of y from the start and a
# KL budget keep the latents in use: without, none would be after so few steps.
_GAUSS = Run(
  "gauss_tiny",
  (
    *_steps(200, 1),
    "train.batch_tokens=2048",
    "train.max_length=40",
    "train.shapes=((16, 12), (24, 20), (40, 40))",
    "train.warmup=100",
    "train.learning_rate=0.6",
    "train.kl_start=40",
    "train.kl_ramp=100",
    "train.free_nats=0.3",
    "model.posterior_gain=2.0",
  ),
  ("delta0", "delta1", "delta4"),
  warm_start=True,
)
# A flow takes long to compile: a shape less.
_FLOW = dataclasses.replace(
  _GAUSS,
  preset="flow_tiny",
  settings=(*_GAUSS.settings, "train.shapes=((20, 16), (40, 40))"),
)

_QUICKSTART = Recipe(
  summary="German to English on the corpus that comes with the package.",
  corpus="embedded",
  vocab_size=4000,
  runs={
    "teacher": _TEACHER,
    **_raw_and_distilled("gauss", _GAUSS),
    **_raw_and_distilled("flow", _FLOW),
  },
  seconds={
    "preprocess": 4,
    "train teacher": 230,
    "distill": 60,
    "train": 150,
    "translate": 15,
    "bleu": 5,
    "likelihood": 15,
    "benchmark": 15,
    "analyze": 10,
  },
  expected="teacher at least 12 BLEU",
  distill="beam2",
)


def _kept(run: Run, steps: int, checkpoints: int, *settings: str) -> Run:
  """As `_longer`, with a checkpoint kept at each dev evaluation."""
  kept = f"train.keep_every={steps // checkpoints}"
  return _longer(run, steps, checkpoints, kept, *settings)


def _refined(run: Run) -> Run:
  """With every number of refinements in the paper's tables."""
  return dataclasses.replace(
    run, methods=tuple(f"delta{k}" for k in (0, 1, 2, 4, 8))
  )


_LONGER = ("train.warmup=150", "train.kl_start=100", "train.kl_ramp=300")
_EMBEDDED = dataclasses.replace(
  _QUICKSTART,
  summary="As quickstart, trained for longer.",
  runs={
    "teacher": _kept(
      _TEACHER, 800, 8, "train.max_length=64", "train.max_shapes=5"
    ),
    **_raw_and_distilled("gauss", _refined(_kept(_GAUSS, 720, 8, *_LONGER))),
    **_raw_and_distilled("flow", _refined(_kept(_FLOW, 720, 8, *_LONGER))),
  },
  seconds={
    **_QUICKSTART.seconds,
    "train teacher": 480,
    "distill": 100,
    "train": 480,
    "translate": 25,
    "translate-checkpoints": 30,
    "likelihood": 60,
    "likelihood-of-checkpoints": 60,
    "benchmark": 25,
    "analyze": 20,
  },
  expected="teacher at least 25 BLEU, delta1 a little above delta0",
  distill="beam4",
  samples=200,
  checkpoint_samples=20,
)

_ANY_LENGTH = ("train.max_length=64", "train.shapes=()")
# A KL term that comes slowly, rather than a budget, keeps the latents open
# here: what is compared with the truth is trained on the bound itself.
_GRAMMAR_GAUSS = _longer(
  dataclasses.replace(_GAUSS, warm_start=False),
  900,
  3,
  *_ANY_LENGTH,
  "train.max_shapes=3",
  "train.kl_start=100",
  "train.kl_ramp=500",
  "train.free_nats=0.0",
)
_GRAMMAR = Recipe(
  summary="Phrase pairs with known log p(y|x): is a likelihood one?",
  corpus="grammar",
  vocab_size=700,
  runs={
    # Smoothing would cost the likelihood that is compared with the truth, and
    # dev BLEU, against one of many valid references, would choose an early
    # checkpoint: there is but the last.
    "teacher": _longer(
      _TEACHER,
      800,
      1,
      *_ANY_LENGTH,
      "train.max_shapes=5",
      "train.batch_tokens=2048",
      "train.label_smoothing=0.0",
    ),
    "gauss": _GRAMMAR_GAUSS,
    "flow": dataclasses.replace(_GRAMMAR_GAUSS, preset="flow_tiny"),
  },
  seconds={
    "preprocess": 15,
    "train": 300,
    "train gauss": 450,
    "train flow": 500,
    "translate": 20,
    "bleu": 5,
    "likelihood": 60,
    "benchmark": 15,
    "analyze": 10,
  },
  expected="teacher within 0.05 nats per token of the truth",
  samples=200,
)

_NARROW = (
  "model.transformer.width=16",
  "model.transformer.hidden=32",
  "model.transformer.heads=2",
  "model.transformer.max_length=64",
  "train.batch_tokens=512",
  "train.log_every=2",
)
_TINY_GAUSS = _kept(_GAUSS, 4, 2, *_NARROW, "model.channels=4")
_TINY = dataclasses.replace(
  _GRAMMAR,
  summary="Every stage on next to nothing, for the tests.",
  runs={
    "teacher": _kept(_TEACHER, 4, 2, *_NARROW),
    **_raw_and_distilled(
      "gauss", dataclasses.replace(_TINY_GAUSS, methods=("delta0", "delta2"))
    ),
  },
  vocab_size=300,
  prepare={"sizes": "8,8,8"},
  seconds={
    "preprocess": 5,
    "distill": 10,
    "train": 15,
    "translate": 10,
    "translate-checkpoints": 10,
    "bleu": 3,
    "likelihood": 10,
    "likelihood-of-checkpoints": 10,
    "benchmark": 10,
    "analyze": 5,
  },
  expected="a table",
  samples=4,
  checkpoint_samples=2,
  batch_sizes=(1, 2),
)

RECIPES: dict[str, Recipe] = {
  "quickstart": _QUICKSTART,
  "embedded": _EMBEDDED,
  "grammar": _GRAMMAR,
  "tiny": _TINY,
}
