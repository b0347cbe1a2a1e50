"""Every binary, by way of a tiny study: killed once, then run to the end."""

import contextlib
import dataclasses
import itertools
import json
import os
from pathlib import Path
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from latentnmt import checkpoint, config, data
from latentnmt.experiments.study.layout import StudyDirectory
from latentnmt.experiments.study.recipes import RECIPES
from latentnmt.experiments.study.record import Record
from latentnmt.experiments.study.run import run_all
from latentnmt.experiments.study.stages import Plan
from latentnmt.runs import RunDirectory
from latentnmt.text import Tokenizer

pytestmark = pytest.mark.slow  # the study takes a minute
RECIPE = RECIPES["tiny"]
RUNS = list(RECIPE.runs)
METHODS = [(name, m) for name, run in RECIPE.runs.items() for m in run.methods]
# What a model was trained on does not change its size and speed.
TIMED = [name for name, run in RECIPE.runs.items() if not run.distilled]


@dataclasses.dataclass(frozen=True)
class Tiny:
  """The folder of a finished study, and the stages that came after a kill."""

  folder: Path
  ran: list[str]

  def flags(self, run="teacher"):
    return f"--run={self.folder / run}", f"--data={self.folder / 'data'}"

  def run(self, name="teacher"):
    return RunDirectory(self.folder / name)


def stages_in(folder):
  return Plan(RECIPE, StudyDirectory(folder)).stages()


def start(folder):
  arguments = f"--recipe=tiny --out={folder.parent} --study={folder.name}"
  return subprocess.Popen(
    [sys.executable, "-m", "latentnmt.experiments.study", *arguments.split()],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    start_new_session=True,
  )


def kill_once(process, happened):
  """Kills a process, with those it started, once something has happened."""
  try:
    while not happened():
      assert process.poll() is None, process.stderr.read()
      time.sleep(0.02)
  finally:
    with contextlib.suppress(ProcessLookupError):
      os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, binary):
  folder = tmp_path_factory.mktemp("runs") / "tiny"
  # A step of the first model was taken, and none is saved yet.
  steps = folder / "teacher" / "metrics.jsonl"
  kill_once(start(folder), lambda: steps.exists() and steps.read_text())
  assert not (folder / "teacher" / "finished.json").exists()
  ran = []

  def run(command):
    ran.append(command)
    cache = f"--compilation_cache={folder.parent / 'cache'}"
    finished = binary(*command, cache)
    assert finished.status == 0, finished.stderr
    return 0

  stages = stages_in(folder)
  run_all(stages, Record(StudyDirectory(folder)), run)
  names = {stage.command: stage.name for stage in stages}
  return Tiny(folder, [names[command] for command in ran])


def test_killed_study_continues_where_it_was(tiny):
  assert tiny.ran[0] == "train teacher"
  assert len(tiny.ran) == len(stages_in(tiny.folder)) - 1


def test_finished_study_shows_its_table_at_once(tiny):
  began = time.monotonic()
  stdout, stderr = start(tiny.folder).communicate()
  assert time.monotonic() - began < 5
  assert stdout.strip() == (tiny.folder / "report.md").read_text().strip()
  count = len(stages_in(tiny.folder))
  assert stderr.startswith(f"All {count} stages are finished")


@pytest.mark.parametrize("run", RUNS)
def test_a_configuration_is_shown_as_it_is_trained(tiny, run, binary):
  [(_, *flags)] = [
    stage.command
    for stage in stages_in(tiny.folder)
    if stage.name == f"train {run}"
  ]
  shown = binary("train", *flags, "--show_config")
  assert shown.status == 0, shown.stderr
  settings = config.flatten(tiny.run(run).config())
  assert shown.stdout.splitlines() == [f"{k}={v}" for k, v in settings.items()]


@pytest.mark.parametrize("run", RUNS)
def test_run_directory_is_complete(tiny, run):
  files = "config.json vocab.model checkpoints metrics.jsonl finished.json"
  for name in files.split():
    assert (tiny.folder / run / name).exists(), name


@pytest.mark.parametrize("run, method", METHODS)
def test_translations_have_a_line_a_sentence(tiny, run, method):
  path = tiny.run(run).hypotheses_path("test", method)
  sources = data.PreparedData.open(tiny.folder / "data").sources("test")
  assert len(data.read_lines(path)) == len(sources)


