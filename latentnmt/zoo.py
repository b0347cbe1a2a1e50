"""Presets: the models of the paper and small ones for a laptop.

A preset is written as its difference from another. Parameter counts, with
V = 31,500 and one embedding behind source, target and softmax: BUILD_NOTES.md.
"""

import dataclasses
from typing import Any

from latentnmt import config as cfg
from latentnmt.errors import InputError


def _like(parent: str | type, **changes) -> tuple[str | type, dict[str, Any]]:
  """Describes a preset by its difference; a dict changes fields of a group.

  The parent is a preset or, of a root, the class of its configuration.
  """
  return parent, changes


_SMALL = dict(
  transformer=dict(width=256, hidden=1024, heads=2),
  encoder_layers=5,
  decoder_layers=5,
)
_TINY = dict(
  transformer=dict(width=128, hidden=512, heads=4, shared_dropout=False),
  encoder_layers=2,
  decoder_layers=2,
)
_TINY_FLOW = cfg.FlowPriorConfig((3, 2), ("ca", "c"), hidden=128, heads=2)
_OURS = dict(shared_dropout=False)

# The sizes of the paper's section 4 and appendix, each root and what differs
# from it; "tiny" is for a laptop. Where no public code sets the default,
# dropout is what learns most from the same data.
_PRESETS: dict[str, tuple[str | type, dict[str, Any]]] = {
  "transformer_base": _like(cfg.AutoregressiveConfig),
  "transformer_small": _like("transformer_base", **_SMALL),
  "transformer_large": _like(
    "transformer_base",
    transformer=dict(width=1024, hidden=4096, heads=16, dropout=0.3),
  ),
  "transformer_tiny": _like("transformer_base", **_TINY),
  "gauss_base": _like(cfg.LatentConfig, transformer=dict(heads=4)),
  "gauss_large": _like(
    "gauss_base",
    transformer=dict(heads=8),
    posterior_layers=4,
    decoder_layers=6,
    prior=cfg.GaussianPriorConfig(layers=4),
  ),
  "gauss_base_iwslt": _like(
    "gauss_base",
    transformer=dict(width=256, hidden=1024, dropout=0.2),
    channels=256,
    encoder_layers=5,
  ),
  "gauss_tiny": _like(
    "gauss_base",
    transformer=dict(width=128, hidden=512, shared_dropout=False),
    channels=32,
    encoder_layers=2,
    posterior_layers=2,
    decoder_layers=2,
    prior=cfg.GaussianPriorConfig(layers=2),
  ),
  "flow_base": _like(
    cfg.LatentConfig,
    transformer=dict(width=320, hidden=1024),
    channels=320,
    posterior_layers=4,
    decoder_layers=4,
    prior=cfg.FlowPriorConfig(remat=True),
  ),
  "flow_base_75m": _like("flow_base", posterior_layers=6, decoder_layers=6),
  "flow_small": _like("flow_base", prior=dict(steps=(4, 4, 4))),
  "flow_base_iwslt": _like(
    "flow_base",
    transformer=dict(width=256, heads=4, dropout=0.2),
    channels=256,
    encoder_layers=5,
    posterior_layers=3,
    decoder_layers=3,
    prior=dict(hidden=512, heads=4),
  ),
  "flow_small_iwslt": _like("flow_base_iwslt", prior=dict(steps=(4, 4, 4))),
  "flow_tiny": _like(  # the sizes of gauss_tiny, with another prior
    "gauss_tiny",
    prior=_TINY_FLOW,
  ),
  # Ours: one pass and an exact likelihood, at the sizes of the Transformers.
  "ctc_base": _like(cfg.OnePassConfig, transformer=_OURS),
  "ctc_small": _like("ctc_base", **_SMALL),
  "ctc_tiny": _like("ctc_base", **_TINY),
  "dag_base": _like("ctc_base", output=cfg.DagConfig()),
  "dag_small": _like("dag_base", **_SMALL),
  "dag_tiny": _like("dag_base", **_TINY),
  "factorised_base": _like("ctc_base", output=cfg.FactorisedConfig()),
  "factorised_small": _like("factorised_base", **_SMALL),
  "factorised_tiny": _like("factorised_base", **_TINY),
  # And the same with latents on source positions.
  "ctc_gauss_base": _like(cfg.SourceLatentConfig, transformer=_OURS),
  "ctc_gauss_small": _like("ctc_gauss_base", **_SMALL),
  "ctc_gauss_tiny": _like(
    "ctc_gauss_base",
    **_TINY,
    posterior_layers=2,
    prior=cfg.GaussianPriorConfig(layers=2),
  ),
  "ctc_flow_base": _like(
    "ctc_gauss_base", prior=cfg.FlowPriorConfig((4, 4), ("ca", "c"))
  ),
  "ctc_flow_small": _like(
    "ctc_flow_base", **_SMALL, prior=dict(hidden=320, heads=4)
  ),
  "ctc_flow_tiny": _like("ctc_gauss_tiny", prior=_TINY_FLOW),
  "dag_gauss_base": _like("ctc_gauss_base", output=cfg.DagConfig()),
  "dag_gauss_small": _like("dag_gauss_base", **_SMALL),
  "dag_gauss_tiny": _like("ctc_gauss_tiny", output=cfg.DagConfig()),
}


def names() -> list[str]:
  """Returns the name of every preset."""
  return list(_PRESETS)


def config(name: str, *, vocab_size: int, **changes) -> cfg.ModelConfig:
  """Returns the configuration of a preset.

  Args:
    name: one of `names()`.
    vocab_size: V.
    **changes: fields of the model's configuration to replace; a dict for
      `transformer` or `prior` replaces fields of that group.

  Raises:
    InputError: for an unknown preset (the valid ones are named) or field.
  """
  if name not in _PRESETS:
    raise InputError(
      f"Unknown preset {name!r}; valid are: {', '.join(names())}."
    )
  parent, difference = _PRESETS[name]
  if parent in _PRESETS:
    base = config(parent, vocab_size=vocab_size)
  else:
    base = parent(cfg.TransformerConfig(vocab_size))
  return _change(_change(base, difference), changes)  # yours have the last word


def _change(base: cfg.ModelConfig, changes: dict) -> cfg.ModelConfig:
  """Replaces fields, and fields of groups where a value is a dict."""
  changes = dict(changes)
  for name, value in changes.items():
    if name not in cfg.field_names(base):
      raise InputError(
        f"{type(base).__name__} has no field {name!r}; valid are:"
        f" {', '.join(cfg.field_names(base))}."
      )
    if isinstance(value, dict):
      changes[name] = _change(getattr(base, name), value)
  return dataclasses.replace(base, **changes)
