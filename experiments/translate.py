r"""Translates with a trained run.

  python -m experiments.translate --run=runs/quickstart/teacher \
    --data=runs/quickstart/data --methods=greedy,beam4

writes `<run>/hypotheses/<split>.<method>.txt`, one translation a line, for
each method, and beside it a .json of what it is: the checkpoint's "step", the
fingerprint of the "data", and how many sources were "truncated". Text of one's
own: --input=FILE (or - for standard input), one method, to standard output or
--output=FILE.
"""

import functools
from pathlib import Path
import sys

from absl import flags

from experiments import common
from latentnmt import checkpoint, data, decode
from latentnmt.config import AutoregressiveConfig
from latentnmt.types import InputError

_RUN = common.run_flag()
common.checkpoint_flag()
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
_BATCH_TOKENS = common.batch_tokens_flag()


def main(argv):
  """Translates a split of prepared data, or text from a file."""
  del argv
  methods = [decode.parse_method(name) for name in _METHODS.value]
  if (_DATA.value is None) == (_INPUT.value is None):
    raise InputError("Give either --data (with --split) or --input.")
  if _INPUT.value and len(methods) > 1:
    raise InputError("--input takes one decoding method, not several.")
  if _DATA.value:
    common.refuse(["output"], "is for --input; --data writes into the run")
  lines, fingerprint = _sources()
  (step,) = common.checkpoint_steps(_RUN.value)
  model, params, tokenizer = checkpoint.load(_RUN.value, step)
  _check_family(model, methods)
  about = {
    "step": step,
    "data": fingerprint,
    "truncated": _count_long(model, tokenizer, lines),
  }
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
    _write(method, hypotheses, about)


def _check_family(model, methods: list[decode.Method]) -> None:
  """Refuses methods that are not the model's before any is decoded by."""
  exact = isinstance(model.config, AutoregressiveConfig)
  for method in methods:
    if isinstance(method, decode.Delta) == exact:
      raise InputError(
        f"{_RUN.value} cannot decode by {method}: its model is"
        f" {'autoregressive' if exact else 'latent'} and takes"
        f" {'greedy or beam' if exact else 'delta'}."
      )


def _count_long(model, tokenizer, lines: list[str]) -> int:
  """How many sources the model takes only in part; says so."""
  limit = model.config.transformer.max_length
  long = sum(len(ids) > limit for ids in tokenizer.encode(lines))
  if long and _TRUNCATE.value:
    print(
      f"{long:,} of {len(lines):,} sources were cut to {limit} tokens.",
      file=sys.stderr,
    )
  return long


def _sources() -> tuple[list[str], str]:
  """The lines to translate, and the fingerprint of the data they are of."""
  if _DATA.value:
    prepared = data.PreparedData.open(_DATA.value)
    return prepared.sources(_SPLIT.value), prepared.fingerprint
  common.refuse(["split"], "is for --data; --input is translated whole")
  path = "/dev/stdin" if _INPUT.value == "-" else _INPUT.value
  return data.read_lines(path), ""


def _write(method: decode.Method, lines: list[str], about: dict) -> None:
  if _DATA.value:
    where = _RUN.value, _SPLIT.value, method
    path = checkpoint.hypotheses_path(*where).with_suffix(".json")
    # Killed in between, new translations must not stand beside what was said
    # of the old ones.
    path.unlink(missing_ok=True)
    checkpoint.write_hypotheses(*where, lines)
    common.write_json(path, about)
    return
  text = "".join(line + "\n" for line in lines)
  if _OUTPUT.value == "-":
    sys.stdout.write(text)
  else:
    common.write_text(Path(_OUTPUT.value), text)


if __name__ == "__main__":
  common.run(main)