@pytest.mark.parametrize("run, method", METHODS)
def test_results_tell_their_conditions(tiny, run, method):
  results = tiny.run(run).results()

  def find(metric, **fields):
    wanted = {"metric": metric, "split": "test", **fields}
    return [r for r in results if all(r.get(k) == v for k, v in wanted.items())]

  [bleu] = find("bleu", method=method)
  assert 0 <= bleu.value <= 100
  assert bleu.get("signature").startswith("nrefs:1")
  speeds = find("sentences_per_second", method=method)
  sizes = set(RECIPE.batch_sizes) if run in TIMED else set()
  assert {speed.batch_size for speed in speeds} == sizes
  for speed in speeds:
    assert 0 < speed.get("lowest") <= speed.value <= speed.get("highest")
    assert speed.get("device") and speed.get("compile_seconds") >= 0
  estimators = {r.estimator: r for r in find("nats_per_token")}
  if run == "teacher":
    assert set(estimators) == {"exact"}
  else:
    assert estimators["iwae"].samples == RECIPE.samples
    assert "lee2020" in estimators
  assert find("difference_to_truth")


@pytest.mark.parametrize("run", RUNS)
def test_every_kept_checkpoint_is_scored(tiny, run):
  scored = {"bleu": set(), "nats_per_token": set()}
  for result in tiny.run(run).results():
    if result.split == "dev" and result.metric in scored:
      scored[result.metric].add(result.step)
  kept = set(checkpoint.steps(tiny.folder / run))
  assert scored == {"bleu": kept, "nats_per_token": kept} and len(kept) == 2


@pytest.mark.parametrize("run", TIMED)
def test_parameters_are_counted(tiny, run):
  _, params, _ = checkpoint.load(tiny.folder / run)
  results = tiny.run(run).results()
  [result] = [r for r in results if r.metric == "parameters"]
  sizes = [leaf.size for leaf in _leaves(params)]
  assert result.value == sum(sizes)


def _leaves(tree):
  if not isinstance(tree, dict):
    return [tree]
  return [leaf for value in tree.values() for leaf in _leaves(value)]


def test_report_has_a_row_for_every_run_and_method(tiny):
  report = (tiny.folder / "report.md").read_text()
  for run, method in METHODS:
    assert any(
      f"| {run} |" in line and f"| {method} |" in line
      for line in report.splitlines()
    )
  assert "Against the known" in report
  assert (tiny.folder / "report.csv").read_text().startswith("run,")


# Distillation.


def test_distilled_data_differ_in_their_training_targets_only(tiny):
  raw = data.PreparedData.open(tiny.folder / "data")
  distilled = data.PreparedData.open(tiny.folder / "data-distilled")
  assert distilled.targets("train") != raw.targets("train")
  assert distilled.sources("train") == raw.sources("train")
  for split in ("dev", "test"):
    assert distilled.targets(split) == raw.targets(split)
  assert distilled.meta["made_from"]["targets"] | {"teacher_config": ""} == {
    "data": raw.fingerprint,
    "teacher": "teacher",
    "teacher_config": "",
    "step": checkpoint.find_step(tiny.folder / "teacher"),
    "method": "beam4",
  }
  assert not (tiny.folder / "data-distilled.parts").exists()


def test_distillation_takes_what_an_earlier_process_translated(
  tiny, tmp_path, binary
):
  finished = data.PreparedData.open(tiny.folder / "data-distilled")
  count = len(finished.sources("train"))
  parts = tmp_path / "new.parts"
  parts.mkdir()
  made_from = finished.meta["made_from"]["targets"] | {"batch_tokens": 4096}
  (parts / "made_from.json").write_text(json.dumps(made_from))
  lines = [f"sentence {i}" for i in range(count)]
  part = {"ids": list(range(count)), "lines": lines, "seconds": 1.0}
  (parts / "00000.json").write_text(json.dumps(part | {"ids": [0, 2, 9]}))
  arguments = "distill", *tiny.flags(), f"--out={tmp_path / 'new'}"
  other_batches = binary(*arguments, "--batch_tokens=64")
  assert other_batches.status == 2
  assert "batch_tokens: 4096 -> 64" in other_batches.stderr
  other_plan = binary(*arguments)
  assert other_plan.status == 2
  assert f"other sentences than are planned for it now; delete {parts}" in (
    other_plan.stderr
  )
  (parts / "00000.json").write_text(json.dumps(part))
  result = binary(*arguments)
  assert result.status == 0, result.stderr
  assert data.PreparedData.open(tmp_path / "new").targets("train") == lines
  assert not parts.exists()


