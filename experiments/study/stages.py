"""The stages of a recipe in a folder: their commands, inputs and outputs."""

import dataclasses
from pathlib import Path

from latentnmt.experiments.study.recipe import Recipe


@dataclasses.dataclass(frozen=True)
class Stage:
  """One process of a study.

  Attributes:
    name: unique in the study.
    command: name of a binary, then its flags.
    inputs: files that the user or an earlier stage wrote.
    outputs: files that are there when the stage is finished.
    seconds: how long it is expected to take.
  """

  name: str
  command: tuple[str, ...]
  inputs: tuple[Path, ...]
  outputs: tuple[Path, ...]
  seconds: float


@dataclasses.dataclass(frozen=True)
class Study:
  """A recipe in a folder.

  Attributes:
    recipe: what to do.
    folder: where everything goes.
    data: prepared data of the user's own; None for the recipe's corpus.
    truncate: cut test sentences that are longer than a model takes.
    text: text of the user's own, to be prepared instead of the recipe's
      corpus.
  """

  recipe: Recipe
  folder: Path
  data: Path | None = None
  truncate: bool = False
  text: Path | None = None

  def stages(self) -> list[Stage]:
    """All stages, in the order in which they run."""
    runs = self.recipe.runs
    stages = [] if self.data else [self._preprocess()]
    for name in runs:
      for stage in self._training(name):
        if stage not in stages:  # twins share a sweep
          stages.append(stage)
    scored = bool(self.recipe.checkpoint_samples)
    stages += [self._translate(name) for name in runs]
    stages += [self._translate_checkpoints(name) for name in runs if scored]
    stages.append(self._bleu())
    stages += [self._likelihood(name) for name in runs]
    stages += [self._likelihood_of_checkpoints(name) for name in runs if scored]
    # What a model was trained on does not change its speed.
    raw = [name for name, run in runs.items() if not run.distilled]
    stages += [self._benchmark(name) for name in raw]
    return [*stages, self._analyze()]

  def _training(self, name: str) -> list[Stage]:
    """What a run is trained by, stages that other runs have too among it."""
    run = self.recipe.runs[name]
    distill = [self._distill()] if run.distilled else []
    sweep = [self._sweep(name)] if self.recipe.sweep else []
    return [*distill, *sweep, self._train(name)]

  @property
  def prepared(self) -> Path:
    """Where the prepared data are, or will be."""
    return self.data or self.folder / "data"

  @property
  def _distilled(self) -> Path:
    return self.folder / "data-distilled"

  def _trained(self, name: str) -> Path:
    return self.folder / name / "finished.json"

  def _hypotheses(self, name: str) -> list[Path]:
    folder = self.folder / name / "hypotheses"
    return [
      folder / f"test.{method}.{kind}"
      for method in self.recipe.runs[name].methods
      for kind in ("txt", "json")
    ]

  @property
  def _cut(self) -> dict[str, str]:
    return {"truncate": "true"} if self.truncate else {}

  def _results(self) -> list[Path]:
    return [self.folder / name / "results.jsonl" for name in self.recipe.runs]

  def _stage(self, name, binary, *, inputs, outputs, **options) -> Stage:
    return Stage(
      name=name,
      command=(binary, *_as_flags(options)),
      inputs=tuple(inputs),
      outputs=tuple(outputs),
      seconds=self.recipe.stage_seconds(name),
    )

  def _preprocess(self) -> Stage:
    recipe = self.recipe
    options = {} if self.text else dict(recipe.prepare)
    if recipe.train_pairs:
      options["train_pairs"] = recipe.train_pairs
    return self._stage(
      "preprocess",
      "preprocess",
      inputs=[self.text] if self.text else [],
      outputs=[self.prepared / "meta.json"],
      corpus=self.text or recipe.corpus,
      out=self.prepared,
      vocab_size=recipe.vocab_size,
      **options,
    )

  def _chosen(self, name: str) -> Path:
    """Where the sweep of a run's preset says what it chose."""
    preset = self.recipe.runs[name].preset
    return self.folder / "sweep" / f"{preset}.json"

  def _start(self, name: str) -> tuple[list[Path], dict]:
    """What a run of the recipe starts from, and the flags that say so."""
    if not self.recipe.runs[name].warm_start:
      return [], {}
    return [self._trained("teacher")], {"warm_start": self.folder / "teacher"}

  def _sweep(self, name: str) -> Stage:
    run, sweep = self.recipe.runs[name], self.recipe.sweep
    inputs, options = self._start(name)
    return self._stage(
      f"sweep {run.preset}",
      "sweep",
      inputs=[self.prepared / "meta.json", *inputs],
      outputs=[self._chosen(name)],
      data=self.prepared,
      out=self._chosen(name),
      preset=run.preset,
      set=run.settings + sweep.settings,
      grid=tuple(
        f"{field}={','.join(map(str, values))}"
        for field, values in sweep.grid.items()
      ),
      **options,
    )

  def _train(self, name: str) -> Stage:
    run = self.recipe.runs[name]
    data = self._distilled if run.distilled else self.prepared
    inputs, options = self._start(name)
    if self.recipe.sweep:
      inputs.append(self._chosen(name))
      options["settings_from"] = self._chosen(name)
    return self._stage(
      f"train {name}",
      "train",
      inputs=[data / "meta.json", *inputs],
      outputs=[self._trained(name)],
      run=self.folder / name,
      data=data,
      preset=run.preset,
      set=run.settings,
      **options,
    )

  def _distill(self) -> Stage:
    return self._stage(
      "distill",
      "distill",
      inputs=[self.prepared / "meta.json", self._trained("teacher")],
      outputs=[self._distilled / "meta.json"],
      run=self.folder / "teacher",
      data=self.prepared,
      out=self._distilled,
      method=self.recipe.distill,
    )

  def _translate(self, name: str) -> Stage:
    return self._stage(
      f"translate {name}",
      "translate",
      inputs=[self.prepared / "meta.json", self._trained(name)],
      outputs=self._hypotheses(name),
      run=self.folder / name,
      data=self.prepared,
      methods=",".join(self.recipe.runs[name].methods),
      **self._cut,
    )

  def _bleu(self) -> Stage:
    runs, inputs = self.recipe.runs, []
    for name in runs:
      inputs += self._hypotheses(name)
      if self.recipe.checkpoint_samples:
        inputs.append(self._of_checkpoints(name))
    return self._stage(
      "bleu",
      "evaluate_bleu",
      inputs=inputs,
      outputs=self._results(),
      run=tuple(self.folder / name for name in runs),
      data=self.prepared,
    )

  def _likelihood(self, name: str) -> Stage:
    return self._stage(
      f"likelihood {name}",
      "evaluate_likelihood",
      inputs=[self.prepared / "meta.json", self._trained(name)],
      outputs=[self.folder / name / "results.jsonl"],
      run=self.folder / name,
      data=self.prepared,
      samples=self.recipe.samples,
      **self._cut,
    )

  # How BLEU and likelihood go together in training is seen on dev sentences:
  # what is looked at so often is no test set any more.

  def _of_checkpoints(self, name: str) -> Path:
    """Says which checkpoints were translated with: early stopping decides."""
    method = self.recipe.runs[name].quick_method
    return self.folder / name / "hypotheses" / f"dev.{method}.kept.json"

  def _translate_checkpoints(self, name: str) -> Stage:
    return self._stage(
      f"translate-checkpoints {name}",
      "translate",
      inputs=[self.prepared / "meta.json", self._trained(name)],
      outputs=[self._of_checkpoints(name)],
      run=self.folder / name,
      data=self.prepared,
      split="dev",
      checkpoint="kept",
      methods=self.recipe.runs[name].quick_method,
    )

  def _likelihood_of_checkpoints(self, name: str) -> Stage:
    return self._stage(
      f"likelihood-of-checkpoints {name}",
      "evaluate_likelihood",
      inputs=[self.prepared / "meta.json", self._trained(name)],
      outputs=[self.folder / name / "results.jsonl"],
      run=self.folder / name,
      data=self.prepared,
      split="dev",
      checkpoint="kept",
      samples=self.recipe.checkpoint_samples,
      **self._cut,
    )

  def _benchmark(self, name: str) -> Stage:
    return self._stage(
      f"benchmark {name}",
      "benchmark",
      inputs=[self.prepared / "meta.json", self._trained(name)],
      outputs=[self.folder / name / "results.jsonl"],
      run=self.folder / name,
      data=self.prepared,
      methods=",".join(self.recipe.runs[name].methods),
      batch_sizes=",".join(map(str, self.recipe.batch_sizes)),
    )

  def _analyze(self) -> Stage:
    reports = [f"report.{kind}" for kind in ("md", "csv", "html")]
    beside = {"paper": self.recipe.paper} if self.recipe.paper else {}
    return self._stage(
      "analyze",
      "analyze",
      inputs=self._results(),
      outputs=[self.folder / name for name in (*reports, "findings.md")],
      study=self.folder,
      findings="true",
      **beside,
    )


