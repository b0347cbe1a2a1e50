"""Many devices and many processes compute what one does."""

import os
from pathlib import Path
import signal
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
import workers

from latentnmt import sharding
from latentnmt.errors import InputError
from latentnmt.runs import RunDirectory
from latentnmt.types import Batch

WORKER = Path(__file__).parent / "workers.py"


def start(*args, **environment) -> subprocess.Popen:
  """Starts a function of workers.py as a process of its own."""
  return subprocess.Popen(
    [sys.executable, str(WORKER), *map(str, args)],
    env=os.environ | {k: str(v) for k, v in environment.items()},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def finish(*processes, timeout=240):
  """Waits; kills what hangs, for collectives that wait ignore SIGTERM."""
  try:
    for process in processes:
      output, _ = process.communicate(timeout=timeout)
      assert process.returncode == 0, output
  finally:
    for process in processes:
      if process.poll() is None:
        process.send_signal(signal.SIGKILL)
        process.wait()


def test_put_then_local_is_the_batch():
  mesh = sharding.mesh()
  batch = Batch(np.arange(16).reshape(8, 2), np.arange(24).reshape(8, 3))
  assert sharding.put(batch, mesh).x.sharding == sharding.by_rows(mesh)
  same = jax.device_put(batch, sharding.replicated(mesh))
  np.testing.assert_array_equal(sharding.local(same).y, batch.y)


def test_a_single_process_is_the_main_one_and_agrees_with_itself():
  assert sharding.is_main() and not sharding.must_wait()
  assert sharding.agree(27.123456789) == 27.123456789


def test_process_numbers_are_checked():
  with pytest.raises(InputError, match=r"process_id=2 .* \[0, 2\)"):
    sharding.initialize("localhost:1", 2, 2)


def test_four_devices_compute_what_one_does(tmp_path):
  one, four = tmp_path / "one.npz", tmp_path / "four.npz"
  finish(start("gradient", one, 1), start("gradient", four, 4))
  one, four = np.load(one), np.load(four)
  assert one.files == four.files and len(one.files) > 10
  for name in one.files:
    np.testing.assert_allclose(four[name], one[name], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_two_devices_translate_as_one_does(tmp_path):
  one, two = tmp_path / "one.npz", tmp_path / "two.npz"
  finish(start("translate", one, 1), start("translate", two, 2))
  one, two = np.load(one), np.load(two)
  assert one.files == two.files
  tokens = [one[name] for name in one.files if name.endswith(".tokens")]
  assert [t.shape[:2] for t in tokens] == [(8, 1)] * 4
  assert all(len(np.unique(t, axis=0)) > 2 for t in tokens)
  for name in one.files:
    exact = one[name].dtype != np.float32
    tolerance = 0 if exact else 1e-4
    np.testing.assert_allclose(two[name], one[name], tolerance, tolerance)


@pytest.mark.slow
def test_two_processes_compute_what_one_does(tmp_path):
  with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    address = f"127.0.0.1:{probe.getsockname()[1]}"
  alone, shared = tmp_path / "alone", tmp_path / "shared"
  workers.prepared(tmp_path / "data")
  finish(start("train", tmp_path / "data", alone))
  finish(
    *[
      start("train", tmp_path / "data", shared, address, 2, number)
      for number in range(2)
    ]
  )
  alone, shared = (RunDirectory(run).metrics() for run in (alone, shared))
  assert len(alone) == len(shared) == 6
  for mine, ours in zip(alone, shared, strict=True):
    assert ours["step"] == mine["step"]
    for name in {"loss", "gradient_norm", "dev_elbo"} & set(mine):
      assert ours[name] == pytest.approx(mine[name], rel=1e-4), name