def test_distillation_killed_in_the_middle_continues(tiny, tmp_path, binary):
  vocabulary = data.PreparedData.open(tiny.folder / "data").tokenizer
  corpus = data.grammar_corpus((40, 1, 1), 5)
  raw = data.prepare(corpus, tmp_path / "raw", tokenizer=vocabulary)
  run, _ = tiny.flags()
  flags = [run, f"--data={raw.path}", "--batch_tokens=64", "--method=greedy"]
  code = "from latentnmt.experiments import app, distill; distill._PART = 1;"
  command = [sys.executable, "-c", f"{code} app.run(distill.main)", *flags]
  out, parts = tmp_path / "new", tmp_path / "new.parts"
  pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
  process = subprocess.Popen(
    [*command, f"--out={out}"], start_new_session=True, **pipes
  )
  kill_once(process, (parts / "00000.json").exists)
  translated = [json.loads(p.read_text()) for p in parts.glob("0*.json")]
  assert 0 < sum(len(part["ids"]) for part in translated) < 40
  shutil.copytree(parts, tmp_path / "copy")
  subprocess.run([*command, f"--out={out}"], check=True, **pipes)
  assert not parts.exists()
  whole = binary("distill", *flags, f"--out={tmp_path / 'whole'}")
  assert whole.status == 0, whole.stderr
  new, old = (data.PreparedData.open(tmp_path / n) for n in ("new", "whole"))
  assert new.targets("train") == old.targets("train")
  # Killed after the data were there, but before the parts were gone.
  shutil.copytree(tmp_path / "copy", parts)
  again = binary("distill", *flags, f"--out={out}")
  assert "is finished" in again.stdout and not parts.exists()


def test_speed_of_distillation_is_a_result(tiny):
  of_train = [r for r in tiny.run().results() if r.split == "train"]
  (result,) = [r for r in of_train if r.method == "beam4"]
  assert result.metric == "sentences_per_second" and result.value > 0
  assert result.step == checkpoint.find_step(tiny.folder / "teacher")


# Candidates, and several checkpoints.


def test_candidates_ranked_by_a_teacher_and_several_checkpoints(
  tiny, tmp_path, binary
):
  run, folder = tmp_path / "run", tiny.folder
  shutil.copytree(folder / "gauss-raw", run)
  flags = f"--run={run}", f"--data={folder / 'data'}"
  names = ["delta0-l2-s2-t0.5", "delta0-l2-s2-t0.5-teacher"]
  done = binary(
    "translate", *flags, f"--methods={','.join(names)}", "--seed=3",
    f"--teacher={folder / 'teacher'}", "--checkpoint=kept",
  )  # fmt: skip
  assert done.status == 0, done.stderr
  steps = checkpoint.steps(run)
  assert len(steps) > 1
  for name, step in itertools.product(names, steps):
    path = RunDirectory(run).hypotheses_path("test", f"{name}.step{step}")
    assert len(data.read_lines(path)) == 8
    about = json.loads(path.with_suffix(".json").read_text())
    assert (about["step"], about["seed"]) == (step, 3)
    assert about["bound_per_token"] < 0 and about["output_tokens"] >= 8
    assert np.isfinite(about["eq3_per_token"])
    if name.endswith("teacher"):
      best = checkpoint.find_step(folder / "teacher")
      assert (about["teacher"], about["teacher_step"]) == ("teacher", best)
    else:
      assert "teacher" not in about
  # By default it is the best checkpoint, and the file's name says no step.
  alone = binary("translate", *flags, "--methods=delta0-l2-s2-t0.5", "--seed=3")
  assert alone.status == 0, alone.stderr
  path = RunDirectory(run).hypotheses_path("test", names[0])
  best = path.with_name(f"test.{names[0]}.step{checkpoint.find_step(run)}.txt")
  assert path.read_text() == best.read_text()
  speed = binary(
    "benchmark", *flags, f"--methods={names[1]}", "--batch_sizes=2",
    "--repeats=1", "--batches=1", f"--teacher={folder / 'teacher'}",
  )  # fmt: skip
  assert speed.status == 0, speed.stderr


