r"""Translates with a trained run.

  latentnmt translate --run=runs/quickstart/teacher \
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

  latentnmt translate --run=RUN --data=DATA \
    --methods=delta1-l5-s4-t0.5,delta1-l5-s4-t0.5-teacher --teacher=RUN

Their .json says how likely they find what they wrote, "output_tokens" in all,
at the posterior mean m of each translation y, T tokens long, in nats:

  bound_per_token  log p(y|m, x) + log p(m|x) - log q(m|x, y) + log p(T|x)
  eq3_per_token    log p(y|m, x) + log p(m|x), Eq. 3 of the paper
"""

import functools
import sys

from absl import flags
import jax

from latentnmt import checkpoint, data, decode, files, metrics
from latentnmt.errors import InputError
from latentnmt.experiments import app, loading, shared_flags
from latentnmt.experiments.progress import progress
from latentnmt.runs import RunDirectory

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
_TEACHER = shared_flags.teacher_flag()
_SEED = flags.DEFINE_integer("seed", 0, "Of the prior's draws.")
_TRUNCATE = flags.DEFINE_bool(
  "truncate", False, "Cut sources that are longer than the model takes."
)
_BATCH_TOKENS = shared_flags.batch_tokens_flag()


def main(argv):
  """Translates a split of prepared data, or text from a file."""
  del argv
  _check_flags()
  run, split = RunDirectory(_RUN.value), _SPLIT.value
  lines, fingerprint = _sources(_DATA.value, split, _INPUT.value)
  steps = loading.checkpoint_steps(run, _CHECKPOINT.value)
  model, params, tokenizer = checkpoint.load(run, steps[0])
  methods = loading.decoding_methods(model, _METHODS.value)
  rankings = loading.rankings(methods, tokenizer, _TEACHER.value)
  about = {"data": fingerprint}
  about["truncated"] = _count_long(model, tokenizer, lines, _TRUNCATE.value)
  options = {
    "key": jax.random.key(_SEED.value),
    "batch_tokens": _BATCH_TOKENS.value,
    "truncate": _TRUNCATE.value,
    "bound": _DATA.value is not None and not model.exact,
  }
  for step in steps:
    if step != steps[0]:
      # The model stays the first one's, whose programs are compiled.
      _, params, _ = checkpoint.load(run, step)
    for method in methods:
      score, teacher = rankings[method]
      suffix = "" if _CHECKPOINT.value == "best" else f".step{step}"
      name = f"{method}{suffix}"
      bar = functools.partial(progress, desc=name, unit="batch")
      found = decode.translate_corpus(
        *(model, params, tokenizer, lines, method),
        **(options | {"score": score, "progress": bar}),
      )
      if _INPUT.value:
        _write_text(_OUTPUT.value, found.lines)
        continue
      told = {"step": step} | about | teacher
      told |= _seed(method, _SEED.value) | _likelihood(found)
      run.write_hypotheses(split, name, found.lines, told)
  if _CHECKPOINT.value == "kept":
    for method in methods:
      path = run.about_hypotheses_path(split, f"{method}.kept")
      files.write_json(path, {"steps": steps, "data": fingerprint})


def _check_flags() -> None:
  if (_DATA.value is None) == (_INPUT.value is None):
    raise InputError("Give either --data (with --split) or --input.")
  if _INPUT.value and len(_METHODS.value) > 1:
    raise InputError("--input takes one decoding method, not several.")
  if _INPUT.value and _CHECKPOINT.value == "kept":
    raise InputError("--input takes one checkpoint, not all that are kept.")
  if _DATA.value:
    shared_flags.refuse(
      ["output"], "is for --input; --data writes into the run"
    )
  else:
    shared_flags.refuse(["split"], "is for --data; --input is translated whole")


def _sources(
  folder: str | None, split: str, path: str | None
) -> tuple[list[str], str]:
  """Reads the lines to translate, and the fingerprint of data they are of."""
  if folder:
    prepared = data.PreparedData.open(folder)
    return prepared.sources(split), prepared.fingerprint
  return data.read_lines("/dev/stdin" if path == "-" else path), ""


def _count_long(model, tokenizer, lines: list[str], truncate: bool) -> int:
  """Counts sources that the model takes only in part; says so if it does."""
  limit = model.config.transformer.max_length
  long = sum(len(ids) > limit for ids in tokenizer.encode(lines))
  if long and truncate:
    print(
      f"{long:,} of {len(lines):,} sources were cut to {limit} tokens.",
      file=sys.stderr,
    )
  return long


def _seed(method: decode.Method, seed: int) -> dict:
  # A method without a temperature draws nothing.
  return {"seed": seed} if getattr(method, "temperature", 0) else {}


def _likelihood(found: decode.Translations) -> dict:
  """Says how likely the model finds what it wrote, where it was asked."""
  tokens = found.num_tokens
  if found.bound is None or not tokens.any():
    return {}
  return {
    "bound_per_token": metrics.per_token(found.bound.value, tokens),
    "eq3_per_token": metrics.per_token(found.bound.eq3, tokens),
    "output_tokens": int(tokens.sum()),
  }


def _write_text(path: str, lines: list[str]) -> None:
  text = "".join(line + "\n" for line in lines)
  if path == "-":
    sys.stdout.write(text)
  else:
    files.write_text(path, text)


if __name__ == "__main__":
  app.run(main)
