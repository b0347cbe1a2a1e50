import dataclasses

import pytest
import test_zoo

from latentnmt import config, data, decode, models, zoo
from latentnmt.experiments import sweep
from latentnmt.experiments.lee2020 import published as paper
from latentnmt.experiments.lee2020 import recipes as pairs
from latentnmt.experiments.lee2020.recipes import PAIRS
from latentnmt.experiments.study.layout import StudyDirectory
from latentnmt.experiments.study.recipes import RECIPES
from latentnmt.experiments.study.stages import Plan

RUNS = [(r, name) for r, recipe in RECIPES.items() for name in recipe.runs]


@pytest.fixture(params=RECIPES)
def recipe(request):
  return RECIPES[request.param]


@pytest.fixture
def stages(recipe, tmp_path):
  return planned(recipe, tmp_path).stages()


def planned(recipe, folder):
  """The study of a recipe, of text in `folder` where it has no corpus."""
  text = None if recipe.corpus else folder / "text"
  return plan(recipe, folder, text=text)


def plan(recipe, folder, **fields):
  return Plan(recipe, StudyDirectory(folder), **fields)


def experiment(recipe, run, settings=None):
  model = zoo.config(run.preset, vocab_size=recipe.vocab_size)
  return config.override(
    config.ExperimentConfig(model, config.TrainConfig()),
    *(settings or run.settings),
  )


@pytest.mark.parametrize("recipe, name", RUNS)
def test_settings_and_methods_are_valid(recipe, name):
  recipe = RECIPES[recipe]
  run = recipe.runs[name]
  model = models.build(experiment(recipe, run).model)
  for method in run.methods:
    parsed = decode.parse_method(method)
    assert str(parsed) == method
    assert isinstance(parsed, model.methods)
  assert run.quick_method == str(model.methods[0]())


@pytest.mark.parametrize("recipe, name", RUNS)
def test_training_ends_in_a_dev_evaluation(recipe, name):
  recipe = RECIPES[recipe]
  train = experiment(recipe, recipe.runs[name]).train
  assert train.steps % train.eval_every == 0


def test_raw_and_distilled_twins_differ_in_their_data_only(recipe):
  for name, run in recipe.runs.items():
    twin = recipe.runs.get(name.replace("-distilled", "-raw"), run)
    assert (run.preset, run.settings, run.methods) == (
      twin.preset,
      twin.settings,
      twin.methods,
    )


def test_distilled_data_come_from_a_teacher_trained_before(recipe):
  names = list(recipe.runs)
  if any(run.distilled for run in recipe.runs.values()):
    assert names[0] == "teacher" and not recipe.runs["teacher"].distilled
    decode.parse_method(recipe.distill)


def test_every_stage_has_an_expected_time(recipe, stages):
  assert all(stage.seconds > 0 for stage in stages)
  names = {s.name for s in stages}
  used = names | {name.split()[0] for name in names}
  assert set(recipe.seconds) <= used | {"distill"}


@pytest.mark.parametrize(
  "name, minutes",
  [
    ("quickstart", 20),
    ("embedded", 120),
    ("grammar", 30),
    ("tatoeba_deen_cpu", 180),
  ],
)
def test_expected_times_keep_their_promise(name, minutes, tmp_path):
  stages = planned(RECIPES[name], tmp_path).stages()
  assert sum(stage.seconds for stage in stages) <= 60 * minutes


def test_every_input_was_written_by_an_earlier_stage(stages, tmp_path):
  written = {tmp_path / "text"}
  for stage in stages:
    assert set(stage.inputs) <= written, stage.name
    written |= set(stage.outputs)


def test_stage_names_are_unique(stages):
  assert len({stage.name for stage in stages}) == len(stages)


def test_data_of_ones_own_replace_the_corpus(recipe, tmp_path):
  stages = plan(recipe, tmp_path / "study", data=tmp_path / "mine").stages()
  assert stages[0].inputs == (tmp_path / "mine" / "meta.json",)
  assert f"--data={tmp_path / 'mine'}" in stages[0].command
  assert not any(stage.name == "preprocess" for stage in stages)


@pytest.mark.parametrize("name", ["tatoeba_deen", "grammar"])
def test_text_of_ones_own_is_prepared_instead_of_the_corpus(name, tmp_path):
  recipe = dataclasses.replace(RECIPES[name], train_pairs=7)
  mine = tmp_path / "mine.tsv"
  stage, *_ = plan(recipe, tmp_path / "study", text=mine).stages()
  assert stage.command[:2] == ("preprocess", f"--corpus={mine}")
  assert "--train_pairs=7" in stage.command and stage.inputs == (mine,)
  # What is said of the recipe's corpus is not said of this.
  assert not any("--sizes" in argument for argument in stage.command)


