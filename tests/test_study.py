"""The study's runner on stages that are a few lines, and its processes."""

import dataclasses
import fcntl
import json
import signal
import subprocess
import sys
import time

import pytest

from latentnmt import data
from latentnmt.errors import InputError
from latentnmt.experiments.lee2020.recipes import PAIRS
from latentnmt.experiments.study import __main__ as study
from latentnmt.experiments.study import run
from latentnmt.experiments.study.layout import StudyDirectory
from latentnmt.experiments.study.lengths import check_lengths
from latentnmt.experiments.study.recipes import RECIPES, find_recipe
from latentnmt.experiments.study.record import Record
from latentnmt.experiments.study.schema import Recipe, Run
from latentnmt.experiments.study.stages import Plan, Stage

SECONDS = 10


class Fake:
  """Three stages, the second and third from what the first wrote."""

  def __init__(self, folder):
    self.folder, self.ran, self.failing = folder, [], None
    a, b, c = (folder / name for name in "abc")
    self.stages = [
      Stage("first", ("x", f"--out={a}"), (), (a,), SECONDS),
      Stage("second", ("y", f"--in={a}"), (a,), (b,), SECONDS),
      Stage("third", ("z", f"--in={b}"), (b,), (c,), SECONDS),
    ]

  def start(self, command):
    [stage] = [s for s in self.stages if s.command == command]
    self.ran.append(stage.name)
    if stage.name == self.failing:
      return 2
    for path in stage.outputs:
      path.write_text(stage.name)
    return 0

  def run(self):
    """Names of the stages that a call of the study ran."""
    self.ran = []
    record = Record(StudyDirectory(self.folder))
    record.check(self.stages)
    run.run_all(self.stages, record, self.start)
    return self.ran


@pytest.fixture
def fake(tmp_path):
  return Fake(tmp_path)


def test_stages_run_once_and_in_order(fake):
  assert fake.run() == ["first", "second", "third"]
  assert fake.run() == []


def test_progress_line_tells_stage_elapsed_and_total(fake, capsys):
  fake.run()
  lines = capsys.readouterr().err.splitlines()
  assert lines[1].startswith("[2/3] second: 0:00 elapsed, about 0:20 in all")


def test_failing_stage_ends_the_study_and_is_run_again(fake, capsys):
  fake.failing = "second"
  with pytest.raises(SystemExit) as exit:
    fake.run()
  assert exit.value.code == 2
  assert fake.ran == ["first", "second"]
  assert "stage 'second' failed: latentnmt y --in=" in capsys.readouterr().err
  fake.failing = None
  assert fake.run() == ["second", "third"]


def test_missing_output_is_made_again_with_all_that_depends_on_it(fake):
  fake.run()
  (fake.folder / "b").unlink()
  assert fake.run() == ["second", "third"]
  (fake.folder / "a").unlink()
  assert fake.run() == ["first", "second", "third"]


def test_dependents_are_made_again_even_if_the_study_is_cut_off(fake):
  fake.run()
  (fake.folder / "a").unlink()
  fake.failing = "second"
  with pytest.raises(SystemExit):
    fake.run()
  fake.failing = None
  assert fake.run() == ["second", "third"]


def test_other_flags_are_refused_before_anything_runs(fake):
  fake.run()
  old = fake.stages[1]
  fake.stages[1] = Stage(
    "second", (*old.command, "--k=3"), old.inputs, old.outputs, SECONDS
  )
  (fake.folder / "a").unlink()
  with pytest.raises(InputError, match="^stage 'second'") as error:
    fake.run()
  assert fake.ran == []
  message = str(error.value)
  assert "(none of these -> --k=3)" in message and "--study" in message


def test_a_study_can_be_moved(tmp_path):
  before, after = Fake(tmp_path / "old"), Fake(tmp_path / "new")
  before.folder.mkdir()
  before.run()
  before.folder.rename(after.folder)
  assert after.run() == []


def start(*arguments, module="latentnmt.experiments.study", **options):
  command = [sys.executable, "-m", module, *map(str, arguments)]
  # A shell starts its background jobs with interruptions ignored, which they
  # would pass on.
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  try:
    return subprocess.Popen(
      command,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      **options,
    )
  finally:
    signal.signal(signal.SIGINT, before)


