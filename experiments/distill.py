r"""Replaces training targets by a teacher's translations of the sources.

  python -m experiments.distill --run=runs/quickstart/teacher \
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
from latentnmt import checkpoint, config, data, decode, files, sharding
from latentnmt.errors import InputError
from latentnmt.experiments import app, hardware, shared_flags
from latentnmt.experiments.progress import progress

_RUN = shared_flags.run_flag("Run directory of the teacher.")
shared_flags.checkpoint_flag()
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


def main(argv):
  """Translates the training sources and writes the new data."""
  del argv
  method, shard = decode.parse_method(_METHOD.value), parse_shard(_SHARD.value)
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
  parts = list(_translate(prepared, method, provenance["step"], folder, shard))
  if _SHARD.value:
    print(
      f"shard {_SHARD.value}: {len(parts):,} parts are in {folder}; when all"
      " shards are through, the same without --shard puts them together."
    )
    return
  targets = prepared.targets("train")
  for part in parts:
    for i, line in zip(part["ids"], part["lines"], strict=True):
      targets[i] = line.replace("\n", " ")
  # Said before the data appear: once they do, nothing here is run again.
  about = _report(provenance, len(targets), parts)
  data.with_targets(prepared, out, targets, provenance, about)
  shutil.rmtree(folder)


def parse_shard(text: str | None) -> tuple[int, int]:
  """(i, n) of "i/n"; (0, 1), which is everything, of None.

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


def _provenance(prepared: data.PreparedData, method: decode.Method) -> dict:
  """What determines the new targets."""
  settings = config.to_dict(checkpoint.read_config(_RUN.value))
  (step,) = shared_flags.checkpoint_steps(_RUN.value)
  digest = hashlib.sha256(json.dumps(settings).encode()).hexdigest()
  return {
    "data": prepared.fingerprint,
    "teacher": Path(_RUN.value).name,
    "teacher_config": digest[:16],
    "step": step,
    "method": str(method),
  }


def _is_finished(out: Path, provenance: dict) -> bool:
  meta = files.read_json(out / "meta.json")
  if meta is not None:
    _check_same(out, meta["made_from"].get("targets", {}), provenance)
  elif out.exists() and any(out.iterdir()):
    raise InputError(f"{out} exists and is no prepared corpus; name another.")
  return meta is not None


def _claim(parts: Path, provenance: dict) -> None:
  """Makes the folder of parts, or checks that those in it are ours."""
  old = files.read_json(parts / "made_from.json")
  if old is None:
    files.write_json(parts / "made_from.json", provenance)
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
  prepared: data.PreparedData,
  method: decode.Method,
  step: int,
  folder: Path,
  shard: tuple[int, int],
) -> Iterator[dict]:
  """Every part of a shard, those not yet there made now.

  A part has "ids", "lines", the "seconds" they took and on which "device".
  """
  translate, tokenizer = _translator(method, step)
  limit = checkpoint.read_config(_RUN.value).train.max_length
  encoded = tokenizer.encode(prepared.sources("train"))
  short = [i for i, tokens in enumerate(encoded) if len(tokens) <= limit]
  batches = data.length_batches(
    [encoded[i] for i in short], batch_tokens=_BATCH_TOKENS.value
  )
  index, count = shard
  planned = {}
  for number, group in enumerate(_grouped(batches)):
    if number % count == index:
      ids = [short[i] for rows, _ in group for i in rows[rows >= 0]]
      planned[folder / f"{number:05d}.json"] = ids, group
  total = sum(len(ids) for ids, _ in planned.values())
  with progress(total=total, desc="distill", unit="sentence") as bar:
    for path, (ids, group) in planned.items():
      part = files.read_json(path)
      if part is None:
        part = {"ids": ids, "lines": []}
        start = time.monotonic()
        found = ((rows >= 0, translate(x)) for rows, x in group)
        for real, tokens in decode.fetched(found):
          part["lines"] += tokenizer.decode(tokens[real])
          bar.update(int(np.sum(real)))
        part["seconds"] = time.monotonic() - start
        part["device"] = hardware.device_description()
        files.write_json(path, part)
      elif sorted(part["ids"]) == sorted(ids):
        bar.update(len(ids))
      else:
        raise InputError(
          f"{path} has other sentences than are planned for it now; delete"
          f" {folder}."
        )
      yield part


def _translator(method: decode.Method, step: int):
  """A function from int32[B, S] to int32[B, T] on devices; the tokenizer."""
  mesh = sharding.mesh(jax.local_devices())
  model, params, tokenizer = checkpoint.load(_RUN.value, step)
  params = jax.device_put(params, sharding.replicated(mesh))

  def translate(x: np.ndarray) -> jax.Array:
    if len(x) % mesh.size:
      raise InputError(
        f"{mesh.size} devices cannot share the {len(x)} rows of a batch; use a"
        " number of devices that divides 8."
      )
    x = sharding.put(x, mesh)
    return decode.translate(model, params, x, method).tokens[:, 0]

  return translate, tokenizer


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


def _report(provenance: dict, pairs: int, parts: list[dict]) -> dict:
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
    f" {provenance['method']}, {rate:.1f} sentences/s a process with"
    f" compilation; {pairs - translated:,} too long ones keep their reference."
  )
  row = {
    "metric": "sentences_per_second",
    "value": rate,
    "split": "train",
    "method": provenance["method"],
    "step": provenance["step"],
    "device": ", ".join(devices),
  }
  checkpoint.append_result(_RUN.value, row)
  return {
    "signature": signature(provenance, date),
    "date": date,
    "translated": translated,
    "kept_references": pairs - translated,
    "sentences_per_second": round(rate, 1),
    "devices": devices,
  }


def signature(provenance: dict, date: str) -> str:
  """One line that tells what made the targets, as sacreBLEU's does of BLEU."""
  versions = {"latentnmt": latentnmt.__version__, "jax": jax.__version__}
  parts = {**provenance, **versions, "date": date}
  return "|".join(f"{name}:{value}" for name, value in parts.items())


if __name__ == "__main__":
  app.run(main)