def test_a_teacher_has_the_same_vocabulary(tiny, tmp_path, binary):
  shutil.copytree(tiny.folder / "teacher", tmp_path / "other")
  other = Tokenizer.train(["a b c"] * 20, 7)
  other.save(tmp_path / "other" / "vocab.model")
  done = binary(
    "translate", *tiny.flags("gauss-raw"), "--methods=delta0-l2-teacher",
    f"--teacher={tmp_path / 'other'}",
  )  # fmt: skip
  assert done.status == 2 and "another vocabulary" in done.stderr


# Pictures of latents.


def test_latents_are_drawn(tiny, tmp_path, binary):
  run, raw = tiny.flags("gauss-raw")
  few = "--draws=4", "--perplexity=2"
  drawn = binary("visualize", run, raw, "--line=2", *few)
  assert drawn.status == 0, drawn.stderr
  path = tiny.folder / "gauss-raw" / "figures" / "test-2.delta1.png"
  assert drawn.stdout == f"{path}\n"
  assert path.read_bytes().startswith(b"\x89PNG")
  own = f"--output={tmp_path / 'own.svg'}", "--source=Ja $1", "--target=Yes"
  drawn = binary("visualize", run, *own, *few, "--steps=0")
  assert drawn.status == 0, drawn.stderr
  text = (tmp_path / "own.svg").read_text()
  for words in ("Ja $1 → Yes", "k = 0", "perplexity 2, seed 0"):
    assert f"<!-- {words}" in text or words in text, words


# A prior of one's own.


def test_prior_of_ones_own_goes_through_every_binary(tiny, tmp_path, binary):
  run, raw = f"--run={tmp_path / 'run'}", f"--data={tiny.folder / 'data'}"
  settings = [f"--set={s}" for s in RECIPE.runs["gauss-raw"].settings]
  flags = "--preset=gauss_tiny", "--prior=priors_of_ours:Shifted", *settings

  def go(name, *arguments):
    done = binary(name, *arguments)
    assert done.status == 0, done.stderr

  go("train", run, raw, *flags)
  model, params, _ = checkpoint.load(tmp_path / "run")
  assert model.config.prior.target == "priors_of_ours:Shifted"
  assert params["prior"]["m"].shape == (model.config.channels,)
  go("translate", run, raw, "--methods=delta0,delta1")
  for method in ("delta0", "delta1"):
    path = RunDirectory(tmp_path / "run").hypotheses_path("test", method)
    assert len(data.read_lines(path)) == 8
  go("evaluate_likelihood", run, raw, "--samples=2")
  go("evaluate_bleu", run, raw, "--resamples=2")
  once = "--batch_sizes=2", "--repeats=1", "--batches=1"
  go("benchmark", run, raw, "--methods=delta1", *once)
  go("analyze", f"--study={tmp_path}")
  assert "| run |" in (tmp_path / "report.md").read_text()
  go("visualize", run, raw, "--line=1", "--draws=4", "--perplexity=2")


def test_finished_distillation_is_left_alone(tiny, binary):
  out = f"--out={tiny.folder / 'data-distilled'}"
  result = binary("distill", *tiny.flags(), out)
  assert (result.status, result.stderr) == (0, "")
  assert "is finished" in result.stdout


# Translation of one's own text.


@pytest.mark.parametrize("piped", [False, True])
def test_translate_reads_a_file_or_standard_input(
  tiny, tmp_path, binary, piped
):
  sources = data.PreparedData.open(tiny.folder / "data").sources("test")
  text = "".join(line + "\n" for line in sources)
  (tmp_path / "in.txt").write_text(text)
  run, _ = tiny.flags()
  result = binary(
    "translate",
    run,
    "--methods=greedy",
    "--input=-" if piped else f"--input={tmp_path / 'in.txt'}",
    *([] if piped else [f"--output={tmp_path / 'out.txt'}"]),
    stdin=text if piped else "",
  )
  assert result.status == 0, result.stderr
  hypotheses = tiny.folder / "teacher" / "hypotheses" / "test.greedy.txt"
  translated = result.stdout if piped else (tmp_path / "out.txt").read_text()
  assert translated == hypotheses.read_text()