def _as_flags(options: dict) -> list[str]:
  """{"a": 1, "b": (2, 3)} as --a=1 --b=2 --b=3."""
  arguments = []
  for name, value in options.items():
    values = value if isinstance(value, tuple) else (value,)
    arguments += [f"--{name}={v}" for v in values]
  return arguments


def check_lengths(recipe: Recipe, path: Path, truncate: bool) -> None:
  """Refuses data that a stage after hours of training would refuse.

  Dev sources are translated while a model trains, test pairs are translated
  and scored, and dev pairs where checkpoints are; `truncate` allows all but the
  first to be too long.

  Raises:
    InputError: names the split, the side and the first line.
  """
  # JAX comes with these: only studies of one's own data wait for it.
  from latentnmt.data import PreparedData
  from latentnmt.errors import InputError
  from latentnmt.experiments.settings import experiment_config

  prepared = PreparedData.open(path)
  limits, vocab_size = {}, prepared.tokenizer.vocab_size
  for name, run in recipe.runs.items():
    full = experiment_config(run.preset, vocab_size, run.settings)
    limits[name] = full.model.transformer.max_length
  name = min(limits, key=limits.get)
  sides = [("dev", "source", 0)]
  if not truncate:
    sides += [("test", "source", 0), ("test", "target", 1)]
    sides += [("dev", "target", 1)] if recipe.checkpoint_samples else []
  for split, side, column in sides:
    lengths = prepared.store(split).lengths[:, column]
    long = (lengths > limits[name]).nonzero()[0]
    if len(long):
      raise InputError(
        f"{path}: {len(long):,} of {len(lengths):,} {split} {side}s are longer"
        f" than the {limits[name]} tokens that {name} takes, the first in line"
        f" {long[0] + 1} ({lengths[long[0]]} tokens); shorten or remove them"
        + ("." if (split, column) == ("dev", 0) else " or give --truncate.")
      )
