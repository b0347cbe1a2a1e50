import pytest

from experiments.recipes import RECIPES
from experiments.study import Study
from latentnmt import config, decode, zoo

RUNS = [(r, name) for r, recipe in RECIPES.items() for name in recipe.runs]
FAMILIES = {
  config.AutoregressiveConfig: (decode.Greedy, decode.Beam),
  config.LatentConfig: (decode.Delta,),
}


@pytest.fixture(params=RECIPES)
def recipe(request):
  return RECIPES[request.param]


@pytest.fixture
def stages(recipe, tmp_path):
  return Study(recipe, tmp_path).stages()


def experiment(recipe, run):
  model = zoo.config(run.preset, vocab_size=recipe.vocab_size)
  return config.override(
    config.ExperimentConfig(model, config.TrainConfig()), *run.settings
  )


@pytest.mark.parametrize("recipe, name", RUNS)
def test_settings_and_methods_are_valid(recipe, name):
  recipe = RECIPES[recipe]
  run = recipe.runs[name]
  model = experiment(recipe, run).model
  for method in run.methods:
    parsed = decode.parse_method(method)
    assert str(parsed) == method
    assert isinstance(parsed, FAMILIES[type(model)])


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
  "name, minutes", [("quickstart", 15), ("embedded", 120), ("grammar", 30)]
)
def test_expected_times_keep_their_promise(name, minutes, tmp_path):
  stages = Study(RECIPES[name], tmp_path).stages()
  assert sum(stage.seconds for stage in stages) <= 60 * minutes


def test_every_input_was_written_by_an_earlier_stage(stages):
  written = set()
  for stage in stages:
    assert set(stage.inputs) <= written, stage.name
    written |= set(stage.outputs)


def test_stage_names_are_unique(stages):
  assert len({stage.name for stage in stages}) == len(stages)


def test_data_of_ones_own_replace_the_corpus(recipe, tmp_path):
  stages = Study(recipe, tmp_path / "study", tmp_path / "mine").stages()
  assert stages[0].name == "train teacher"
  assert f"--data={tmp_path / 'mine'}" in stages[0].command
  assert not any(stage.name == "preprocess" for stage in stages)
