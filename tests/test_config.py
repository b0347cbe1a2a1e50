import json

import pytest

from latentnmt import config
from latentnmt.config.ranges import _RANGES
from latentnmt.errors import InputError

TRANSFORMER = config.TransformerConfig(vocab_size=100, width=64, heads=4)
MODELS = {
  "autoregressive": config.AutoregressiveConfig(TRANSFORMER),
  "gaussian": config.LatentConfig(TRANSFORMER, channels=8),
  "standard": config.LatentConfig(
    TRANSFORMER, prior=config.StandardNormalPriorConfig()
  ),
  "flow": config.LatentConfig(
    TRANSFORMER, channels=8, prior=config.FlowPriorConfig((2, 1), ("t", "ca"))
  ),
  "custom": config.LatentConfig(
    TRANSFORMER,
    prior=config.CustomPriorConfig("a.b:C", fields=(("layers", 2),)),
  ),
  "own": config.CustomModelConfig(
    "a.b:D", TRANSFORMER, fields=(("hidden", 8),), family="bags of words"
  ),
}
FAMILIES = {
  "autoregressive": "autoregressive",
  "gaussian": "Gaussian prior",
  "standard": "standard normal prior",
  "flow": "flow prior",
  "custom": "custom prior",
  "own": "bags of words",
}


def experiment(model="gaussian", **train):
  return config.ExperimentConfig(MODELS[model], config.TrainConfig(**train))


@pytest.mark.parametrize("name", MODELS)
def test_json_round_trip(name):
  original = experiment(name)
  text = json.dumps(config.to_dict(original))
  assert config.from_dict(json.loads(text)) == original


@pytest.mark.parametrize(
  "assignment, path, value",
  [
    ("train.steps=7", ("train", "steps"), 7),
    ("train.learning_rate=2", ("train", "learning_rate"), 2.0),
    ("train.nonfinite=skip", ("train", "nonfinite"), "skip"),
    ("model.length_gradient=True", ("model", "length_gradient"), True),
    ("model.prior.layers=1", ("model", "prior", "layers"), 1),
    (
      "model.transformer.dtype=bfloat16",
      ("model", "transformer", "dtype"),
      "bfloat16",
    ),
  ],
)
def test_override_sets_one_field(assignment, path, value):
  changed = config.override(experiment(), assignment)
  result = changed
  for name in path:
    result = getattr(result, name)
  assert result == value and type(result) is type(value)
  before, after = map(config.flatten, (experiment(), changed))
  assert [k for k in before if before[k] != after[k]] == [".".join(path)]


def test_override_applies_in_order():
  changed = config.override(experiment(), "train.steps=1", "train.steps=2")
  assert changed.train.steps == 2


@pytest.mark.parametrize("order", [1, -1])
def test_fields_of_a_group_are_checked_together(order):
  settings = ["model.transformer.width=90", "model.transformer.heads=3"]
  changed = config.override(experiment(), *settings[::order])
  assert changed.model.transformer.width == 90
  assert changed.model.transformer.heads == 3


def test_override_takes_a_flow_s_steps_and_plans():
  settings = ["model.prior.steps=(4,4,2)", "model.prior.plans=('a','cat','c')"]
  prior = config.override(experiment("flow"), *settings).model.prior
  assert prior == config.FlowPriorConfig((4, 4, 2), ("a", "cat", "c"))


@pytest.mark.parametrize(
  "assignment, message",
  [
    ("steps=(4,)", r"steps=\(4,\) and plans=.* of one length"),
    ("steps=4", "should be of type tuple"),
    ("steps=(1, 0)", r"steps=\(1, 0\); it should be 1 or more"),
    ("steps=(1, 2.0)", "whole numbers"),
    ("plans=('cat', 'up')", "letters 'c', 'a' and 't'"),
    ("plans=('cat', '')", "letters 'c', 'a' and 't'"),
    ("plans=('cat', 1)", "letters 'c', 'a' and 't'"),
    ("hidden=0", "hidden=0; it should be 1 or more"),
    ("coupling=spline", "'affine' and 'additive'"),
  ],
)
def test_override_refuses_for_a_flow(assignment, message):
  with pytest.raises(InputError, match=message) as error:
    config.override(experiment("flow"), f"model.prior.{assignment}")
  assert "\n" not in str(error.value)


def test_override_takes_tuples():
  changed = config.override(MODELS["custom"], "prior.fields=(('a', 1),)")
  assert changed.prior.fields == (("a", 1),)


