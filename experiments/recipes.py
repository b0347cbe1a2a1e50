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
    *_steps(400, 2),
    "train.max_shapes=5",
    "train.warmup=200",
    "train.learning_rate=0.5",
  ),
  ("greedy", "beam4"),
)
# Half the batch, for twice the steps in the same time: what is not trained to
# the end gains more by steps.
_GAUSS = Run(
  "gauss_tiny",
  (
    *_steps(400, 2),
    "train.batch_tokens=2048",
    "train.max_shapes=3",
    "train.warmup=150",
    "train.learning_rate=0.6",
    "train.kl_start=50",
    "train.kl_ramp=200",
  ),
  ("delta0", "delta1", "delta4"),
)

_QUICKSTART = Recipe(
  summary="German to English on the corpus that comes with the package.",
  corpus="embedded",
  vocab_size=4000,
  runs={"teacher": _TEACHER, **_raw_and_distilled("gauss", _GAUSS)},
  seconds={
    "preprocess": 4,
    "train teacher": 240,
    "distill": 60,
    "train": 205,
    "translate": 15,
    "bleu": 5,
    "likelihood": 15,
    "benchmark": 15,
    "analyze": 4,
  },
  expected="teacher at least 12 BLEU",
)

_EMBEDDED = dataclasses.replace(
  _QUICKSTART,
  summary="As quickstart, trained for longer.",
  runs={
    "teacher": _longer(_TEACHER, 800, 4),
    **_raw_and_distilled("gauss", _longer(_GAUSS, 600, 3, "train.kl_ramp=300")),
  },
  seconds={
    **_QUICKSTART.seconds,
    "train teacher": 450,
    "train": 320,
    "likelihood": 60,
  },
  expected=(
    "teacher at least 25 BLEU; distilled above raw; delta1 above delta0"
  ),
  samples=200,
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
      "train.batch_tokens=2048",
      "train.label_smoothing=0.0",
    ),
    # A posterior that tells of y from the start, and a KL term that comes
    # slowly: otherwise its latents would not be used after so few steps.
    "gauss": _longer(
      _GAUSS,
      900,
      3,
      "train.warmup=100",
      "train.kl_start=100",
      "train.kl_ramp=500",
      "model.posterior_gain=2.0",
    ),
  },
  seconds={
    "preprocess": 15,
    "train": 300,
    "translate": 20,
    "bleu": 5,
    "likelihood": 60,
    "benchmark": 15,
    "analyze": 4,
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
_TINY_GAUSS = _longer(_GAUSS, 4, 2, *_NARROW, "model.channels=4")
_TINY = dataclasses.replace(
  _GRAMMAR,
  summary="Every stage on next to nothing, for the tests.",
  runs={
    "teacher": _longer(_TEACHER, 4, 2, *_NARROW),
    **_raw_and_distilled(
      "gauss", dataclasses.replace(_TINY_GAUSS, methods=("delta0", "delta2"))
    ),
  },
  vocab_size=300,
  prepare={"sizes": "8,8,8"},
  seconds={**_GRAMMAR.seconds, "train": 15, "likelihood": 10, "distill": 10},
  expected="a table",
  samples=4,
  batch_sizes=(1, 2),
)

RECIPES: dict[str, Recipe] = {
  "quickstart": _QUICKSTART,
  "embedded": _EMBEDDED,
  "grammar": _GRAMMAR,
  "tiny": _TINY,
}
