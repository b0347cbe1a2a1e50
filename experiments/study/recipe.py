"""What a recipe is: corpus, models, training, decoding and expectations."""

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
  def quick_method(self) -> str:
    """What dev BLEU is measured with: one cheap pass."""
    return "greedy" if self.methods[0] == "greedy" else "delta1"


@dataclasses.dataclass(frozen=True)
class Sweep:
  """Settings that short trainings choose for each preset, by dev BLEU.

  They are trained on the corpus itself; a distilled twin takes the same.

  Attributes:
    grid: the values tried of each field; every combination is trained.
    settings: of the short trainings, after those of the run.
  """

  grid: Mapping[str, tuple]
  settings: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Recipe:
  """A study from text to table.

  Attributes:
    summary: what it shows.
    corpus: as `preprocess --corpus` takes it; None for the user's own.
    vocab_size: V, pieces of the shared vocabulary.
    runs: name to run, in order; the run "teacher" comes before any that
      trains on distilled data.
    seconds: expected time of each stage by its name, or by its first word for
      all stages of that kind.
    expected: the numbers to expect, for people.
    hardware: what `seconds` are for, and how they are known if not measured.
    prepare: further flags of `preprocess` for `corpus`, by name.
    train_pairs: training pairs at most, evenly spaced ones; None for all.
    sweep: what is chosen on dev before the trainings; None for nothing.
    distill: the teacher's decoding method.
    samples: K, samples of the posterior per likelihood.
    checkpoint_samples: K of the likelihood of every kept checkpoint on dev;
      0 for a study that does not score them.
    batch_sizes: sentences decoded at once in the benchmark.
    paper: language pair of which the paper's own figures stand beside.
  """

  summary: str
  corpus: str | None
  vocab_size: int
  runs: Mapping[str, Run]
  seconds: Mapping[str, float]
  expected: str
  hardware: str = "two cores"
  prepare: Mapping[str, str] = dataclasses.field(default_factory=dict)
  train_pairs: int | None = None
  sweep: Sweep | None = None
  distill: str = "beam4"
  samples: int = 100
  checkpoint_samples: int = 0
  batch_sizes: tuple[int, ...] = (1, 32)
  paper: str | None = None

  def stage_seconds(self, stage: str) -> float:
    """Expected seconds of a stage, by its name or else by its kind."""
    return self.seconds.get(stage, self.seconds.get(stage.split()[0], 0.0))


def steps(count: int, evaluations: int) -> tuple[str, ...]:
  """Training for `count` steps with so many dev evaluations on the way."""
  return (
    f"train.steps={count}",
    f"train.eval_every={count // evaluations}",
  )


def longer(run: Run, count: int, evaluations: int, *settings: str) -> Run:
  """The same run trained for longer: of settings given twice the last wins."""
  settings = run.settings + steps(count, evaluations) + settings
  return dataclasses.replace(run, settings=settings)


def kept(run: Run, count: int, checkpoints: int, *settings: str) -> Run:
  """As `longer`, with a checkpoint kept at each dev evaluation."""
  keep = f"train.keep_every={count // checkpoints}"
  return longer(run, count, checkpoints, keep, *settings)


def refined(run: Run) -> Run:
  """With every number of refinements in the paper's tables."""
  return dataclasses.replace(
    run, methods=tuple(f"delta{k}" for k in (0, 1, 2, 4, 8))
  )


def raw_and_distilled(name: str, run: Run) -> dict[str, Run]:
  """A run and its twin, trained on the teacher's translations."""
  return {
    f"{name}-raw": run,
    f"{name}-distilled": dataclasses.replace(run, distilled=True),
  }