@pytest.mark.parametrize(
  "assignment, message",
  [
    ("train.step=7", "no field 'step'.*valid are: steps, batch_tokens"),
    ("train.steps", "not of the form field=value"),
    ("train.steps=many", "should be of type int"),
    ("train.steps=1.5", "should be of type int"),
    ("train.alpha_mix=1", "should be of type bool"),
    ("train=1", "group of fields"),
    ("model.prior=gaussian", "group of fields"),
    ("train.steps.x=1", "no fields of its own"),
    ("train.nonfinite=ignore", "'stop' and 'skip'"),
    ("model.transformer.heads=3", "must divide"),
    ("model.transformer.dtype=float16", "'float32' and 'bfloat16'"),
    ("model.transformer.matmul_dtype=int8", "'float32' and 'bfloat16'"),
    ("model.transformer.heads=0", "heads=0; it should be 1 or more"),
    ("model.transformer.vocab_size=2", "vocab_size=2; .* 3 or more"),
    ("model.transformer.dropout=1.0", "dropout=1.0; .* less than 1"),
    ("model.encoder_layers=0", "encoder_layers=0; .* 1 or more"),
    ("model.prior.layers=0", "layers=0; .* 1 or more"),
    ("model.channels=0", "channels=0; .* 1 or more"),
    ("train.batch_tokens=0", "batch_tokens=0; .* 1 or more"),
    ("train.label_smoothing=-0.1", "label_smoothing=-0.1; .* at least 0"),
    ("train.kl_start=-1", "kl_start=-1; .* 0 or more"),
    ("train.learning_rate=0", "learning_rate=0.0; .* above 0"),
    ("train.learning_rate=1e999", "learning_rate=inf; .* above 0"),
  ],
)
def test_override_refuses(assignment, message):
  with pytest.raises(InputError, match=message) as error:
    config.override(experiment(), assignment)
  assert "\n" not in str(error.value)


def test_every_number_has_a_range():
  ranged = {name for *_, names in _RANGES for name in names.split()}
  groups = [MODELS["gaussian"], MODELS["flow"].prior, TRANSFORMER]
  for part in (experiment().train, *groups):
    for name in config.field_names(part):
      if type(getattr(part, name)) in (int, float):
        assert name in ranged


def test_from_dict_refuses_what_this_version_does_not_have():
  tree = config.to_dict(experiment())
  with pytest.raises(InputError, match="Unknown configuration 'Flow'"):
    config.from_dict({**tree, "type": "Flow"})
  with pytest.raises(InputError, match="wings"):
    config.from_dict({**tree, "wings": 2})


def test_fields_that_were_called_otherwise_are_read():
  tree = config.to_dict(experiment())
  transformer = tree["model"]["transformer"]
  transformer["products"] = transformer.pop("matmul_dtype")
  assert config.from_dict(tree) == experiment()
  transformer["products"] = "bfloat16"
  sizes = config.from_dict(tree).model.transformer
  assert sizes.matmul_dtype == sizes.operand_dtype == "bfloat16"


@pytest.mark.parametrize("name", ["autoregressive", "gaussian", "flow"])
def test_families_are_known_where_no_file_named_them(name):
  tree = config.to_dict(experiment(name))
  model = tree["model"]
  del (model["prior"] if "prior" in model else model)["family"]
  assert config.from_dict(tree) == experiment(name)


@pytest.mark.parametrize("name", MODELS)
def test_every_configuration_says_its_family(name):
  assert MODELS[name].family == FAMILIES[name]


def test_a_model_may_be_given_a_family():
  changed = config.override(experiment(), "model.prior.family=wide Gaussian")
  assert changed.model.family == "wide Gaussian"
  changed = config.override(experiment("own"), "model.fields=(('hidden', 4),)")
  assert changed.model.fields == (("hidden", 4),)
  with pytest.raises(InputError, match="no field 'channels'.*target, transf"):
    config.override(experiment("own"), "model.channels=4")


def test_flat_settings_are_by_path_with_the_type_of_each_group():
  flat = config.flatten(experiment("flow", steps=5))
  assert flat["train.steps"] == 5
  assert flat["model.prior.plans"] == ("t", "ca")
  assert flat["type"] == "ExperimentConfig"
  assert flat["model.type"] == "LatentConfig"
  assert flat["model.prior.type"] == "FlowPriorConfig"
  assert "model" not in flat and "model.prior" not in flat
  other = config.flatten(experiment("autoregressive"))
  assert other["model.type"] == "AutoregressiveConfig"
  assert "model.channels" not in other


def test_configurations_are_hashable():
  assert len({experiment(name) for name in MODELS}) == len(MODELS)