# The paper's five language pairs.

WMT = {"gauss_base", "gauss_large", "flow_small", "flow_base"}
TABLE_1 = {
  "wmt14": WMT | {f"transformer_{size}" for size in ("small", "base", "large")},
  "wmt16": WMT | {"transformer_small", "transformer_base"},
  "iwslt16": {
    "transformer_small",
    "gauss_base_iwslt",
    "flow_small_iwslt",
    "flow_base_iwslt",
  },
}


@pytest.fixture(params=PAIRS)
def pair(request):
  return request.param


def test_a_pair_trains_every_model_of_table_1_twice(pair):
  corpus = pair.split("_")[0]
  runs = PAIRS[pair].runs.values()
  for distilled in (False, True):
    presets = [run.preset for run in runs if run.distilled == distilled]
    assert sorted(presets) == sorted(TABLE_1[corpus])
  teacher = "small" if corpus == "iwslt16" else "base"
  assert PAIRS[pair].runs["teacher"].preset == f"transformer_{teacher}"
  assert PAIRS[pair].distill == "beam4"


def test_a_pair_translates_in_the_direction_of_its_name(pair):
  recipe = PAIRS[pair]
  corpus, *direction = pair.split("_")
  languages = data.PUBLISHED[recipe.corpus].languages
  swapped = recipe.prepare.get("swap") == "true"
  assert recipe.corpus.startswith(corpus)
  assert tuple(direction) == (languages[::-1] if swapped else languages)


def test_a_pair_has_the_settings_of_the_paper(pair):
  recipe = PAIRS[pair]
  assert (recipe.vocab_size, recipe.samples) == (32_000, 1000)
  for run in recipe.runs.values():
    train = experiment(recipe, run).train
    assert train.max_length == 64
    assert (train.kl_start, train.kl_ramp, train.alpha) == (5000, 20_000, 1e-4)
    assert (train.clip, train.learning_rate) == (1.0, 1.0)
    if run.preset.startswith("transformer"):
      assert "beam4" in run.methods
    else:
      assert run.methods == ("delta0", "delta1", "delta2", "delta4", "delta8")


def test_early_stopping_leaves_eight_checkpoints(pair):
  recipe = PAIRS[pair]
  train = experiment(recipe, recipe.runs["teacher"]).train
  assert train.keep_every % train.eval_every == 0
  assert train.patience * train.eval_every // train.keep_every >= 8


def test_a_sweep_comes_before_the_trainings_that_take_what_it_chose(
  pair, tmp_path
):
  recipe, folder = PAIRS[pair], tmp_path
  stages = plan(recipe, folder).stages()
  names = [stage.name for stage in stages]
  for name, run in recipe.runs.items():
    chosen = folder / "sweep" / f"{run.preset}.json"
    sweep = stages[names.index(f"sweep {run.preset}")]
    train = stages[names.index(f"train {name}")]
    assert stages.index(sweep) < stages.index(train)
    assert sweep.outputs == (chosen,) and chosen in train.inputs
    assert f"--settings_from={chosen}" in train.command
    assert f"--data={folder / 'data'}" in sweep.command


def test_every_point_of_a_sweep_is_a_valid_training(pair):
  recipe = PAIRS[pair]
  grid = [f"{k}={','.join(map(str, v))}" for k, v in recipe.sweep.grid.items()]
  for point in sweep.grid_points(grid):
    for run in recipe.runs.values():
      settings = run.settings + recipe.sweep.settings + point
      train = experiment(recipe, run, settings).train
      assert train.steps % train.eval_every == 0
      assert train.steps > train.kl_start + train.kl_ramp
      assert train.keep_every == 0


def test_times_are_for_the_presets_at_their_size():
  exact = {k: 1e6 * v for k, v in test_zoo.COUNTS.items()} | test_zoo.FLOWS
  for name, count in pairs._PARAMETERS.items():
    assert count == pytest.approx(exact[name], rel=0.03), name


def test_a_report_checks_the_findings(stages):
  *_, last = stages
  assert last.command[0] == "analyze" and "--findings=true" in last.command
  assert "findings.md" in {path.name for path in last.outputs}


def test_the_figures_of_a_pair_are_its_own(pair, tmp_path):
  *_, last = plan(PAIRS[pair], tmp_path).stages()
  assert f"--paper={pair}" in last.command and pair in paper.NAMES
  shown = {preset.removesuffix("_iwslt") for preset in TABLE_1[pair[:-6]]}
  assert shown == set(paper.QUALITY[pair])
