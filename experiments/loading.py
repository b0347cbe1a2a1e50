"""Loading what flags ask for: checkpoints, decoding methods, a teacher."""

from collections.abc import Iterable

from latentnmt import checkpoint, decode
from latentnmt.errors import InputError
from latentnmt.runs import RunDirectory


def checkpoint_steps(run: RunDirectory, asked: str) -> list[int]:
  """Returns the steps of a run that --checkpoint asks for, in order.

  Args:
    run: the run.
    asked: "best", "kept" or a step.

  Raises:
    InputError: if there are none.
  """
  if asked == "kept":
    return checkpoint.steps(run) or [checkpoint.find_step(run)]
  step = None if asked == "best" else int(asked)
  return [checkpoint.find_step(run, step)]


def decoding_methods(model, names: Iterable[str]) -> list[decode.Method]:
  """Returns the decoding methods of these names.

  Raises:
    InputError: for an unknown name, or a method that is none of the model's.
  """
  # Methods of other families are known, to be refused for what they are.
  known = tuple(dict.fromkeys((*model.methods, *decode.METHODS)))
  methods = [decode.parse_method(name, known) for name in names]
  for method in methods:
    decode.check_method(model, method)
  return methods


def rankings(methods: Iterable, tokenizer, teacher: str | None) -> dict:
  """Returns what ranks each method's candidates, and what to say of it.

  Args:
    methods: of `latentnmt.decode`.
    tokenizer: of the run that decodes.
    teacher: run directory of the teacher, if one was given.

  Returns:
    (score, fields) by method: the score of the teacher and its "teacher" and
    "teacher_step" for those named -teacher, None and {} for others.

  Raises:
    InputError: if the teacher is missing, not needed, or cannot judge.
  """
  judged = {method: getattr(method, "teacher", False) for method in methods}
  if not any(judged.values()):
    if teacher is not None:
      raise InputError("--teacher is for methods such as delta1-l5-teacher.")
    return dict.fromkeys(judged, (None, {}))
  if teacher is None:
    name = next(method for method in judged if judged[method])
    raise InputError(
      f"{name} needs --teacher: an autoregressive run with the same vocabulary."
    )
  run = RunDirectory(teacher)
  step = checkpoint.find_step(run)
  model, params, vocabulary = checkpoint.load(run, step)
  if not model.exact:
    raise InputError(
      f"--teacher={run} has no exact likelihood to judge by; give an"
      " autoregressive run."
    )
  if vocabulary != tokenizer:
    raise InputError(
      f"--teacher={run} has another vocabulary than the run that it is to"
      " judge; give one trained on the same prepared data."
    )
  told = {"teacher": run.name, "teacher_step": step}
  ranked = decode.teacher_score(model, params), told
  return {m: ranked if judged[m] else (None, {}) for m in judged}
