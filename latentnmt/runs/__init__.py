"""The run directory: what a training run leaves behind, file by file.

  config.json      the `ExperimentConfig`
  vocab.model      the tokenizer
  checkpoints/     see `latentnmt.checkpoint`
  metrics.jsonl    one line for each log point and dev evaluation
  finished.json    written last: why and where training ended
  hypotheses/      translations, <split>.<method>.txt, and what they are, .json;
                   <split>.<method>.kept.json, which checkpoints have some
  likelihood/      figures of each sentence, <split>.<step>.npz
  results.jsonl    one line for each `Result`
  figures/         pictures
  tensorboard/     events

Files are the interface between the binaries. `RunDirectory` knows all of them
and nothing else does. Nothing here imports JAX.
"""

from latentnmt.runs.directory import RunDirectory
from latentnmt.runs.results import Result

__all__ = ["Result", "RunDirectory"]