def test_long_sources_are_translated_only_when_asked(tiny, binary):
  run, _ = tiny.flags()
  arguments = "translate", run, "--methods=greedy", "--input=-"
  text = "ja\n" + "nein " * 100 + "\n"
  refused = binary(*arguments, stdin=text)
  assert refused.status == 2 and not refused.stdout
  assert "1 of 2 sources are longer" in refused.stderr
  assert binary(*arguments, "--truncate", stdin=text).status == 0


# Bad input: one line, status 2, nothing written.

TEACHER, DATA = "--run={study}/teacher", "--data={study}/data"
GAUSS, RESCORED = "--run={study}/gauss-raw", "--methods=delta0-l2-teacher"
TINY = ("--preset=transformer_tiny", DATA)
GRAMMAR = "--corpus=grammar", "--sizes=16,8,8"
BAD = [
  ("preprocess", ["--corpus=grammer", "--out={new}"], "neither a folder"),
  (
    "preprocess",
    [*GRAMMAR, "--vocab_size=9999", "--out={new}"],
    "9,?999",
  ),
  (
    "preprocess",
    [*GRAMMAR, "--vocab_size=200", "--out={study}/data"],
    "vocab_size: 300 -> 200",
  ),
  (
    "preprocess",
    ["--source={one},{two},{two}", "--target={two},{two},{two}", "--out={new}"],
    "1 .*2",
  ),
  (
    "preprocess",
    ["--source={latin},{two},{two}", "--target={two},{two},{two}"]
    + ["--out={new}"],
    "latin.txt.*2.*UTF-8",
  ),
  ("train", ["--run={new}", "--preset=gaus", DATA], "valid are: .*gauss_base"),
  (
    "train",
    ["--run={new}", *TINY, "--set=train.step=1"],
    "no field 'step'.*steps",
  ),
  ("train", ["--run={new}", *TINY, "--set=train.steps=x"], "of type int"),
  ("train", [TEACHER, *TINY], "train.steps: "),
  ("train", ["--run={new}", DATA], "either --preset or --model"),
  ("train", ["--run={new}", *TINY, "--model=a:B"], "either --preset or"),
  ("train", ["--run={new}", "--model=aB", DATA], "not of the form package"),
  ("train", ["--run={new}", "--model=json:JSON", DATA], "no attribute 'JSON'"),
  ("train", ["--run={study}/data", *TINY], "no run directory"),
  (
    "train",
    ["--run={new}", "--preset=gauss_tiny", "--data={new}"],
    "no prepared corpus",
  ),
  ("distill", ["--run={new}", DATA, "--out={new}"], "not a run directory"),
  (
    "distill",
    [TEACHER, DATA, "--out={study}/data-distilled", "--method=greedy"],
    "method: beam4 -> greedy",
  ),
  (
    "distill",
    [TEACHER, DATA, "--out={new}", "--checkpoint=999"],
    "no checkpoint of step 999; it has",
  ),
  ("translate", [TEACHER, DATA, "--methods=delta"], "valid are"),
  ("translate", [TEACHER, DATA, "--methods=greedy,delta1"], "cannot decode"),
  (
    "translate",
    [TEACHER, DATA, "--methods=greedy", "--output={new}"],
    "--output is for --input",
  ),
  (
    "translate",
    [TEACHER, "--methods=greedy", "--input={one}", "--split=dev"],
    "--split is for --data",
  ),
  (
    "train",
    ["--run={new}", *TINY, "--num_processes=2"],
    "--num_processes needs --coordinator",
  ),
  (
    "benchmark",
    ["--preset=gauss_tiny", "--methods=delta0", DATA],
    "--data is for --run",
  ),
  (
    "translate",
    [TEACHER, DATA, "--methods=greedy", "--checkpoint=999"],
    "no checkpoint of step 999",
  ),
  ("translate", [TEACHER, "--methods=greedy"], "either --data"),
  (
    "translate",
    [TEACHER, "--methods=greedy,beam4", "--input={one}"],
    "one decoding method",
  ),
  (
    "translate",
    [TEACHER, DATA, "--methods=greedy", "--split=train2"],
    "--split=train2.*<train.dev.test>",
  ),
  ("evaluate_bleu", ["--run={study}/data", DATA], "no translations"),
  ("evaluate_likelihood", ["--run={new}", DATA], "not a run directory"),
  ("evaluate_likelihood", [TEACHER, DATA, "--checkpoint=999"], "step 999"),
  ("benchmark", ["--methods=greedy"], "either --run or --preset"),
  ("benchmark", [TEACHER, "--methods=greedy"], "--data"),
  ("benchmark", ["--preset=gaus", "--methods=delta0"], "valid are"),
  (
    "benchmark",
    ["--preset=gauss_tiny", "--methods=delta0", "--batch_sizes=0"],
    "above 0",
  ),
  ("analyze", ["--study={study}/data"], "no run directories"),
  ("translate", [GAUSS, DATA, RESCORED], "needs --teacher"),
  (
    "translate",
    [GAUSS, DATA, "--methods=delta0-l2", "--teacher={study}/teacher"],
    "--teacher is for methods such as",
  ),
  (
    "translate",
    [GAUSS, DATA, RESCORED, "--teacher={study}/gauss-raw"],
    "no exact likelihood to judge by; give an autoregressive",
  ),
  (
    "translate",
    [GAUSS, "--methods=delta0", "--input={one}", "--checkpoint=kept"],
    "one checkpoint",
  ),
  (
    "benchmark",
    ["--preset=gauss_tiny", RESCORED, "--teacher={study}/teacher"],
    "--teacher is for --run",
  ),
  ("visualize", [TEACHER, DATA, "--line=1"], "has no latents"),
  ("visualize", [GAUSS, DATA], "needs --line"),
  ("visualize", [GAUSS, DATA, "--line=9"], "test has 8 lines"),
  ("visualize", [GAUSS], "either --data"),
  ("visualize", [GAUSS, "--source=ja"], "needs its --target"),
  (
    "visualize",
    [GAUSS, "--source=" + "ja " * 99, "--target=ja"],
    "max_length=64",
  ),
  ("visualize", [GAUSS, DATA, "--line=1", "--draws=9"], "--perplexity=30 "),
  ("visualize", [GAUSS, DATA, "--line=1", "--output=a.gif"], "end it in"),
]
BINARIES = sorted({name for name, *_ in BAD})


