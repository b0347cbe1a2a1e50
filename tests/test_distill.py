"""How distillation shares its work, among processes and among devices."""

import dataclasses
import subprocess
import sys

import pytest
import workers

from latentnmt import checkpoint, data
from latentnmt.errors import InputError
from latentnmt.experiments import distill


@pytest.mark.parametrize(
  "text, shard", [(None, (0, 1)), ("0/1", (0, 1)), ("3/8", (3, 8))]
)
def test_shards_are_counted_from_zero(text, shard):
  assert distill.parse_shard(text) == shard


@pytest.mark.parametrize("text", ["8/8", "1", "1/0", "a/2", "-1/2", "1/2/3"])
def test_a_shard_that_is_none_is_refused(text):
  with pytest.raises(InputError, match="i from 0 to n - 1"):
    distill.parse_shard(text)


@dataclasses.dataclass
class Value:
  """What a flag holds."""

  value: object


@pytest.fixture
def run_distill(tmp_path, monkeypatch):
  """distill(out, shard) by a teacher that says how long each source is."""
  raw = workers.prepared(tmp_path / "raw")
  provenance = {"data": raw.fingerprint, "step": 3, "method": "greedy"}
  calls = []

  def translator(method, step):
    def translate(x):
      calls.append(len(x))
      return x

    return translate, raw.tokenizer

  settings = workers.config("transformer_tiny", "train.max_length=7")
  for name, value in {
    "_provenance": lambda *_: provenance,
    "_translator": translator,
    "_PART": 8,
    "_RUN": Value("teacher"),
    "_DATA": Value(str(raw.path)),
    "_METHOD": Value("greedy"),
    "_BATCH_TOKENS": Value(64),
  }.items():
    monkeypatch.setattr(distill, name, value)
  monkeypatch.setattr(checkpoint, "read_config", lambda run: settings)
  monkeypatch.setattr(checkpoint, "append_result", lambda run, row: None)

  def run(out, shard=None):
    monkeypatch.setattr(distill, "_OUT", Value(str(out)))
    monkeypatch.setattr(distill, "_SHARD", Value(shard))
    calls.clear()
    distill.main([])
    return len(calls)

  return run


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


SHARED_BATCH = """
import jax
jax.config.update("jax_num_cpu_devices", 4)
import numpy as np
import workers
from experiments import distill
from latentnmt import checkpoint, decode, models, train

config = workers.config()
model = models.build(config.model)
params = train.init_state(model, config.train).params
checkpoint.load = lambda run, step: (model, params, None)
distill._RUN = type("Value", (), {"value": "run"})
x = np.random.default_rng(0).integers(2, 36, (8, 8)).astype(np.int32)
x[:, -1], x[7:] = 1, 0
translate, _ = distill._translator(decode.Greedy(), 0)
expected = decode.translate(model, params, x, decode.Greedy()).tokens[:, 0]
np.testing.assert_array_equal(translate(x), expected)
try:
  translate(x[:6])
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
