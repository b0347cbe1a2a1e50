r"""Replaces training targets by a teacher's translations of the sources.

  latentnmt distill --run=runs/quickstart/teacher \
    --data=runs/quickstart/data --out=runs/quickstart/data-distilled

The result is prepared data like the original but for the training targets;
its meta.json tells what made them, when, where and how fast. Translations are
kept in `<out>.parts/` until all are there, so that a process cut off continues
where it was, with the batches it had. All devices of a process share each
batch.

Several processes, on one host or on many that see the same folders, share the
parts: start the command with --shard=0/8 to --shard=7/8, in any order and at
any time. When they are through, the same command without --shard puts the
parts together (and translates what is missing).

Sources longer than what the teacher was trained on keep their reference:
training leaves them out anyway.
"""

from collections.abc import Iterator
import dataclasses
import datetime
import hashlib
import json
from pathlib import Path
import re
import shutil
import time

from absl import flags
import jax
import numpy as np

import latentnmt
from latentnmt import checkpoint, data, decode, files
from latentnmt.errors import InputError
from latentnmt.experiments import app, hardware, loading, shared_flags
from latentnmt.experiments.progress import progress
from latentnmt.models import build
from latentnmt.runs import Result, RunDirectory

_RUN = shared_flags.run_flag("Run directory of the teacher.")
_CHECKPOINT = shared_flags.checkpoint_flag()
_DATA = shared_flags.data_flag()
_OUT = flags.DEFINE_string(
  "out", None, "Prepared data directory to write.", required=True
)
_METHOD = flags.DEFINE_string("method", "beam4", "Decoding method.")
_SHARD = flags.DEFINE_string(
  "shard",
  None,
  "i/n: translate only part i, i + n, i + 2n and so on, with i from 0.",
)
_BATCH_TOKENS = shared_flags.batch_tokens_flag()
_PART = 4096  # sentences, about, that are written at once
_REMEDY = "delete it or give another --out"


def main(argv):
  """Translates the training sources and writes the new data."""
  del argv
  shard, run = parse_shard(_SHARD.value), RunDirectory(_RUN.value)
  model = build(run.config().model)
  (method,) = loading.decoding_methods(model, [_METHOD.value])
  (step,) = loading.checkpoint_steps(run, _CHECKPOINT.value)
  teacher = Teacher(run, step, method, _BATCH_TOKENS.value)
  distill(teacher, data.PreparedData.open(_DATA.value), Path(_OUT.value), shard)


def parse_shard(text: str | None) -> tuple[int, int]:
  """Reads "i/n" as (i, n), and None as (0, 1), which is everything.

  Raises:
    InputError: for what is not of that form, or an i that is not below n.
  """
  if text is None:
    return 0, 1
  numbers = re.fullmatch(r"(\d+)/(\d+)", text)
  number, count = map(int, numbers.groups()) if numbers else (0, 0)
  if number >= count:
    raise InputError(f"--shard={text}; give i/n with i from 0 to n - 1.")
  return number, count


@dataclasses.dataclass(frozen=True)
class Teacher:
  """A checkpoint of a run, and how it translates."""

  run: RunDirectory
  step: int
  method: decode.Method
  batch_tokens: int

  def provenance(self, prepared: data.PreparedData) -> dict:
    """Returns what determines the new targets."""
    # As the file has it: what this version makes of it may have more fields.
    settings = json.dumps(self.run.config_tree()).encode()
    return {
      "data": prepared.fingerprint,
      "teacher": self.run.name,
      "teacher_config": hashlib.sha256(settings).hexdigest()[:16],
      "step": self.step,
      "method": str(self.method),
    }


def distill(
  teacher: Teacher, prepared: data.PreparedData, out: Path, shard=(0, 1)
) -> None:
  """Writes prepared data with the teacher's translations, or a shard's parts.

  Raises:
    InputError: for data or parts that are there and were made otherwise.
  """
  provenance = teacher.provenance(prepared)
  folder = out.with_name(out.name + ".parts")
  if _is_finished(out, provenance):
    print(f"{out} is finished.")
    shutil.rmtree(folder, ignore_errors=True)
    return
  # The parts are the same only if the batches are.
  _claim(folder, {**provenance, "batch_tokens": teacher.batch_tokens})
  parts = list(_translate(teacher, prepared, folder, shard))
  if shard != (0, 1):
    print(
      f"shard {'/'.join(map(str, shard))}: {len(parts):,} parts are in"
      f" {folder}; when all shards are through, the same without --shard puts"
      " them together."
    )
    return
  targets = prepared.targets("train")
  for part in parts:
    for i, line in zip(part["ids"], part["lines"], strict=True):
      targets[i] = line.replace("\n", " ")
  # Said before the data appear: once they do, nothing here is run again.
  about = _report(teacher, provenance, len(targets), parts)
  data.with_targets(prepared, out, targets, provenance, about)
  shutil.rmtree(folder)