def snapshot(folder):
  return {
    path: (path.stat().st_mtime_ns, path.stat().st_size)
    for path in folder.rglob("*")
  }


@pytest.mark.parametrize(
  "name, arguments, message", BAD, ids=[f"{n}-{m}" for n, _, m in BAD]
)
def test_bad_input(tiny, tmp_path, binary, name, arguments, message):
  (tmp_path / "one.txt").write_text("ja\n")
  (tmp_path / "two.txt").write_text("yes\nno\n")
  (tmp_path / "latin.txt").write_bytes("ja\nSchön\n".encode("latin-1"))
  places = {n: tmp_path / f"{n}.txt" for n in ("one", "two", "latin")}
  places |= {"study": tiny.folder, "new": tmp_path / "new"}
  before = snapshot(tiny.folder), snapshot(tmp_path)
  result = binary(name, *(a.format(**places) for a in arguments))
  assert result.status == 2, result.stderr
  # A bar may have begun; what went wrong is one line, the last.
  *bar, line = result.stderr.splitlines()
  assert line.startswith("error: ") and not result.stdout
  assert all("| 0/" in line for line in bar)
  assert re.search(message, line), line
  assert (snapshot(tiny.folder), snapshot(tmp_path)) == before


@pytest.mark.parametrize("name", BINARIES)
def test_unknown_flags_and_arguments(binary, name):
  result = binary(name, "--epochs=3")
  assert result.status == 2
  assert result.stderr.startswith("error: ")
  assert result.stderr.count("\n") == 1
