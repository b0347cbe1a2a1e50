"""The stages of a recipe in a folder: their commands, inputs and outputs."""

from collections.abc import Iterable
import dataclasses
from pathlib import Path

from latentnmt.experiments.study.layout import StudyDirectory
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
class Plan:
  """A recipe in a folder.

  Attributes:
    recipe: what to do.
    study: where everything goes.
    data: prepared data of the user's own; None for the recipe's corpus.
    truncate: cut test sentences that are longer than a model takes.
    text: text of the user's own, to be prepared instead of the recipe's
      corpus.
  """

  recipe: Recipe
  study: StudyDirectory
  data: Path | None = None
  truncate: bool = False
  text: Path | None = None

  def stages(self) -> list[Stage]:
    """Returns all stages, in the order in which they run."""
    runs = self.recipe.runs
    stages = [] if self.data else [self._preprocess()]
    for name in runs:
      for stage in self._training(name):
        if stage not in stages:  # twins share a sweep
          stages.append(stage)
    scored = runs if self.recipe.checkpoint_samples else ()
    stages += map(self._translate, runs)
    stages += map(self._translate_checkpoints, scored)
    stages.append(self._bleu())
    stages += map(self._likelihood, runs)
    stages += map(self._likelihood_of_checkpoints, scored)
    # What a model was trained on does not change its speed.
    raw = (name for name, run in runs.items() if not run.distilled)
    stages += map(self._benchmark, raw)
    return [*stages, self._analyze()]

  @property
  def prepared(self) -> Path:
    """Where the prepared data are, or will be."""
    return self.data or self.study.data

  @property
  def may_not_fit(self) -> bool:
    """Whether this prepares text that is not known to fit the models."""
    known = not self.text and self.recipe.corpus in ("embedded", "grammar")
    return not (known or self.data)

  def _stage(
    self,
    name: str,
    binary: str,
    inputs: Iterable[Path],
    outputs: Iterable[Path],
    **flags,
  ) -> Stage:
    """Makes a stage of a binary and its flags, in the order they are shown."""
    return Stage(
      name=name,
      command=(binary, *_arguments(flags)),
      inputs=tuple(inputs),
      outputs=tuple(outputs),
      seconds=self.recipe.stage_seconds(name),
    )

  def _of_run(
    self, name: str, binary: str, run: str, outputs: Iterable[Path], **flags
  ) -> Stage:
    """Makes a stage that reads the prepared data and a trained run."""
    return self._stage(
      name,
      binary,
      inputs=[self.prepared / "meta.json", self._trained(run)],
      outputs=outputs,
      run=self.study.run(run),
      data=self.prepared,
      **flags,
    )

  def _trained(self, name: str) -> Path:
    return self.study.run(name).finished_path

  def _results(self) -> list[Path]:
    return [self.study.run(name).results_path for name in self.recipe.runs]

  @property
  def _cut(self) -> dict[str, str]:
    return {"truncate": "true"} if self.truncate else {}

  def _preprocess(self) -> Stage:
    recipe = self.recipe
    flags = {} if self.text else dict(recipe.prepare)
    if recipe.train_pairs:
      flags["train_pairs"] = recipe.train_pairs
    return self._stage(
      "preprocess",
      "preprocess",
      inputs=[self.text] if self.text else [],
      outputs=[self.prepared / "meta.json"],
      corpus=self.text or recipe.corpus,
      out=self.prepared,
      vocab_size=recipe.vocab_size,
      **flags,
    )

  # Training.

  def _training(self, name: str) -> list[Stage]:
    """Returns what trains a run, with stages that other runs have, too."""
    distill = [self._distill()] if self.recipe.runs[name].distilled else []
    sweep = [self._sweep(name)] if self.recipe.sweep else []
    return [*distill, *sweep, self._train(name)]

  def _start(self, name: str) -> tuple[list[Path], dict]:
    """Returns what a run starts from, and the flags that say so."""
    if not self.recipe.runs[name].warm_start:
      return [], {}
    return [self._trained("teacher")], {"warm_start": self.study.run("teacher")}

  def _chosen(self, name: str) -> Path:
    return self.study.sweep(self.recipe.runs[name].kind)

  def _sweep(self, name: str) -> Stage:
    run, sweep = self.recipe.runs[name], self.recipe.sweep
    inputs, flags = self._start(name)
    return self._stage(
      f"sweep {run.kind}",
      "sweep",
      inputs=[self.prepared / "meta.json", *inputs],
      outputs=[self._chosen(name)],
      data=self.prepared,
      out=self._chosen(name),
      **_model(run),
      set=run.settings + sweep.settings,
      grid=tuple(
        f"{field}={','.join(map(str, values))}"
        for field, values in sweep.grid.items()
      ),
      **flags,
    )

  def _train(self, name: str) -> Stage:
    run = self.recipe.runs[name]
    data = self.study.distilled if run.distilled else self.prepared
    inputs, flags = self._start(name)
    if self.recipe.sweep:
      inputs.append(self._chosen(name))
      flags["settings_from"] = self._chosen(name)
    return self._stage(
      f"train {name}",
      "train",
      inputs=[data / "meta.json", *inputs],
      outputs=[self._trained(name)],
      run=self.study.run(name),
      data=data,
      **_model(run),
      set=run.settings,
      **flags,
    )

  def _distill(self) -> Stage:
    return self._of_run(
      "distill",
      "distill",
      "teacher",
      outputs=[self.study.distilled / "meta.json"],
      out=self.study.distilled,
      method=self.recipe.distill,
    )

  # Evaluation.

  def _hypotheses(self, name: str) -> list[Path]:
    return [
      path.with_suffix(suffix)
      for method in self.recipe.runs[name].methods
      for path in [self.study.run(name).hypotheses_path("test", method)]
      for suffix in (".txt", ".json")
    ]

  def _translate(self, name: str) -> Stage:
    return self._of_run(
      f"translate {name}",
      "translate",
      name,
      outputs=self._hypotheses(name),
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
      run=tuple(map(self.study.run, runs)),
      data=self.prepared,
    )

  def _likelihood(self, name: str) -> Stage:
    return self._of_run(
      f"likelihood {name}",
      "evaluate_likelihood",
      name,
      outputs=[self.study.run(name).results_path],
      samples=self.recipe.samples,
      **self._cut,
    )

  # How BLEU and likelihood go together in training is seen on dev sentences:
  # what is looked at so often is no test set any more.

  def _of_checkpoints(self, name: str) -> Path:
    """Says which checkpoints were translated with: early stopping decides."""
    method = f"{self.recipe.runs[name].quick_method}.kept"
    path = self.study.run(name).hypotheses_path("dev", method)
    return path.with_suffix(".json")

  def _translate_checkpoints(self, name: str) -> Stage:
    return self._of_run(
      f"translate-checkpoints {name}",
      "translate",
      name,
      outputs=[self._of_checkpoints(name)],
      split="dev",
      checkpoint="kept",
      methods=self.recipe.runs[name].quick_method,
    )

  def _likelihood_of_checkpoints(self, name: str) -> Stage:
    return self._of_run(
      f"likelihood-of-checkpoints {name}",
      "evaluate_likelihood",
      name,
      outputs=[self.study.run(name).results_path],
      split="dev",
      checkpoint="kept",
      samples=self.recipe.checkpoint_samples,
      **self._cut,
    )

  def _benchmark(self, name: str) -> Stage:
    return self._of_run(
      f"benchmark {name}",
      "benchmark",
      name,
      outputs=[self.study.run(name).results_path],
      methods=",".join(self.recipe.runs[name].methods),
      batch_sizes=",".join(map(str, self.recipe.batch_sizes)),
    )

  def _analyze(self) -> Stage:
    reports = map(self.study.report, ("md", "csv", "html"))
    beside = {"paper": self.recipe.paper} if self.recipe.paper else {}
    return self._stage(
      "analyze",
      "analyze",
      inputs=self._results(),
      outputs=[*reports, self.study.findings],
      study=self.study,
      findings="true",
      **beside,
    )


def _model(run) -> dict[str, str]:
  """Returns the flag that says which model a run is of."""
  return {"preset": run.preset} if run.preset else {"model": run.model}


def _arguments(flags: dict) -> list[str]:
  """Writes {"a": 1, "b": (2, 3)} as --a=1 --b=2 --b=3."""
  arguments = []
  for name, value in flags.items():
    values = value if isinstance(value, tuple) else (value,)
    arguments += [f"--{name}={v}" for v in values]
  return arguments