def finish(process):
  stdout, stderr = process.communicate(timeout=60)
  return process.returncode, stdout, stderr


@pytest.mark.parametrize("module", ["experiments", "latentnmt.experiments"])
def test_help_lists_the_recipes_and_is_no_failure(module):
  status, stdout, _ = finish(start("--help", module=f"{module}.study"))
  assert status == 0
  for name, recipe in RECIPES.items():
    assert f"{name}: {recipe.summary}"[:40] in stdout


def test_dry_run_shows_every_stage_and_writes_nothing(tmp_path):
  status, stdout, _ = finish(
    start("--recipe=quickstart", f"--out={tmp_path}/runs", "--dry_run")
  )
  assert status == 0
  assert stdout.startswith(f"quickstart: {RECIPES['quickstart'].summary}")
  assert f"expected: {RECIPES['quickstart'].expected}." in stdout
  assert "train gauss-distilled: to do, about" in stdout
  assert "  latentnmt distill --run=" in stdout
  assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", PAIRS)
def test_dry_run_of_a_pair_shows_all_its_stages(name, tmp_path, capsys):
  directory = StudyDirectory(tmp_path)
  stages = Plan(RECIPES[name], directory).stages()
  run.show(stages, Record(directory))
  lines = capsys.readouterr().out.splitlines()
  assert len(lines) == 4 * len(stages)
  for k, stage in enumerate(stages):
    title, command, reads, writes = lines[4 * k : 4 * k + 4]
    assert f"{stage.name}: to do, about " in title
    assert command.startswith(f"  latentnmt {stage.command[0]} --")
    assert reads.startswith("  reads ") and str(stage.outputs[0]) in writes
  summary = run.summary(name, RECIPES[name], stages)
  assert "one accelerator (estimated, not measured: " in summary


def test_a_reader_that_leaves_ends_the_output_in_silence():
  with start("--recipe=wmt14_en_de", "--dry_run") as process:
    process.stdout.close()
    assert process.stderr.read() == ""
  assert process.returncode == 128 + signal.SIGPIPE


@pytest.mark.parametrize(
  "arguments, message",
  [
    ([], "--recipe"),
    (["--recipe=quick"], "<quickstart|embedded|grammar|tatoeba_deen|"),
    (["--recipe=tiny", "--epochs=3"], "'epochs'"),
    (["--recipe=tiny", "--data=nowhere"], "no such file or folder"),
    (["--recipe=tatoeba_deen_cpu"], "no corpus of its own; give --data"),
    (["--recipe=tiny", "now"], "Unexpected argument 'now'"),
  ],
)
def test_bad_flags(arguments, message, tmp_path):
  status, stdout, stderr = finish(start(*arguments, f"--out={tmp_path}/runs"))
  assert status == 2
  [line] = stderr.splitlines()
  assert line.startswith("error: ") and message in line
  assert not stdout and not (tmp_path / "runs").exists()


