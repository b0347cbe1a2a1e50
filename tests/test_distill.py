"""How distillation shares its work, among processes and among devices."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
import workers

from latentnmt import checkpoint, config, data, decode, files
from latentnmt.errors import InputError
from latentnmt.experiments import distill
from latentnmt.runs import RunDirectory
from latentnmt.types import Hypotheses


@pytest.mark.parametrize(
  "text, shard", [(None, (0, 1)), ("0/1", (0, 1)), ("3/8", (3, 8))]
)
def test_shards_are_counted_from_zero(text, shard):
  assert distill.parse_shard(text) == shard


@pytest.mark.parametrize("text", ["8/8", "1", "1/0", "a/2", "-1/2", "1/2/3"])
def test_a_shard_that_is_none_is_refused(text):
  with pytest.raises(InputError, match="i from 0 to n - 1"):
    distill.parse_shard(text)


@pytest.fixture
def run_distill(tmp_path, monkeypatch):
  """distill(out, shard) by a teacher that repeats each source."""
  raw = workers.prepared(tmp_path / "raw")
  run, calls = RunDirectory(tmp_path / "teacher"), []
  settings = workers.config("transformer_tiny", "train.max_length=7")
  run.create(settings, raw.tokenizer)

  def translate_batches(model, params, batches, method):
    for ids, x in batches:
      calls.append(len(x))
      yield ids, Hypotheses(x[:, None], np.zeros((len(x), 1))), None

  monkeypatch.setattr(distill, "_PART", 8)
  monkeypatch.setattr(decode, "translate_batches", translate_batches)
  monkeypatch.setattr(checkpoint, "load", lambda *_: (None, {}, raw.tokenizer))
  teacher = distill.Teacher(run, 3, decode.Greedy(), batch_tokens=64)

  def run_distill(out, shard=None):
    calls.clear()
    distill.distill(teacher, raw, out, distill.parse_shard(shard))
    return len(calls)

  return run_distill


def test_shards_and_a_merge_give_what_one_process_gives(
  run_distill, tmp_path, capsys
):
  whole, shared = tmp_path / "whole", tmp_path / "shared"
  batches = run_distill(whole)
  # In any order, one of them twice, and one not at all.
  done = [run_distill(shared, shard) for shard in ("2/4", "0/4", "2/4", "1/4")]
  assert done[2] == 0 and all(done[k] for k in (0, 1, 3))
  assert "parts are in" in capsys.readouterr().out and not shared.exists()
  rest = run_distill(shared)
  assert sum(done) + rest == batches and rest > 0
  one, other = map(data.PreparedData.open, (whole, shared))
  assert one.fingerprint == other.fingerprint
  assert one.targets("train") == other.targets("train")
  assert not (tmp_path / "shared.parts").exists()
  assert run_distill(shared, "0/4") == 0  # nothing is left to do


def test_data_tell_what_made_them(run_distill, tmp_path):
  run_distill(tmp_path / "new")
  told = data.PreparedData.open(tmp_path / "new").meta["targets"]
  assert "|step:3|method:greedy|latentnmt:" in told["signature"]
  assert told["translated"] + told["kept_references"] == 60
  assert told["date"] and told["devices"] and told["sentences_per_second"] > 0
  [result] = RunDirectory(tmp_path / "teacher").results()
  assert (result.metric, result.step) == ("sentences_per_second", 3)
  assert result.get("device") == ", ".join(told["devices"])


def test_each_source_gets_its_own_translation(run_distill, tmp_path):
  run_distill(tmp_path / "new")
  new = data.PreparedData.open(tmp_path / "new")
  translated = zip(new.sources("train"), new.targets("train"), strict=True)
  raw = data.PreparedData.open(tmp_path / "raw").targets("train")
  same = [source == target for source, target in translated]
  told = new.meta["targets"]
  assert sum(same) == told["translated"] > 0
  for i in np.flatnonzero(~np.array(same)):  # too long for the teacher
    assert new.targets("train")[i] == raw[i]


def test_the_teacher_is_known_by_its_config_as_it_was_written(tmp_path):
  """What an earlier version distilled is recognised by a later one."""
  raw = workers.prepared(tmp_path / "raw")
  run = RunDirectory(tmp_path / "teacher")
  run.create(workers.config(), raw.tokenizer)
  tree = files.read_json(run.config_path)
  tree["model"]["transformer"]["products"] = tree["model"]["transformer"].pop(
    "matmul_dtype"
  )
  del tree["model"]["family"]
  files.write_json(run.config_path, tree)
  teacher = distill.Teacher(run, 3, decode.Beam(4), batch_tokens=64)
  digest = hashlib.sha256(json.dumps(tree).encode()).hexdigest()[:16]
  assert config.to_dict(run.config()) != tree
  assert teacher.provenance(raw) == {
    "data": raw.fingerprint,
    "teacher": "teacher",
    "teacher_config": digest,
    "step": 3,
    "method": "beam4",
  }


SHARED_BATCH = """
import jax
jax.config.update("jax_num_cpu_devices", 4)
import numpy as np
import workers
from latentnmt import decode, models, train

config = workers.config()
model = models.build(config.model)
params = train.init_state(model, config.train).params
x = np.random.default_rng(0).integers(2, 36, (8, 8)).astype(np.int32)
x[:, -1], x[7:] = 1, 0
ids = np.array([3, 1, 4, 0, 5, 9, 2, -1])

def translate(ids, x):
  batches = [(ids, x)]
  return list(decode.translate_batches(model, params, batches, decode.Greedy()))

[(same, best, _)] = translate(ids, x)
expected = decode.translate(model, params, x, decode.Greedy()).tokens[:, 0]
np.testing.assert_array_equal(best.tokens[:, 0], expected)
np.testing.assert_array_equal(same, ids)
try:
  translate(ids[:6], x[:6])
except ValueError as error:
  print(error)
"""


def test_four_devices_translate_what_one_does():
  process = subprocess.run(
    [sys.executable, "-c", SHARED_BATCH],
    cwd=workers.__file__.rpartition("/")[0],
    capture_output=True,
    text=True,
    timeout=240,
  )
  assert process.returncode == 0, process.stderr
  assert "4 devices cannot share the 6 rows" in process.stdout
