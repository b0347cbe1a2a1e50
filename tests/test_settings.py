"""From flags to a configuration: a preset or a model, a prior, settings."""

import pathlib

import pytest

from latentnmt import config
from latentnmt.errors import InputError
from latentnmt.experiments.settings import experiment_config

BAG = "bag_of_words:BagOfWords"
SMALL = "model.transformer.width=16", "model.transformer.heads=2"


@pytest.fixture(autouse=True)
def importable(monkeypatch):
  folder = pathlib.Path(__file__).parent / "own_family"
  monkeypatch.syspath_prepend(str(folder))


def test_settings_change_a_preset():
  found = experiment_config(9, ["train.steps=3"], preset="gauss_tiny")
  assert found.preset == "gauss_tiny" and found.train.steps == 3
  assert found.model.transformer.vocab_size == 9


def test_a_model_of_ones_own_has_sizes_and_fields():
  settings = *SMALL, "model.fields=(('hidden', 8),)", "model.family=bags"
  found = experiment_config(9, settings, model=BAG)
  sizes = config.TransformerConfig(9, width=16, heads=2)
  fields = (("hidden", 8),)
  assert found.model == config.CustomModelConfig(BAG, sizes, fields, "bags")
  assert found.preset == BAG  # what runs of it are called in a report
  assert config.from_dict(config.to_dict(found)) == found


def test_a_prior_is_for_models_that_have_one():
  prior = "priors_of_ours:Shifted"
  found = experiment_config(9, preset="gauss_tiny", prior=prior)
  assert found.model.prior == config.CustomPriorConfig(prior)
  for other in {"preset": "transformer_tiny"}, {"model": BAG}:
    with pytest.raises(InputError, match="takes no --prior"):
      experiment_config(9, prior=prior, **other)


@pytest.mark.parametrize(
  "given, message",
  [
    ({}, "either --preset or --model"),
    ({"preset": "gauss_tiny", "model": BAG}, "either --preset or --model"),
    ({"model": "nowhere:Model"}, "No module named 'nowhere'"),
    ({"model": "BagOfWords"}, "not of the form package.module:NAME"),
    ({"model": "bag_of_words:RECIPE"}, "Cannot build the model"),
  ],
)
def test_what_cannot_be_built_says_so(given, message):
  with pytest.raises(InputError, match=message):
    experiment_config(9, **given)


def test_an_output_is_for_models_that_have_one():
  output = "latentnmt.outputs:Ctc"
  found = experiment_config(9, preset="dag_tiny", output=output)
  assert found.model.output == config.CustomOutputConfig(output)
  assert config.from_dict(config.to_dict(found)) == found
  for other in {"preset": "gauss_tiny"}, {"model": BAG}:
    with pytest.raises(InputError, match="takes no --output"):
      experiment_config(9, output=output, **other)


def test_what_is_exact_is_smoothed_only_if_one_asks_for_it():
  for preset, smoothing in ("ctc_tiny", 0.0), ("transformer_tiny", 0.1):
    found = experiment_config(9, preset=preset)
    assert found.train.label_smoothing == smoothing
  asked = experiment_config(9, ["train.label_smoothing=0.2"], preset="ctc_tiny")
  assert asked.train.label_smoothing == 0.2  # which `fit` refuses
