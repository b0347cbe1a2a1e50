"""The run directory: what a training run leaves behind, and reading it back.

  config.json      the ExperimentConfig
  vocab.model      the tokenizer
  checkpoints/     latest two, best by dev BLEU, every `keep_every` steps, and
                   while training one between evaluations, to continue from
  metrics.jsonl    one line per log point and dev evaluation
  finished.json    written last: why and where training ended
  hypotheses/      <split>.<method>.txt, translations
  results.jsonl    one line per evaluation

Files are the interface between the binaries; every file appears whole
(written beside its place, then renamed) or grows by whole lines.
"""

from latentnmt.checkpoint.checkpoints import (
  Checkpoints,
  Progress,
  example_batch,
  find_step,
  load,
  steps,
)
from latentnmt.checkpoint.directory import (
  append_line,
  append_result,
  create,
  finished,
  hypotheses_path,
  mark_finished,
  read_config,
  read_lines,
  read_results,
  write_hypotheses,
  write_lines,
)

__all__ = [
  "Checkpoints",
  "Progress",
  "append_line",
  "append_result",
  "create",
  "example_batch",
  "find_step",
  "finished",
  "hypotheses_path",
  "load",
  "mark_finished",
  "read_config",
  "read_lines",
  "read_results",
  "steps",
  "write_hypotheses",
  "write_lines",
]
