"""Every notebook runs from top to bottom, and is stored without outputs."""

import json
import os
from pathlib import Path
import subprocess
import sys

import pytest

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def code_cells(path):
  cells = json.loads(path.read_text("utf-8"))["cells"]
  return [cell for cell in cells if cell["cell_type"] == "code"]


def test_there_are_notebooks():
  assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_outputs_are_stored(path):
  for cell in code_cells(path):
    assert not cell["outputs"] and cell["execution_count"] is None


def as_python(cell) -> str:
  """A cell as it stands; one that writes a file, as Python that writes it."""
  source = "".join(cell["source"])
  if not source.startswith("%%writefile "):
    return source
  name, text = source.removeprefix("%%writefile ").split("\n", 1)
  return f"import pathlib\npathlib.Path({name!r}).write_text({text!r}, 'utf-8')"


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, tmp_path):
  # The cells one after the other, in a process with conftest's environment,
  # but optimised: they compile little and run much.
  environment = dict(os.environ)
  environment.pop("JAX_DISABLE_MOST_OPTIMIZATIONS", None)
  script = tmp_path / f"{path.stem}.py"
  cells = [as_python(cell) for cell in code_cells(path)]
  script.write_text("\n\n".join(cells), "utf-8")
  process = subprocess.run(
    [sys.executable, "-W", "error", script],
    cwd=tmp_path,
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    timeout=900,
  )
  assert process.returncode == 0, process.stdout
  print(process.stdout)
