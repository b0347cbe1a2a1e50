"""Devices: the one file that knows of them.

A mesh has a single axis, "data", over all devices of all processes. Batches are
split along it by rows, everything else is replicated, and `jax.jit` then adds
the gradient's all-reduce by itself. The same program runs on one CPU, eight
GPUs or many hosts.
"""

from typing import Any

import jax
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
import numpy as np

from latentnmt.errors import InputError


def initialize(
  coordinator: str, num_processes: int, process_id: int, timeout: int = 300
) -> None:
  """Joins this process to the others, before anything touches a device.

  Args:
    coordinator: "host:port" of process 0.
    num_processes: how many processes take part.
    process_id: number of this one, from 0.
    timeout: seconds to wait for the others.

  Raises:
    InputError: for a process number outside [0, num_processes).
  """
  if not 0 <= process_id < num_processes:
    raise InputError(
      f"process_id={process_id} should be in [0, {num_processes}), the"
      " number of processes."
    )
  jax.distributed.initialize(
    coordinator,
    num_processes=num_processes,
    process_id=process_id,
    initialization_timeout=timeout,
  )


def mesh(devices: list[jax.Device] | None = None) -> Mesh:
  """Returns a mesh of all devices, or those given, along the axis "data"."""
  devices = jax.devices() if devices is None else devices
  # Auto: under JAX's default, Explicit, Linen's embedding look-up fails.
  return jax.make_mesh(
    (len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices
  )


def replicated(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of what every device has whole: parameters, say."""
  return NamedSharding(mesh, PartitionSpec())


def by_rows(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of batches: the first axis split over devices."""
  return NamedSharding(mesh, PartitionSpec("data"))


def put(batch: Any, mesh: Mesh) -> Any:
  """Puts a tree of host arrays on the devices, split by rows.

  Every process passes the same whole batch and keeps the rows of its devices.

  Args:
    batch: tree of numpy arrays with rows first, a multiple of the mesh's size.
    mesh: as `mesh()` returns.

  Raises:
    InputError: for rows that the devices cannot share.
  """
  check_rows(len(jax.tree.leaves(batch)[0]), mesh)
  sharding = by_rows(mesh)
  return jax.tree.map(
    lambda array: jax.make_array_from_process_local_data(
      sharding, array, global_shape=array.shape
    ),
    batch,
  )


def check_rows(rows: int, mesh: Mesh) -> None:
  """Raises InputError for rows of a batch that the devices cannot share."""
  if rows % mesh.size:  # rows of every shape are a multiple of 8
    raise InputError(
      f"{mesh.size} devices cannot share the {rows} rows of a batch; use a"
      " number of devices that divides 8."
    )


def local(tree: Any) -> Any:
  """Returns one device's copy of replicated arrays, for work of one alone."""
  return jax.tree.map(lambda array: array.addressable_data(0), tree)


def agree(value: float) -> float:
  """Returns process 0's value, on which all then take the same decision."""
  if jax.process_count() == 1:  # nobody to agree with
    return value
  return float(multihost_utils.broadcast_one_to_all(np.float32(value)))


def is_main() -> bool:
  """Returns whether this process writes files and shows progress."""
  return jax.process_index() == 0


def must_wait() -> bool:
  """Returns whether each step has to end before the next one is started."""
  # Collectives between CPU processes can deadlock when steps pile up.
  return jax.process_count() > 1 and jax.default_backend() == "cpu"
