r"""Translates with a trained run.

  python -m experiments.translate --run=runs/quickstart/teacher \
    --data=runs/quickstart/data --methods=greedy,beam4

writes `<run>/hypotheses/<split>.<method>.txt`, one translation a line, for
each method, and beside it a .json of what it is: the checkpoint's "step", the
fingerprint of the "data", how many sources were "truncated". Where
--checkpoint names a step, or asks for all that are kept, files are named
`<split>.<method>.step<N>.txt`; in the end `<split>.<method>.kept.json` lists
the steps. Text of one's own: --input=FILE (or - for
standard input), one method, to standard output or --output=FILE.

Latent models choose among candidates, lengths x samples of the prior, by their
own bound or by a teacher's log p(y|x):

  python -m experiments.translate --run=RUN --data=DATA \
    --methods=delta1-l5-s4-t0.5,delta1-l5-s4-t0.5-teacher --teacher=RUN

Their .json says how likely they find what they wrote, "output_tokens" in all,
at the posterior mean m of each translation y, T tokens long, in nats:

  bound_per_token  log p(y|m, x) + log p(m|x) - log q(m|x, y) + log p(T|x)
  eq3_per_token    log p(y|m, x) + log p(m|x), Eq. 3 of the paper
"""

import functools
from pathlib import Path
import sys

from absl import flags
import jax

from latentnmt import checkpoint, data, decode, files, metrics
from latentnmt.config import AutoregressiveConfig
from latentnmt.errors import InputError
from latentnmt.experiments import app, shared_flags
from latentnmt.experiments.progress import progress

_RUN = shared_flags.run_flag()
_CHECKPOINT = shared_flags.checkpoint_flag(several=True)
_DATA = shared_flags.data_flag(required=False)
_SPLIT = shared_flags.split_flag()
_INPUT = flags.DEFINE_string(
  "input", None, "Source sentences, one a line; - for standard input."
)
_OUTPUT = flags.DEFINE_string(
  "output", "-", "Where translations of --input go; - for standard output."
)
_METHODS = shared_flags.methods_flag()
shared_flags.teacher_flag()
_SEED = flags.DEFINE_integer("seed", 0, "Of the prior's draws.")
_TRUNCATE = flags.DEFINE_bool(
  "truncate", False, "Cut sources that are longer than the model takes."
)
_BATCH_TOKENS = shared_flags.batch_tokens_flag()


def main(argv):
  """Translates a split of prepared data, or text from a file."""
  del argv
  methods = [decode.parse_method(name) for name in _METHODS.value]
  _check_flags(methods)
  lines, fingerprint = _sources()
  steps = shared_flags.checkpoint_steps(_RUN.value)
  model, params, tokenizer = checkpoint.load(_RUN.value, steps[0])
  _check_family(model, methods)
  rankings = shared_flags.rankings(methods, tokenizer)
  truncated = _count_long(model, tokenizer, lines)
  for step in steps:
    if step != steps[0]:
      # The model stays the first one's, whose programs are compiled.
      _, params, _ = checkpoint.load(_RUN.value, step)
    for method in methods:
      score, teacher = rankings[method]
      name = _name(method, step)
      found = decode.translate_corpus(
        model,
        params,
        tokenizer,
        lines,
        method,
        score=score,
        key=jax.random.key(_SEED.value),
        batch_tokens=_BATCH_TOKENS.value,
        progress=functools.partial(progress, desc=name, unit="batch"),
        truncate=_TRUNCATE.value,
        bound=_DATA.value is not None and isinstance(method, decode.Delta),
      )
      about = {"step": step, "data": fingerprint, "truncated": truncated}
      _write(name, found.lines, about | teacher | _about(method, found))
  if _CHECKPOINT.value == "kept":
    for method in methods:
      where = _RUN.value, _SPLIT.value, f"{method}.kept"
      path = checkpoint.hypotheses_path(*where).with_suffix(".json")
      files.write_json(path, {"steps": steps, "data": fingerprint})


def _check_flags(methods: list[decode.Method]) -> None:
  if (_DATA.value is None) == (_INPUT.value is None):
    raise InputError("Give either --data (with --split) or --input.")
  if _INPUT.value and len(methods) > 1:
    raise InputError("--input takes one decoding method, not several.")
  if _INPUT.value and _CHECKPOINT.value == "kept":
    raise InputError("--input takes one checkpoint, not all that are kept.")
  if _DATA.value:
    shared_flags.refuse(
      ["output"], "is for --input; --data writes into the run"
    )
  else:
    shared_flags.refuse(["split"], "is for --data; --input is translated whole")


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
  path = "/dev/stdin" if _INPUT.value == "-" else _INPUT.value
  return data.read_lines(path), ""


def _name(method: decode.Method, step: int) -> str:
  """What the translations are called after their split."""
  suffix = "" if _CHECKPOINT.value == "best" else f".step{step}"
  return f"{method}{suffix}"


def _about(method: decode.Method, found: decode.Translations) -> dict:
  """The seed where it mattered, the likelihood where it was asked for."""
  about = {}
  if getattr(method, "temperature", 0):
    about["seed"] = _SEED.value
  tokens = found.num_tokens
  if found.bound is not None and tokens.any():
    about["bound_per_token"] = metrics.per_token(found.bound.value, tokens)
    about["eq3_per_token"] = metrics.per_token(found.bound.eq3, tokens)
    about["output_tokens"] = int(tokens.sum())
  return about


def _write(name: str, lines: list[str], about: dict) -> None:
  if _DATA.value:
    where = _RUN.value, _SPLIT.value, name
    path = checkpoint.hypotheses_path(*where).with_suffix(".json")
    # Killed in between, new translations must not stand beside what was said
    # of the old ones.
    path.unlink(missing_ok=True)
    checkpoint.write_hypotheses(*where, lines)
    files.write_json(path, about)
    return
  text = "".join(line + "\n" for line in lines)
  if _OUTPUT.value == "-":
    sys.stdout.write(text)
  else:
    files.write_text(Path(_OUTPUT.value), text)


if __name__ == "__main__":
  app.run(main)
