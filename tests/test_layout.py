"""The order of the files: each imports only from rows with a smaller number."""

import ast
from pathlib import Path
import re

import pytest

ROOT = Path(__file__).parent.parent
ROWS = [
  "types",
  "config",
  "masks keys text distributions metrics products sharding zoo",
  "data embedding transformer",
  "bijections",
  "priors",
  "models",
  "objectives decode",
  "likelihood checkpoint",
  "train",
  "testing closed_forms __init__",
]
ROW = {name: i for i, names in enumerate(ROWS) for name in names.split()}
BINARY_IMPORTS = {"common", "pairs", "recipe", "recipes", "stages", "training"}
# What `analyze` is made of: none of these is a binary.
BINARY_IMPORTS |= {"correlation", "page", "plots", "results", "tables"}
BINARY_IMPORTS |= {"comparison", "findings", "paper", "sentences"}
# What `benchmark` is made of.
BINARY_IMPORTS |= {"floors", "peers", "speeds", "workloads"}
LAZY = {"matplotlib", "tensorboardX", "tensorflow_datasets"}
LAZY |= {"ctranslate2", "torch", "transformers"}
MAX_LINES = 500  # the aim is 400


def python_files(*folders):
  return sorted(p for f in folders for p in (ROOT / f).rglob("*.py"))


def source_id(path):
  return str(path.relative_to(ROOT))


def imports(path, package):
  """Names right below `package` that a file imports, at any depth of code."""
  names = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      names |= {a.name for a in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert not node.level, f"{path}: relative import"
      names |= {f"{node.module}.{a.name}" for a in node.names}
  split = [name.split(".") for name in names]
  return {parts[1] for parts in split if parts[0] == package and parts[1:]}


@pytest.mark.parametrize("path", python_files("latentnmt"), ids=source_id)
def test_library_imports_smaller_rows_only(path):
  name = path.relative_to(ROOT / "latentnmt").parts[0].removesuffix(".py")
  assert name in ROW, f"{name} has no row; design it one."
  for imported in imports(path, "latentnmt") - {name}:
    if name == "__init__":
      continue  # the package's face may show everything
    assert ROW[imported] < ROW[name], f"{name} imports {imported}"


@pytest.mark.parametrize("path", python_files("latentnmt"), ids=source_id)
def test_library_does_not_know_the_experiments(path):
  assert not imports(path, "experiments")


@pytest.mark.parametrize("path", python_files("experiments"), ids=source_id)
def test_binaries_never_import_each_other(path):
  assert imports(path, "experiments") <= BINARY_IMPORTS


@pytest.mark.parametrize(
  "path", python_files("latentnmt", "experiments"), ids=source_id
)
def test_heavy_imports_are_lazy(path):
  for node in ast.parse(path.read_text()).body:
    if isinstance(node, ast.Import):
      modules = {a.name.split(".")[0] for a in node.names}
    elif isinstance(node, ast.ImportFrom):
      modules = {node.module.split(".")[0]}
    else:
      continue
    assert not modules & LAZY


@pytest.mark.parametrize(
  "path", python_files("latentnmt", "experiments"), ids=source_id
)
def test_files_fit_in_one_reading(path):
  assert len(path.read_text().splitlines()) <= MAX_LINES


def published_files():
  patterns = ("*.md", "*.py", "*.toml", "Makefile", ".ci/*")
  top = [p for pattern in patterns for p in ROOT.glob(pattern)]
  notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"))
  return top + notebooks + python_files("latentnmt", "experiments", "tests")


@pytest.mark.parametrize("path", published_files(), ids=source_id)
def test_no_paths_of_one_machine(path):
  folders = "home", "root", "work", "farm", "Users"
  pattern = rf"(?<![\w.$)}}/])/({'|'.join(folders)})/"
  for number, line in enumerate(path.read_text().split("\n"), 1):
    assert not re.search(pattern, line), f"{path}:{number}: {line.strip()}"
