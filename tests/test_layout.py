"""The order of the files, what they may know, and the words they use."""

import ast
from pathlib import Path
import re

import pytest

from latentnmt import config

ROOT = Path(__file__).parent.parent
# Each file imports only from rows above its own, and from its own folder.
LIBRARY = """
  errors
  types config
  masks keys files text distributions metrics matmul inference
    sharding zoo custom
  data embedding transformer
  bijections
  priors
  outputs
  decode
  models
  objectives schedules likelihood runs
  checkpoint
  train
  testing closed_forms __init__
"""
# The last row are the binaries, which never import each other.
EXPERIMENTS = """
  alignment_picture hardware progress settings __init__
  app loading shared_flags study.layout
  benchmark report study.schema
  lee2020
  study
  analyze cli distill evaluate_bleu evaluate_likelihood preprocess sweep train
    translate validate_estimators visualize benchmark.__main__ study.__main__
"""
LAZY = {"matplotlib", "tensorboardX", "tensorflow_datasets"}
LAZY |= {"ctranslate2", "torch", "transformers"}
MAX_LINES = 400

# What used to be called so is now by the field's own names.
RETIRED = set(
  """
  Cache Memory Steps floors footing peers product_dtype remember
  """.split()
)
CLASSES = {name for name in config.__all__ if name.endswith("Config")}
CLASSES |= {"AutoregressiveTransformer", "LatentTransformer"}
CLASSES |= {"OnePassTransformer", "SourceLatentTransformer"}
CLASSES |= {"LinearGaussian", "Mixture"}


def rows(table):
  """The row of each name."""
  lines = re.sub(r"\n {4}", " ", table).strip().split("\n")
  return {name: i for i, line in enumerate(lines) for name in line.split()}


LIBRARY, EXPERIMENTS = rows(LIBRARY), rows(EXPERIMENTS)


def python_files(*folders):
  return sorted(p for f in folders for p in (ROOT / f).rglob("*.py"))


def source_id(path):
  return str(path.relative_to(ROOT))


EVERYWHERE = pytest.mark.parametrize(
  "path", python_files("latentnmt", "experiments"), ids=source_id
)


def nodes(path):
  return ast.walk(ast.parse(path.read_text()))


def imports(path, package):
  """Dotted names below `package` that a file imports, at any depth of code."""
  names = set()
  for node in nodes(path):
    if isinstance(node, ast.Import):
      names |= {a.name for a in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert not node.level, f"{path}: relative import"
      names |= {f"{node.module}.{a.name}" for a in node.names}
  start = f"{package}."
  return {name.removeprefix(start) for name in names if name.startswith(start)}


def place(name, table):
  """The first one or two parts of a dotted name, whichever has a row."""
  parts = name.split(".")
  two = ".".join(parts[:2])
  return two if two in table else parts[0]


def own_name(path, folder):
  parts = path.relative_to(ROOT / folder).with_suffix("").parts
  return ".".join(parts)


def check_rows(path, folder, package, table):
  name = place(own_name(path, folder), table)
  assert name in table, f"{name} has no row; design it one."
  for imported in imports(path, package):
    other = place(imported, table)
    if other.split(".")[0] != name.split(".")[0]:
      assert table[other] < table[name], f"{name} imports {other}"


@pytest.mark.parametrize("path", python_files("latentnmt"), ids=source_id)
def test_library_imports_rows_above_only(path):
  check_rows(path, "latentnmt", "latentnmt", LIBRARY)


@pytest.mark.parametrize("path", python_files("latentnmt"), ids=source_id)
def test_library_does_not_know_the_experiments(path):
  assert not imports(path, "experiments")
  assert not imports(path, "latentnmt.experiments")


@pytest.mark.parametrize("path", python_files("experiments"), ids=source_id)
def test_experiments_import_rows_above_only(path):
  check_rows(path, "experiments", "latentnmt.experiments", EXPERIMENTS)
  assert not imports(path, "experiments"), "they are latentnmt.experiments"


@EVERYWHERE
def test_heavy_imports_are_lazy(path):
  for node in ast.parse(path.read_text()).body:
    if isinstance(node, ast.Import):
      modules = {a.name.split(".")[0] for a in node.names}
    elif isinstance(node, ast.ImportFrom):
      modules = {node.module.split(".")[0]}
    else:
      continue
    assert not modules & LAZY


@EVERYWHERE
def test_files_fit_in_one_reading(path):
  assert len(path.read_text().splitlines()) <= MAX_LINES


# Families of models are told apart by what they can do.


def builds(path):
  """Whether a file makes models of configurations, and so has to know them."""
  return source_id(path).startswith(("latentnmt/models/", "latentnmt/zoo.py"))


def names(node):
  """All names and attributes in a piece of code."""
  for part in ast.walk(node):
    if isinstance(part, (ast.Name, ast.Attribute)):
      yield getattr(part, "id", None) or part.attr


def compared(node):
  """What classes a piece of code asks for, by itself."""
  match node:
    case ast.Call(ast.Name("isinstance" | "issubclass"), [_, asked]):
      yield from names(asked)
    case ast.MatchClass(cls):
      yield from names(cls)
    case ast.Compare(ast.Call(ast.Name("type")), _, others):
      for other in others:
        yield from names(other)


# The one function of each file that makes a module of a configuration.
BUILDERS = {
  "latentnmt/priors.py": "build_prior",
  "latentnmt/outputs/build.py": "build_output",
}


def asked_for(path):
  """Names of classes that objects are told apart by, but in what builds."""
  tree = ast.parse(path.read_text())
  if source_id(path) in BUILDERS:
    name = BUILDERS[source_id(path)]
    tree.body = [n for n in tree.body if getattr(n, "name", "") != name]
  return {name for node in ast.walk(tree) for name in compared(node)}


@EVERYWHERE
def test_nobody_asks_for_the_class_of_a_model(path):
  assert builds(path) or not asked_for(path) & CLASSES


def test_the_search_for_classes_finds_them(tmp_path):
  (tmp_path / "a.py").write_text(
    "isinstance(a, cfg.LatentConfig)\n"
    "type(b) is Mixture\n"
    "match c:\n  case AutoregressiveConfig(): pass\n"
    "LatentTransformer(d)\n"
  )
  tree = ast.parse((tmp_path / "a.py").read_text())
  found = {name for node in ast.walk(tree) for name in compared(node)}
  expected = {"LatentConfig", "Mixture", "AutoregressiveConfig"}
  assert found & CLASSES == expected


# Words.


def identifiers(path):
  """Every name that a file gives or uses, its own among them."""
  yield path.stem
  for node in nodes(path):
    for field in ("id", "attr", "arg", "name", "asname"):
      if isinstance(found := getattr(node, field, None), str):
        yield from found.split(".")


@pytest.mark.parametrize(
  "path", python_files("latentnmt", "experiments", "tests"), ids=source_id
)
def test_names_of_the_past_are_gone(path):
  assert not set(identifiers(path)) & RETIRED


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


@EVERYWHERE
def test_summaries_say_what_a_thing_does(path):
  """The first word is a verb or a noun, and not a question."""
  kinds = ast.Module, ast.ClassDef, ast.FunctionDef
  for node in nodes(path):
    summary = ast.get_docstring(node) if isinstance(node, kinds) else None
    question = re.match(r"(What|How|Whether|Of|As)\b", summary or "")
    assert not question, f"{getattr(node, 'name', 'module')}: {summary}"
