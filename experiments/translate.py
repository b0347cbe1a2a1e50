r"""Translates with a trained run.

  python -m experiments.translate --run=runs/quickstart/teacher \
    --data=runs/quickstart/data --methods=greedy,beam4

writes `<run>/hypotheses/<split>.<method>.txt`, one translation a line, for
each method. Text of one's own: --input=FILE (or - for standard input), one
method, to standard output or --output=FILE.
"""

import functools
from pathlib import Path
import sys

from absl import flags

from experiments import common
from latentnmt import checkpoint, data, decode
from latentnmt.types import InputError

_RUN = common.run_flag()
_CHECKPOINT = common.checkpoint_flag()
_DATA = common.data_flag(required=False)
_SPLIT = common.split_flag()
_INPUT = flags.DEFINE_string(
  "input", None, "Source sentences, one a line; - for standard input."
)
_OUTPUT = flags.DEFINE_string(
  "output", "-", "Where translations of --input go; - for standard output."
)
_METHODS = common.methods_flag()
_TRUNCATE = flags.DEFINE_bool(
  "truncate", False, "Cut sources that are longer than the model takes."
)
_BATCH_TOKENS = flags.DEFINE_integer(
  "batch_tokens", 4096, "Sentences times source length of a batch.", 1
)


def main(argv):
  """Translates a split of prepared data, or text from a file."""
  del argv
  methods = [decode.parse_method(name) for name in _METHODS.value]
  if (_DATA.value is None) == (_INPUT.value is None):
    raise InputError("Give either --data (with --split) or --input.")
  if _INPUT.value and len(methods) > 1:
    raise InputError("--input takes one decoding method, not several.")
  lines = _sources()
  model, params, tokenizer = checkpoint.load(_RUN.value, _CHECKPOINT.value)
  for method in methods:
    hypotheses = decode.translate_lines(
      model,
      params,
      tokenizer,
      lines,
      method,
      batch_tokens=_BATCH_TOKENS.value,
      progress=functools.partial(
        common.progress, desc=str(method), unit="batch"
      ),
      truncate=_TRUNCATE.value,
    )
    _write(method, hypotheses)


def _sources() -> list[str]:
  if _DATA.value:
    return data.PreparedData.open(_DATA.value).sources(_SPLIT.value)
  path = "/dev/stdin" if _INPUT.value == "-" else _INPUT.value
  return data.read_lines(path)


def _write(method: decode.Method, lines: list[str]) -> None:
  if _DATA.value:
    checkpoint.write_hypotheses(_RUN.value, _SPLIT.value, method, lines)
    return
  text = "".join(line + "\n" for line in lines)
  if _OUTPUT.value == "-":
    sys.stdout.write(text)
  else:
    common.write_text(Path(_OUTPUT.value), text)


if __name__ == "__main__":
  common.run(main)
