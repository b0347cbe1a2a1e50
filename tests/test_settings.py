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
