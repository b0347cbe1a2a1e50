"""The stages of a recipe in a folder: their commands, inputs and outputs."""

import dataclasses
from pathlib import Path

from latentnmt.experiments.study.layout import StudyDirectory
from latentnmt.experiments.study.schema import Recipe

# Stages whose names do not begin with that of their binary.
_BINARIES = {
  "translate-checkpoints": "translate",
  "bleu": "evaluate_bleu",
  "likelihood": "evaluate_likelihood",
  "likelihood-of-checkpoints": "evaluate_likelihood",
}
# How BLEU and likelihood go together in training is seen on dev sentences: what
# is looked at so often is no test set any more.
_KEPT = {"split": "dev", "checkpoint": "kept"}


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
    # What a model was trained on does not change its speed: of twins one does.
    twins = {
      dataclasses.replace(run, distilled=False): name
      for name, run in reversed(runs.items())
    }
    stages += map(self._benchmark, (n for n in runs if n in twins.values()))
    return [*stages, self._analyze()]

  @property
  def prepared(self) -> Path:
    """Folder of the prepared data, there or to be made."""
    return self.data or self.study.data

  @property
  def may_not_fit(self) -> bool:
    """Tells that this prepares text that is not known to fit the models."""
    known = not self.text and self.recipe.corpus in ("embedded", "grammar")
    return not (known or self.data)

  def _stage(self, name: str, inputs: list, outputs: list, **flags) -> Stage:
    """Makes a stage of what its name begins with; None is no file or flag."""
    kind = name.split()[0]
    return Stage(
      name=name,
      command=(_BINARIES.get(kind, kind), *_arguments(flags)),
      inputs=tuple(filter(None, inputs)),
      outputs=tuple(outputs),
      seconds=self.recipe.stage_seconds(name),
    )

  def _of_run(self, kind: str, name: str, outputs: list, **flags) -> Stage:
    """Makes a stage that reads the prepared data and a trained run."""
    run, inputs = self.study.run(name), [self._meta, self._trained(name)]
    where = {"run": run, "data": self.prepared}
    return self._stage(f"{kind} {name}", inputs, outputs, **where, **flags)

  @property
  def _meta(self) -> Path:
    return self.prepared / "meta.json"

  def _trained(self, name: str) -> Path:
    return self.study.run(name).finished_path

  def _results(self, *names: str) -> list[Path]:
    return [self.study.run(name).results_path for name in names]

  @property
  def _cut(self) -> str | None:
    return "true" if self.truncate else None

  def _preprocess(self) -> Stage:
    recipe = self.recipe
    return self._stage(
      "preprocess",
      [self.text],
      [self._meta],
      corpus=self.text or recipe.corpus,
      out=self.prepared,
      vocab_size=recipe.vocab_size,
      **({} if self.text else recipe.prepare),
      train_pairs=recipe.train_pairs,
    )

  # Training.

  def _training(self, name: str) -> list[Stage]:
    """Returns what trains a run, with stages that other runs have, too."""
    distill = [self._distill()] if self.recipe.runs[name].distilled else []
    sweep = [self._sweep(name)] if self.recipe.sweep else []
    return [*distill, *sweep, self._train(name)]

  def _distill(self) -> Stage:
    return self._stage(
      "distill",
      [self._meta, self._trained("teacher")],
      [self.study.distilled / "meta.json"],
      run=self.study.run("teacher"),
      data=self.prepared,
      out=self.study.distilled,
      method=self.recipe.distill,
    )

  def _sweep(self, name: str) -> Stage:
    run, sweep = self.recipe.runs[name], self.recipe.sweep
    chosen = self.study.sweep(run.kind)
    grid = sweep.grid.items()
    return self._stage(
      f"sweep {run.kind}",
      [self._meta, run.warm_start and self._trained("teacher")],
      [chosen],
      data=self.prepared,
      out=chosen,
      preset=run.preset,
      model=run.model,
      set=run.settings + sweep.settings,
      grid=tuple(f"{k}={','.join(map(str, values))}" for k, values in grid),
      warm_start=self.study.run("teacher") if run.warm_start else None,
    )

  def _train(self, name: str) -> Stage:
    run = self.recipe.runs[name]
    data = self.study.distilled if run.distilled else self.prepared
    teacher = self.study.run("teacher") if run.warm_start else None
    chosen = self.study.sweep(run.kind) if self.recipe.sweep else None
    return self._stage(
      f"train {name}",
      [data / "meta.json", teacher and teacher.finished_path, chosen],
      [self._trained(name)],
      run=self.study.run(name),
      data=data,
      preset=run.preset,
      model=run.model,
      set=run.settings,
      warm_start=teacher,
      settings_from=chosen,
    )

  # Evaluation.

  def _hypotheses(self, name: str) -> list[Path]:
    run, methods = self.study.run(name), self.recipe.runs[name].methods
    texts = [run.hypotheses_path("test", method) for method in methods]
    return [*texts, *(path.with_suffix(".json") for path in texts)]

  def _translate(self, name: str) -> Stage:
    methods = list(self.recipe.runs[name].methods)
    found, cut = self._hypotheses(name), self._cut
    return self._of_run("translate", name, found, methods=methods, truncate=cut)

  def _bleu(self) -> Stage:
    runs = list(self.recipe.runs)
    scored = runs if self.recipe.checkpoint_samples else []
    inputs = [path for name in runs for path in self._hypotheses(name)]
    return self._stage(
      "bleu",
      [*inputs, *map(self._of_checkpoints, scored)],
      self._results(*runs),
      run=tuple(map(self.study.run, runs)),
      data=self.prepared,
    )

  def _likelihood(self, name: str) -> Stage:
    flags = {"samples": self.recipe.samples, "truncate": self._cut}
    return self._of_run("likelihood", name, self._results(name), **flags)

  def _of_checkpoints(self, name: str) -> Path:
    """Says which checkpoints were translated with: early stopping decides."""
    method = f"{self.recipe.runs[name].quick_method}.kept"
    path = self.study.run(name).hypotheses_path("dev", method)
    return path.with_suffix(".json")

  def _translate_checkpoints(self, name: str) -> Stage:
    kind, found = "translate-checkpoints", [self._of_checkpoints(name)]
    flags = _KEPT | {"methods": self.recipe.runs[name].quick_method}
    return self._of_run(kind, name, found, **flags)

  def _likelihood_of_checkpoints(self, name: str) -> Stage:
    kind, samples = "likelihood-of-checkpoints", self.recipe.checkpoint_samples
    flags = _KEPT | {"samples": samples, "truncate": self._cut}
    return self._of_run(kind, name, self._results(name), **flags)

  def _benchmark(self, name: str) -> Stage:
    methods, sizes = self.recipe.runs[name].methods, self.recipe.batch_sizes
    flags = {"methods": list(methods), "batch_sizes": list(sizes)}
    return self._of_run("benchmark", name, self._results(name), **flags)

  def _analyze(self) -> Stage:
    return self._stage(
      "analyze",
      self._results(*self.recipe.runs),
      [*map(self.study.report, ("md", "csv", "html")), self.study.findings],
      study=self.study,
      findings="true",
      paper=self.recipe.paper,
    )


def _arguments(flags: dict) -> list[str]:
  """Writes {"a": 1, "b": (2, 3), "c": [4, 5]} as --a=1 --b=2 --b=3 --c=4,5."""
  arguments = []
  for name, value in flags.items():
    if isinstance(value, list):
      value = ",".join(map(str, value))
    values = value if isinstance(value, tuple) else (value,)
    arguments += [f"--{name}={v}" for v in values if v is not None]
  return arguments
