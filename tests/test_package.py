"""The installed package: metadata, the command, what the papers beside say."""

import importlib.metadata
import os
from pathlib import Path
import re
import subprocess
import sys
import tomllib

import installed
import pytest

import latentnmt
from latentnmt.experiments import cli

ROOT = Path(__file__).parent.parent
PAPERS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
PAPERS += sorted((ROOT / "docs").glob("*.md"))
BY_NAME = pytest.mark.parametrize("path", PAPERS, ids=lambda path: path.name)


def command(monkeypatch, capsys, *arguments) -> tuple[int, str, str]:
  """Exit status, output and error of the command `latentnmt`."""
  monkeypatch.setattr(sys, "argv", ["latentnmt", *arguments])
  status = 0
  try:
    cli.main()
  except SystemExit as error:
    status = error.code
  return status, *capsys.readouterr()


# Metadata.


def test_the_version_has_one_source():
  project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
  assert project["dynamic"] == ["version"]
  cited = re.search(
    r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.M
  )
  assert cited[1] == latentnmt.__version__
  assert importlib.metadata.version("latentnmt") == latentnmt.__version__
  assert f"## [{latentnmt.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_the_package_is_typed():
  assert (Path(latentnmt.__file__).parent / "py.typed").exists()


# The command.


def test_the_list_of_commands_takes_no_jax():
  script = "import sys; from latentnmt.experiments import cli; cli.main();"
  script += "assert not {'jax', 'flax', 'numpy'} & set(sys.modules)"
  process = subprocess.run(
    [sys.executable, "-W", "error", "-c", script],
    capture_output=True,
    text=True,
  )
  assert process.returncode == 0, process.stderr
  for name, line in cli.commands().items():
    assert re.search(rf"^  {name} +{re.escape(line)}$", process.stdout, re.M)


def test_every_binary_is_a_command_with_a_line():
  lines = cli.commands()
  binaries = {"train", "study", "benchmark", "translate", "evaluate_bleu"}
  assert binaries <= set(lines) and not {"app", "cli", "loading"} & set(lines)
  assert all(line.endswith(".") for line in lines.values())


def test_version(monkeypatch, capsys):
  status, output, _ = command(monkeypatch, capsys, "--version")
  assert (status, output) == (0, f"latentnmt {latentnmt.__version__}\n")


@pytest.mark.parametrize("arguments", ["trian", "list preset", "list x", "x y"])
def test_an_unknown_name_is_one_line(arguments, monkeypatch, capsys):
  status, output, error = command(monkeypatch, capsys, *arguments.split())
  assert (status, output) == (2, "")
  assert error.startswith("error: Unknown ") and error.count("\n") == 1
  assert "did you mean" in error


def test_the_nearest_name_is_proposed(monkeypatch, capsys):
  *_, error = command(monkeypatch, capsys, "evaluate_blue")
  assert "did you mean 'evaluate_bleu'?" in error
  *_, error = command(monkeypatch, capsys, "list", "recipies")
  assert "did you mean 'recipes'?" in error


@pytest.mark.parametrize(
  "kind, names",
  {
    "methods": ["greedy", "beam4", "delta1"],
    "recipes": ["quickstart", "grammar", "wmt14_en_de"],
  }.items(),
)
def test_list(kind, names, monkeypatch, capsys):
  status, output, _ = command(monkeypatch, capsys, "list", kind)
  assert status == 0
  for name in names:
    assert re.search(rf"^{name} +\w", output, re.M), output


def test_list_presets_has_sizes(monkeypatch, capsys):
  two = ["transformer_base", "gauss_tiny"]
  monkeypatch.setattr(latentnmt.zoo, "names", lambda: two)
  _, output, _ = command(monkeypatch, capsys, "list", "presets")
  assert re.search(r"^transformer_base +60.2M .*autoregressive$", output, re.M)
  assert re.search(r"^gauss_tiny +6.1M .*Gaussian prior$", output, re.M)


def test_a_command_runs_as_python_m_does(tmp_path):
  """What lies in the current folder is found, too; exit statuses pass."""
  (tmp_path / "mine.py").write_text("print('found')\nRECIPE = None\n")
  call = "from latentnmt.experiments import cli; cli.main()"
  first, second = (
    subprocess.run(
      [sys.executable, *start, "--recipe=mine:RECIPE", "--dry_run"],
      cwd=tmp_path,
      capture_output=True,
      text=True,
    )
    for start in (["-c", call, "study"], ["-m", "latentnmt.experiments.study"])
  )
  assert "found" in first.stdout and first.returncode == 2, first.stderr
  assert first.stderr.startswith("error: ")
  assert (first.stdout, first.stderr) == (second.stdout, second.stderr)
  assert first.returncode == second.returncode


# What texts say of commands, and the code in them.


@pytest.fixture(scope="module")
def helps(binary):
  shown = {name: binary(name, "--help") for name in cli.commands()}
  assert not any(finished.status for finished in shown.values())
  return {name: shown[name].stdout for name in shown} | {"list": ""}


def test_help_shows_docstring_and_flags(helps):
  for name, line in cli.commands().items():
    assert helps[name].lstrip().startswith(line)
    assert "--" in helps[name]


def test_commands_named_in_texts_of_the_package_exist(helps):
  # Which is only there in a clone.
  assert not [t for t in installed.texts() if "python -m experiments" in t]
  assert sum(installed.check_named(t, helps) for t in installed.texts()) > 20


@BY_NAME
def test_commands_named_in_papers_exist(path, helps):
  installed.check_named(path.read_text("utf-8"), helps)


@BY_NAME
def test_links_lead_somewhere(path):
  for target in re.findall(r"\]\(([^)#\s]+)", path.read_text("utf-8")):
    if not target.startswith("http"):
      assert (path.parent / target).exists(), target


def python_blocks(path):
  return re.findall(r"```python\n(.*?)```", path.read_text("utf-8"), re.S)


@pytest.mark.slow
def test_python_in_the_papers_runs(tmp_path):
  """The smoke, and the papers' code on its run in place of the quickstart's."""
  use, prior = python_blocks(ROOT / "README.md")
  first, *others = python_blocks(ROOT / "docs" / "extending.md")
  assert prior.split("\n\n\n")[1] in first and prior.split("\n\n\n")[2] in first
  script = tmp_path / "papers.py"
  blocks = [
    "import smoke, pathlib, latentnmt as ln",
    "corpus = ln.data.grammar_corpus(sizes=(200, 4, 4), seed=0)",
    "data = ln.data.prepare(corpus, 'data', vocab_size=400)",
    "runs = pathlib.Path('runs/quickstart')",
    "smoke.check('dag_tiny', data, corpus.splits, runs)",
    "(runs / 'dag_tiny').rename(runs / 'dag-distilled')",
    *(use, first, *others),
    "sizes = ln.TransformerConfig(vocab_size=20)",
    "uniform = Uniform(ln.CustomModelConfig('m:Uniform', sizes))",
    "ln.testing.check_model(uniform, jax.random.key(0))",
    "smoke.check('transformer_tiny', data, corpus.splits, runs)",
  ]
  script.write_text("\n".join(blocks), "utf-8")
  paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
  process = subprocess.run(
    [sys.executable, "-W", "error", script],
    cwd=tmp_path,
    env=os.environ | {"PYTHONPATH": paths},
    capture_output=True,
    text=True,
  )
  assert process.returncode == 0, process.stderr