def test_waits_for_another_process_in_the_folder(tmp_path):
  (tmp_path / "tiny").mkdir()
  with open(tmp_path / "tiny" / ".lock", "w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    process = start("--recipe=tiny", f"--out={tmp_path}")
    assert "waiting for another process" in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    assert finish(process)[0] == 130


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interruption_ends_the_stage_too(number, tmp_path):
  process = start("--recipe=tiny", f"--out={tmp_path}")
  assert process.stderr.readline().startswith("tiny: Every stage")
  assert "[1/" in process.stderr.readline()
  time.sleep(0.5)  # its stage is importing by now
  process.send_signal(number)
  status, _, stderr = finish(process)
  assert status == 130 and "run again to continue" in stderr
  with open(tmp_path / "tiny" / ".lock") as lock:  # nobody holds it
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
  assert json.loads((tmp_path / "tiny" / "study.json").read_text()) == {}


def test_damaged_record_is_one_line(tmp_path):
  (tmp_path / "tiny").mkdir()
  (tmp_path / "tiny" / "study.json").write_text("{")
  status, _, stderr = finish(start("--recipe=tiny", f"--out={tmp_path}"))
  assert status == 2 and "study.json is damaged" in stderr
  assert stderr.count("\n") == 1


# A cache of one's own, and data of one's own.


@dataclasses.dataclass
class Value:
  """What a flag holds."""

  value: object


@pytest.fixture
def plan(tmp_path, monkeypatch):
  """Commands of a study and their cache; it ends with the first training."""

  def run_study(recipe, data=None, cache=None):
    values = {"_OUT": tmp_path / "runs", "_RECIPE": recipe, "_DATA": data}
    for name in ("_STUDY", "_TRUNCATE", "_DRY_RUN"):
      values[name] = None
    for name, value in values.items():
      monkeypatch.setattr(study, name, Value(value))
    monkeypatch.setattr(study.app, "_COMPILATION_CACHE", Value(cache))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    commands, caches = [], set()

    def start_process(command, cache, lock):
      commands.append(command)
      caches.add(str(cache))
      return int(command[0] == "train")

    monkeypatch.setattr(study, "start_process", start_process)
    with pytest.raises(SystemExit):
      study.main([])
    return commands, caches

  return run_study


@pytest.mark.parametrize("given", [False, True])
def test_stages_get_the_compilation_cache(given, plan, tmp_path):
  mine = str(tmp_path / "mine") if given else None
  _, caches = plan("tiny", cache=mine)
  assert caches == {mine or str(tmp_path / "runs" / "compilation_cache")}


def test_text_of_ones_own_is_prepared_and_then_looked_at(
  plan, tmp_path, monkeypatch
):
  (tmp_path / "text").mkdir()
  looked = []
  monkeypatch.setattr(study, "check_lengths", lambda *args: looked.append(args))
  (first, second), _ = plan("tatoeba_deen_cpu", tmp_path / "text")
  assert first[:2] == ("preprocess", f"--corpus={tmp_path / 'text'}")
  assert "--train_pairs=40000" in first and second[0] == "train"
  prepared = tmp_path / "runs" / "tatoeba_deen_cpu" / "data"
  assert looked == [(RECIPES["tatoeba_deen_cpu"], prepared, None)]


def test_corpora_of_the_package_are_known_to_fit(plan, monkeypatch):
  monkeypatch.setattr(study, "check_lengths", None)
  commands, _ = plan("tiny")
  assert [command[0] for command in commands] == ["preprocess", "train"]


def test_data_that_are_prepared_are_taken_as_they_are(long, plan, tmp_path):
  [command], _ = plan("quickstart", long("dev", 1))
  assert command[0] == "train" and f"--data={tmp_path / 'data'}" in command


@pytest.fixture
def long(tmp_path):
  """Prepared data; prepare(split, side) makes its second line too long."""

  def prepare(split, side):
    pair = ["ja nein"] * 3, ["yes no"] * 3
    splits = {name: tuple(map(list, pair)) for name in data.SPLITS}
    splits[split][side][1] = "ja no " * 300
    corpus = data.Corpus(splits, ("de", "en"), "long")
    return data.prepare(corpus, tmp_path / "data", vocab_size=20).path

  return prepare


@pytest.mark.parametrize(
  "split, side, name, truncate, refused",
  [
    ("dev", 0, "source", False, True),
    ("dev", 0, "source", True, True),
    ("dev", 1, "target", False, False),
    ("test", 0, "source", False, True),
    ("test", 1, "target", False, True),
    ("test", 1, "target", True, False),
    ("train", 0, "source", False, False),
  ],
)
def test_long_lines_are_refused_before_training(
  long, split, side, name, truncate, refused
):
  path = long(split, side)
  if not refused:
    check_lengths(RECIPES["quickstart"], path, truncate)
    return
  with pytest.raises(InputError, match=f"1 of 3 {split} {name}s .* line 2 "):
    check_lengths(RECIPES["quickstart"], path, truncate)


def test_too_long_data_are_refused_by_the_binary(long, tmp_path):
  path = long("test", 0)
  arguments = "--recipe=tiny", f"--out={tmp_path}/runs", f"--data={path}"
  status, _, stderr = finish(start(*arguments))
  assert status == 2 and "--truncate" in stderr
  assert stderr.count("\n") == 1 and not (tmp_path / "runs").exists()


def test_truncation_is_asked_of_the_stages_that_know_it(tmp_path):
  for truncate in (False, True):
    plan = Plan(RECIPES["tiny"], StudyDirectory(tmp_path), None, truncate)
    asked = {
      s.command[0] for s in plan.stages() if "--truncate=true" in s.command
    }
    expected = {"translate", "evaluate_likelihood"} if truncate else set()
    assert asked == expected


# A study of one's own.


def test_a_study_answers_without_jax():
  code = "import sys, latentnmt.experiments.study.__main__ as main; "
  code += "print(sorted({'jax', 'flax', 'orbax'} & set(sys.modules)))"
  done = subprocess.run([sys.executable, "-c", code], capture_output=True)
  assert done.stdout.split() == [b"[]"], done.stderr


def a_run(**fields):
  return Run(**{"methods": ("greedy",), "quick_method": "greedy", **fields})


def a_recipe(**runs):
  return Recipe("mine", "grammar", 300, runs, seconds={}, expected="a table")


def test_a_run_has_a_preset_or_a_model():
  for fields in ({}, {"preset": "gauss_tiny", "model": "mine:Model"}):
    with pytest.raises(InputError, match="either a preset or a model"):
      a_run(**fields)


def test_a_model_of_ones_own_is_passed_on_and_swept_by_its_name(tmp_path):
  mine = a_run(model="mine:Model", settings=("train.steps=3",))
  recipe = dataclasses.replace(
    a_recipe(mine=mine), sweep=RECIPES["wmt14_en_de"].sweep
  )
  stages = Plan(recipe, StudyDirectory(tmp_path)).stages()
  sweep, train = (
    next(s for s in stages if s.command[0] == binary)
    for binary in ("sweep", "train")
  )
  for stage in (sweep, train):
    assert "--model=mine:Model" in stage.command
    assert not any("--preset" in argument for argument in stage.command)
  assert sweep.name == "sweep mine:Model"
  assert sweep.outputs == (tmp_path / "sweep" / "mine.Model.json",)


def test_distillation_and_warm_starts_need_a_teacher():
  for fields in ({"distilled": True}, {"warm_start": True}):
    with pytest.raises(InputError, match="first run .* is 'teacher'"):
      a_recipe(student=a_run(preset="gauss_tiny", **fields))


MODULE = """
from latentnmt.experiments.study.schema import Recipe, Run

NOT_ONE = 3
MINE = Recipe(
  summary="Of my own.",
  corpus="grammar",
  vocab_size=300,
  runs={"mine": Run(
    model="models:Mine", methods=("greedy",), quick_method="greedy"
  )},
  seconds={"train": 60},
  expected="a table",
)
"""


def test_a_recipe_of_ones_own_is_shown_from_ones_own_folder(tmp_path):
  (tmp_path / "recipes_of_mine.py").write_text(MODULE)

  def dry_run(name):
    recipe = f"--recipe=recipes_of_mine:{name}"
    return finish(start(recipe, "--dry_run", cwd=tmp_path))

  status, stdout, stderr = dry_run("MINE")
  assert status == 0, stderr
  assert stdout.startswith("recipes_of_mine:MINE: Of my own. About 1:00 in all")
  run = "latentnmt train --run=runs/recipes_of_mine.MINE/mine"
  assert run in stdout and "--model=models:Mine" in stdout
  for name, message in {
    "NOT_ONE": "is no `Recipe`",
    "MISSING": "has no attribute 'MISSING'",
  }.items():
    status, stdout, stderr = dry_run(name)
    assert (status, stdout) == (2, "") and stderr.startswith("error: ")
    assert message in stderr and stderr.count("\n") == 1


def test_a_recipe_of_the_table_is_found_by_its_name():
  assert find_recipe("tiny") is RECIPES["tiny"]


def test_stages_run_as_modules_of_the_package(tmp_path, monkeypatch):
  class Process:
    def __init__(self, command, **options):
      self.command, self.options = command, options
      started.append(self)

    def wait(self, timeout=None):
      return 3

  started = []
  monkeypatch.setattr(subprocess, "Popen", Process)
  with open(tmp_path / "lock", "w") as lock:
    assert run.start_process(("train", "--run=x"), tmp_path, lock) == 3
    assert started[0].options["pass_fds"] == [lock.fileno()]
  assert started[0].command == [
    sys.executable, "-m", "latentnmt.experiments.train", "--run=x",
    f"--compilation_cache={tmp_path}",
  ]  # fmt: skip
