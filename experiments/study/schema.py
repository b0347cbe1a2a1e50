"""Recipes: corpus, models, training, decoding and expectations."""

from collections.abc import Mapping
import dataclasses

from latentnmt.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
  """A model to train, translate with and score.

  Attributes:
    preset: name in `zoo`.
    model: instead of a preset, one's own, as `train --model` takes it.
    settings: changes of the model and of the training, "field=value".
    methods: decoding methods, as `translate --methods` takes them.
    quick_method: what dev BLEU and kept checkpoints are measured with: the
      default of the first in the model's `methods`.
    distilled: train on the teacher's translations, not on the references.
    warm_start: start from the teacher's modules of the same names and shapes.
  """

  preset: str | None = None
  model: str | None = None
  settings: tuple[str, ...] = ()
  methods: tuple[str, ...]
  quick_method: str
  distilled: bool = False
  warm_start: bool = False

  def __post_init__(self):
    if (self.preset is None) == (self.model is None):
      raise InputError("A run of a recipe has either a preset or a model.")

  @property
  def kind(self) -> str:
    """The preset, or the class of a model of one's own."""
    return self.preset or self.model


@dataclasses.dataclass(frozen=True)
class Sweep:
  """Settings that short trainings choose for each model, by dev BLEU.

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
    runs: name to run, in order; the first is "teacher" where any trains on
      distilled data or starts warm.
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

  def __post_init__(self):
    needed = any(run.distilled or run.warm_start for run in self.runs.values())
    if needed and next(iter(self.runs)) != "teacher":
      raise InputError(
        "The first run of a recipe with distilled data or warm starts is"
        " 'teacher'."
      )

  def stage_seconds(self, stage: str) -> float:
    """Returns the expected seconds of a stage, by its name or its kind."""
    return self.seconds.get(stage, self.seconds.get(stage.split()[0], 0.0))


def train(**fields: object) -> tuple[str, ...]:
  """Writes settings of the training: "train.steps=3" for steps=3."""
  return tuple(f"train.{name}={value}" for name, value in fields.items())


def longer(run: Run, count: int, evaluations: int, *settings: str) -> Run:
  """Trains a run for longer: of settings given twice the last counts."""
  length = train(steps=count, eval_every=count // evaluations)
  settings = run.settings + length + settings
  return dataclasses.replace(run, settings=settings)


def kept(run: Run, count: int, checkpoints: int, *settings: str) -> Run:
  """Trains for longer, with a checkpoint kept at each dev evaluation."""
  keep = train(keep_every=count // checkpoints)
  return longer(run, count, checkpoints, *keep, *settings)


def refined(run: Run) -> Run:
  """Decodes with every number of refinements in the paper's tables."""
  methods = tuple(f"delta{k}" for k in (0, 1, 2, 4, 8))
  return dataclasses.replace(run, methods=methods, quick_method="delta1")


def raw_and_distilled(name: str, run: Run) -> dict[str, Run]:
  """Pairs a run with its twin, trained on the teacher's translations."""
  return {
    f"{name}-raw": run,
    f"{name}-distilled": dataclasses.replace(run, distilled=True),
  }