def _is_finished(out: Path, provenance: dict) -> bool:
  meta = files.read_json(out / "meta.json")
  if meta is not None:
    old = meta["made_from"].get("targets", {})
    files.check_made_from(out, old, provenance, _REMEDY)
  elif out.exists() and any(out.iterdir()):
    raise InputError(f"{out} exists and is no prepared corpus; name another.")
  return meta is not None


def _claim(parts: Path, provenance: dict) -> None:
  """Makes the folder of parts, or checks that those in it are ours."""
  old = files.read_json(parts / "made_from.json")
  if old is None:
    files.write_json(parts / "made_from.json", provenance)
  else:
    files.check_made_from(parts, old, provenance, _REMEDY)


def _translate(
  teacher: Teacher, prepared: data.PreparedData, folder: Path, shard
) -> Iterator[dict]:
  """Yields every part of a shard, those not yet there made now.

  A part has "ids", "lines", the "seconds" they took and on which "device".
  """
  loaded = checkpoint.load(teacher.run, teacher.step)
  groups = _groups(teacher, loaded[2].encode(prepared.sources("train")))
  mine = range(shard[0], len(groups), shard[1])
  total = sum(len(_ids(groups[number])) for number in mine)
  with progress(total=total, desc="distill", unit="sentence") as bar:
    for number in mine:
      path, ids = folder / f"{number:05d}.json", _ids(groups[number])
      part = files.read_json(path)
      if part is None:
        part = _part(*loaded, teacher.method, groups[number], bar)
        files.write_json(path, part)
      elif sorted(part["ids"]) == sorted(ids):
        bar.update(len(ids))
      else:
        raise InputError(
          f"{path} has other sentences than are planned for it now; delete"
          f" {folder}."
        )
      yield part


def _groups(teacher: Teacher, encoded: list[list[int]]) -> list[list]:
  """Plans batches of sentences that are short enough, in groups for parts.

  Each group has about `_PART` sentences, the same ones every time.
  """
  limit = teacher.run.config().train.max_length
  short = np.array([i for i, x in enumerate(encoded) if len(x) <= limit], int)
  batches = data.length_batches(
    [encoded[i] for i in short], batch_tokens=teacher.batch_tokens
  )
  groups, size = [], _PART
  for rows, x in batches:
    if size >= _PART:
      groups.append([])
      size = 0
    # Sentences are known by their number in the corpus, -1 for none.
    groups[-1].append((np.where(rows < 0, -1, short[rows]), x))
    size += len(rows)
  return groups


def _ids(group: list) -> list[int]:
  return [int(i) for ids, _ in group for i in ids[ids >= 0]]


def _part(model, params, tokenizer, method: decode.Method, group, bar) -> dict:
  """Translates a group of batches."""
  start, lines = time.monotonic(), []
  for ids, best, _ in decode.translate_batches(model, params, group, method):
    found, _ = decode.chosen_lines(tokenizer, method, best.tokens[ids >= 0])
    lines += found
    bar.update(int(np.sum(ids >= 0)))
  return {
    "ids": _ids(group),
    "lines": lines,
    "seconds": time.monotonic() - start,
    "device": hardware.device_description(),
  }


def _report(
  teacher: Teacher, provenance: dict, pairs: int, parts: list[dict]
) -> dict:
  """Says how fast it went, here and in the teacher's results.

  Returns:
    What is to be known of the translations, but does not determine them.
  """
  translated = sum(len(part["ids"]) for part in parts)
  rate = translated / sum(part["seconds"] for part in parts)
  devices = sorted({part.get("device", "unknown") for part in parts})
  date = datetime.date.today().isoformat()
  print(
    f"{translated:,} of {pairs:,} training sources translated by"
    f" {teacher.method}, {rate:.1f} sentences/s a process with compilation;"
    f" {pairs - translated:,} too long ones keep their reference."
  )
  result = Result(
    "sentences_per_second", rate, split="train", step=teacher.step,
    method=str(teacher.method), details={"device": ", ".join(devices)},
  )  # fmt: skip
  teacher.run.append_result(result)
  return {
    "signature": signature(provenance, date),
    "date": date,
    "translated": translated,
    "kept_references": pairs - translated,
    "sentences_per_second": round(rate, 1),
    "devices": devices,
  }


def signature(provenance: dict, date: str) -> str:
  """Writes in one line what made the targets, as sacreBLEU's does of BLEU."""
  versions = {"latentnmt": latentnmt.__version__, "jax": jax.__version__}
  parts = {**provenance, **versions, "date": date}
  return "|".join(f"{name}:{value}" for name, value in parts.items())


if __name__ == "__main__":
  app.run(main)
