"""From flags to the configuration of a training."""

from collections.abc import Sequence
import dataclasses

from latentnmt import zoo
from latentnmt.config import (
  CustomModelConfig,
  CustomOutputConfig,
  CustomPriorConfig,
  ExperimentConfig,
  TrainConfig,
  TransformerConfig,
  field_names,
  override,
)
from latentnmt.errors import InputError
from latentnmt.models import build, can_smooth


def experiment_config(
  vocab_size: int,
  settings: Sequence[str] = (),
  *,
  preset: str | None = None,
  model: str | None = None,
  prior: str | None = None,
  output: str | None = None,
) -> ExperimentConfig:
  """Returns a model's configuration and its training's, settings applied.

  Args:
    vocab_size: V.
    settings: "field=value", applied last.
    preset: name in `zoo`.
    model: instead of a preset, one's own, package.module:Class.
    prior: of one's own, in place of the preset's.
    output: of one's own, in place of the preset's.

  Raises:
    InputError: for an unknown preset or field, anything but one of preset and
      model, a model or part that cannot be built, or a part that the model
      does not have.
  """
  if (preset is None) == (model is None):
    raise InputError("Give either --preset or --model.")
  if preset:
    chosen = zoo.config(preset, vocab_size=vocab_size)
  else:
    chosen = CustomModelConfig(model, TransformerConfig(vocab_size))
  if prior:
    if "prior" not in field_names(chosen):
      raise InputError(
        f"{preset or model} has no latents, so it takes no --prior."
      )
    chosen = dataclasses.replace(chosen, prior=CustomPriorConfig(prior))
  if output:
    if "output" not in field_names(chosen):
      raise InputError(
        f"{preset or model} has no output distribution, so it takes no"
        " --output."
      )
    chosen = dataclasses.replace(chosen, output=CustomOutputConfig(output))
  config = ExperimentConfig(chosen, TrainConfig(), preset=preset or model)
  # What cannot be built says so now.
  if not can_smooth(build(override(config, *settings).model)):
    settings = ("train.label_smoothing=0.0", *settings)
  return override(config, *settings)
