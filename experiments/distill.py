r"""Replaces training targets by a teacher's translations of the sources.

  python -m experiments.distill --run=runs/quickstart/teacher \
    --data=runs/quickstart/data --out=runs/quickstart/data-distilled

The result is prepared data like the original but for the training targets;
its meta.json tells what made them. Translations are kept in `<out>.parts/`
until all are there, so that a process cut off continues where it was, with
the batches it had.

Sources longer than what the teacher was trained on keep their reference:
training leaves them out anyway.
"""

from collections.abc import Iterator
import hashlib
import json
from pathlib import Path
import shutil
import time

from absl import flags
import numpy as np

from experiments import common
from latentnmt import checkpoint, config, data, decode
from latentnmt.types import InputError

_RUN = common.run_flag("Run directory of the teacher.")
common.checkpoint_flag()
_DATA = common.data_flag()
_OUT = flags.DEFINE_string(
  "out", None, "Prepared data directory to write.", required=True
)
_METHOD = flags.DEFINE_string("method", "beam4", "Decoding method.")
_BATCH_TOKENS = common.batch_tokens_flag()
_PART = 4096  # sentences, about, that are written at once


def main(argv):
  """Translates the training sources and writes the new data."""
  del argv
  method = decode.parse_method(_METHOD.value)
  prepared = data.PreparedData.open(_DATA.value)
  provenance = _provenance(prepared, method)
  out = Path(_OUT.value)
  folder = out.with_name(out.name + ".parts")
  if _is_finished(out, provenance):
    print(f"{out} is finished.")
    shutil.rmtree(folder, ignore_errors=True)
    return
  # The parts are the same only if the batches are.
  _claim(folder, {**provenance, "batch_tokens": _BATCH_TOKENS.value})
  parts = list(_translate(prepared, method, provenance["step"], folder))
  targets = prepared.targets("train")
  for part in parts:
    for i, line in zip(part["ids"], part["lines"], strict=True):
      targets[i] = line.replace("\n", " ")
  # Said before the data appear: once they do, nothing here is run again.
  _report(provenance, len(targets), parts)
  data.with_targets(prepared, out, targets, provenance)
  shutil.rmtree(folder)


def _provenance(prepared: data.PreparedData, method: decode.Method) -> dict:
  """What determines the new targets."""
  settings = config.to_dict(checkpoint.read_config(_RUN.value))
  (step,) = common.checkpoint_steps(_RUN.value)
  digest = hashlib.sha256(json.dumps(settings).encode()).hexdigest()
  return {
    "data": prepared.fingerprint,
    "teacher": Path(_RUN.value).name,
    "teacher_config": digest[:16],
    "step": step,
    "method": str(method),
  }


def _is_finished(out: Path, provenance: dict) -> bool:
  meta = common.read_json(out / "meta.json")
  if meta is not None:
    _check_same(out, meta["made_from"].get("targets", {}), provenance)
  elif out.exists() and any(out.iterdir()):
    raise InputError(f"{out} exists and is no prepared corpus; name another.")
  return meta is not None


def _claim(parts: Path, provenance: dict) -> None:
  """Makes the folder of parts, or checks that those in it are ours."""
  old = common.read_json(parts / "made_from.json")
  if old is None:
    common.write_json(parts / "made_from.json", provenance)
  else:
    _check_same(parts, old, provenance)


def _check_same(path: Path, old: dict, new: dict) -> None:
  differing = [
    f"{name}: {old.get(name)} -> {value}"
    for name, value in new.items()
    if old.get(name) != value
  ]
  if differing:
    raise InputError(
      f"{path} was made otherwise ({'; '.join(differing)}); delete it or give"
      " another --out."
    )


def _translate(
  prepared: data.PreparedData, method: decode.Method, step: int, folder: Path
) -> Iterator[dict]:
  """Every part, "ids", "lines" and "seconds", those not yet there made now."""
  model, params, tokenizer = checkpoint.load(_RUN.value, step)
  limit = checkpoint.read_config(_RUN.value).train.max_length
  encoded = tokenizer.encode(prepared.sources("train"))
  short = [i for i, tokens in enumerate(encoded) if len(tokens) <= limit]
  batches = data.length_batches(
    [encoded[i] for i in short], batch_tokens=_BATCH_TOKENS.value
  )
  with common.progress(
    total=len(short), desc="distill", unit="sentence"
  ) as bar:
    for number, group in enumerate(_grouped(batches)):
      path = folder / f"{number:05d}.json"
      ids = [short[i] for rows, _ in group for i in rows[rows >= 0]]
      part = common.read_json(path)
      if part is None:
        part = {"ids": ids, "lines": []}
        start = time.monotonic()
        for rows, x in group:
          tokens = decode.translate(model, params, x, method).tokens[:, 0]
          part["lines"] += tokenizer.decode(np.asarray(tokens)[rows >= 0])
          bar.update(int(np.sum(rows >= 0)))
        part["seconds"] = time.monotonic() - start
        common.write_json(path, part)
      elif sorted(part["ids"]) == sorted(ids):
        bar.update(len(ids))
      else:
        raise InputError(
          f"{path} has other sentences than are planned for it now; delete"
          f" {folder}."
        )
      yield part


def _grouped(batches: list) -> Iterator[list]:
  """Consecutive batches of about `_PART` sentences, the same every time."""
  group, size = [], 0
  for rows, x in batches:
    group.append((rows, x))
    size += len(rows)
    if size >= _PART:
      yield group
      group, size = [], 0
  if group:
    yield group


def _report(provenance: dict, pairs: int, parts: list[dict]) -> None:
  """Says how fast it went, here and in the teacher's results."""
  translated = sum(len(part["ids"]) for part in parts)
  rate = translated / sum(part["seconds"] for part in parts)
  print(
    f"{translated:,} of {pairs:,} training sources translated by"
    f" {provenance['method']}, {rate:.1f} sentences/s with compilation;"
    f" {pairs - translated:,} too long ones keep their reference."
  )
  row = {
    "metric": "sentences_per_second",
    "value": rate,
    "split": "train",
    "method": provenance["method"],
    "step": provenance["step"],
    "device": common.device_description(),
  }
  checkpoint.append_result(_RUN.value, row)


if __name__ == "__main__":
  common.run(main)
