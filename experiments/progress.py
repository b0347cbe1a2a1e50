"""Progress bars on stderr: bars for a terminal, lines for a log."""

import sys

from tqdm import tqdm


class _Lines(tqdm):
  """Progress for a log: a line of its own each time, and nothing to erase."""

  @staticmethod
  def status_printer(file):
    """Returns a function that prints one status."""

    def print_status(status):
      if status:
        file.write(status + "\n")
        file.flush()

    return print_status

  def moveto(self, n):
    """Leaves the cursor alone: bars inside bars take their turns."""

  def close(self):
    """Prints the last status, where it is to stay and not over too soon."""
    if not self.disable:
      self.disable = True
      self._decr_instances(self)
      if self.leave and self._time() >= self.start_t + self.delay:
        self.display()


def progress(iterable=None, **options) -> tqdm:
  """Returns `tqdm` on stderr, shown also where that is a file or a pipe.

  Args:
    iterable: what to go through; None for manual `update`.
    **options: of tqdm, for example `desc`, `total`, `unit`, `initial`.
  """
  if sys.stderr.isatty():
    return tqdm(iterable, dynamic_ncols=True, **options)
  return _Lines(iterable, mininterval=10, ascii=True, **options)
