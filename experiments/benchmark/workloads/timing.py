"""Times of repeated calls, and the memory of the process that makes them."""

from collections.abc import Callable
import dataclasses
from pathlib import Path
import resource
import statistics
import sys
import time

import jax

from latentnmt.experiments.progress import progress


@dataclasses.dataclass(frozen=True)
class Times:
  """Seconds of the first call, which compiles, and of the ones after it."""

  first: float
  seconds: list[float]

  @property
  def median(self) -> float:
    """Median seconds of the calls after the first."""
    return statistics.median(self.seconds)

  @property
  def compiling(self) -> float:
    """Seconds that the first call took longer: to compile or load programs."""
    return max(self.first - self.median, 0.0)

  def figures(self, figure: Callable[[float], float]) -> dict[str, float]:
    """Returns a figure of seconds, median and range, and median seconds."""
    values = [figure(seconds) for seconds in self.seconds]
    return {
      "value": statistics.median(values),
      "lowest": min(values),
      "highest": max(values),
      "seconds": self.median,
    }


def timed(call: Callable[[], object], repeats: int, desc: str) -> Times:
  """Times a call; what it returns is waited for."""

  def seconds() -> float:
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start

  first = seconds()
  return Times(first, [seconds() for _ in progress(range(repeats), desc=desc)])


def peak_bytes() -> int:
  """Returns the most memory that the device has had in use until now.

  On a CPU, that this process has had.
  """
  used = jax.devices()[0].memory_stats() or {}
  if "peak_bytes_in_use" in used:
    return used["peak_bytes_in_use"]
  try:
    # What getrusage says includes the process that started this one.
    lines = Path("/proc/self/status").read_text().splitlines()
    (peak,) = (line.split()[1] for line in lines if line.startswith("VmHWM"))
    return int(peak) * 1024
  except (OSError, ValueError):
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
