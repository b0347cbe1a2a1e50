"""Trains, loads, translates and scores tiny models, and checks a prior.

Takes nothing but what an installation without extras has, in half a minute:
`python -W error tests/smoke.py` says of any Python and JAX whether they do.
"""

import os
from pathlib import Path
import platform
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

import flax  # noqa: E402
import jax  # noqa: E402
import numpy as np  # noqa: E402

import latentnmt as ln  # noqa: E402

TRAIN = ln.TrainConfig(
  steps=4,
  eval_every=4,
  log_every=2,
  batch_tokens=256,
  max_length=16,
  max_shapes=1,
  kl_start=2,
  kl_ramp=2,
  label_smoothing=0.0,
)
SMALL = dict(width=16, hidden=16, heads=2)
PRESETS = {
  "transformer_tiny": dict(encoder_layers=1, decoder_layers=1),
  "gauss_tiny": dict(
    channels=8,
    encoder_layers=1,
    posterior_layers=1,
    decoder_layers=1,
    prior=ln.GaussianPriorConfig(layers=1),
  ),
  "dag_tiny": dict(encoder_layers=1, decoder_layers=1),
}
METHODS = {
  "transformer_tiny": "beam2",
  "gauss_tiny": "delta1-l2",
  "dag_tiny": "viterbi",
}


def trained(name, data, folder):
  """Returns model, parameters and tokenizer of a run of a few steps."""
  config = ln.zoo.config(
    name, vocab_size=data.tokenizer.vocab_size, transformer=SMALL,
    **PRESETS[name],
  )  # fmt: skip
  experiment = ln.ExperimentConfig(config, TRAIN)
  return ln.load(ln.fit(experiment, data, folder / name, progress=None))


def check(name, data, splits, folder):
  """Asserts that a model of this preset translates and has a likelihood."""
  model, params, tokenizer = trained(name, data, folder)
  sources, targets = splits["test"]
  lines = ln.translate_lines(
    model, params, tokenizer, sources, ln.parse_method(METHODS[name])
  )
  assert len(lines) == len(sources)
  batch = ln.Batch(tokenizer(sources), tokenizer(targets))
  estimate = ln.log_likelihood(
    model, params, batch, jax.random.key(0), samples=4
  )
  # The truth is on average the likeliest; of untrained models by far.
  assert np.mean(estimate.log_likelihood) < np.mean(data.log_probs("test"))
  if hasattr(model, "prior"):
    ln.testing.check_prior(model.prior, jax.random.key(1))


def main():
  """Checks all kinds of models in a folder of their own."""
  corpus = ln.data.grammar_corpus(sizes=(200, 4, 4), seed=0)
  with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    data = ln.data.prepare(corpus, folder / "data", vocab_size=400)
    for preset in PRESETS:
      check(preset, data, corpus.splits, folder)
  print(
    f"smoke: Python {platform.python_version()}, JAX {jax.__version__}, Flax"
    f" {flax.__version__}: trained, loaded, translated, scored."
  )


if __name__ == "__main__":
  main()
