"""The machine: its name for reports, its cache of compiled programs."""

import os
from pathlib import Path
import platform
import zlib


def device_description() -> str:
  """Describes the devices computed on: "2-core AMD EPYC", "8 x H100"."""
  import jax

  devices = jax.devices()
  if devices[0].platform == "cpu":
    return f"{os.cpu_count()}-core {_processor()}"
  return f"{len(devices)} x {devices[0].device_kind}"


def enable_compilation_cache(folder: str) -> None:
  """Keeps compiled programs in a folder from one process to the next.

  Programs compiled by another jaxlib or for another processor can crash the
  process that loads them: each such pair has a folder of its own. (JAX tells
  accelerators apart by itself, and asking for them here would start the
  backend before `jax.distributed.initialize` had its turn.)
  """
  import jax
  import jaxlib

  features = zlib.crc32(_cpuinfo("flags").encode())
  name = f"jaxlib-{jaxlib.__version__}-{_processor()}-{features:08x}"
  name = "".join(c if c.isalnum() or c in "-." else "_" for c in name)
  path = Path(folder).absolute() / name
  jax.config.update("jax_compilation_cache_dir", str(path))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def _processor() -> str:
  return _cpuinfo("model name") or platform.processor() or platform.machine()


def _cpuinfo(field: str) -> str:
  """Returns the first value of a field of /proc/cpuinfo, "" for none."""
  try:
    lines = Path("/proc/cpuinfo").read_text().split("\n")
  except OSError:
    return ""
  values = [line.split(":", 1)[1] for line in lines if line.startswith(field)]
  return values[0].strip() if values else ""
