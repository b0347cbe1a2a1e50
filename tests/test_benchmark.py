"""Speed: what is counted, that lengths are what they are said to be, tables."""

import dataclasses
import json
import re

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import pytest

from latentnmt import decode, models, zoo
from latentnmt.config import ExperimentConfig, TrainConfig
from latentnmt.decode import Beam, Delta, Greedy
from latentnmt.experiments.benchmark import (
  __main__ as benchmark,
)
from latentnmt.experiments.benchmark import (
  baselines,
  roofline,
  suites,
  table,
)
from latentnmt.experiments.benchmark.workloads import (
  decoding,
  subjects,
  training,
)
from latentnmt.types import EOS, PAD, Batch

V = 50


def array(*shape):
  return jax.ShapeDtypeStruct(shape, jnp.float32)


# Counting products.

W, X = array(8, 8), array(3, 8)


def loop(w, x, length):
  return lax.scan(lambda x, _: (x @ w, None), x, None, length=length)[0]


@pytest.mark.parametrize(
  "function, products, reads",
  [
    (lambda w, x: x @ w, 1, 1),
    (lambda w, x: jax.jit(jnp.matmul)(x, w.T), 1, 1),
    (lambda w, x: x @ (2 * w), 1, 1),
    (lambda w, x: x @ (w + x[0, 0]), 1, 0),
    (lambda w, x: x @ x.T @ (x @ w), 1 + 2 * 3 / 8, 1),
    (lambda w, x: loop(w, x, 5), 5, 5),
    (lambda w, x: loop(w, x, 0), 0, 0),
    # A product of what does not change in the loop is made once.
    (lambda w, x: lax.map(lambda _: x @ w, loop(w, x, 5)), 6, 6),
    (lambda w, x: lax.map(lambda r: loop(w, r[None], 2), x), 6 / 3, 6),
    # A loop over weights within one over what they multiply.
    (
      lambda w, x: lax.map(
        lambda r: lax.map(lambda c: r @ c, w.T.reshape(2, 4, 8).swapaxes(1, 2)),
        jnp.stack([x] * 5),
      ),
      5,
      5,
    ),
    (
      lambda w, x: lax.while_loop(
        lambda c: c[0, 0] < 1, lambda c: loop(w, c, 2), x
      ),
      14,
      14,
    ),
    (
      lambda w, x: lax.cond(
        x[0, 0] > 0, lambda y: y @ w, lambda y: y @ w @ w, x
      ),
      2,
      2,
    ),
    (lambda w, x: jax.checkpoint(lambda y: y @ w)(x), 1, 1),
    (lambda w, x: jax.vmap(lambda row: row @ w)(x), 1, 1),
  ],
)
def test_products_are_counted(function, products, reads):
  work = roofline.count(function, W, X, trips=7)
  assert work.flops == pytest.approx(products * 2 * 3 * 8 * 8)
  assert work.weight_bytes == reads * 4 * 8 * 8


@pytest.mark.parametrize("preset", ["transformer_tiny", "gauss_tiny"])
def test_products_are_most_of_what_xla_counts(preset):
  """XLA counts all operations, and a loop's body but once: so no loops."""
  counted = []
  for scan in (True, False):
    config = zoo.config(preset, vocab_size=V, transformer={"scan_layers": scan})
    model = models.build(config)
    tokens = jax.ShapeDtypeStruct((4, 16), jnp.int32)
    batch, key = Batch(tokens, tokens), jax.random.key(0)
    params = models.abstract_params(model)

    def forward(params, batch, model=model, key=key):
      return model.apply({"params": params}, batch, key)

    counted.append(roofline.count(forward, params, batch))
  assert counted[0].flops == counted[1].flops
  xla = jax.jit(forward).lower(params, batch).cost_analysis()["flops"]
  assert 0.85 * xla < counted[1].flops < xla


def test_training_reads_each_weight_forward_and_twice_backward():
  config = zoo.config("gauss_tiny", vocab_size=V)
  batch = Batch(*np.ones((2, 2, 4), np.int32))
  own = subjects.Subject(
    ExperimentConfig(config, TrainConfig()), batch, "random"
  )
  params = models.abstract_params(own.model)
  work = training.work(own, params, batch)
  expected = 3 * 4 * models.num_parameters(config)
  assert 0.95 * expected < work.weight_bytes < 1.05 * expected


def test_the_roofline_is_the_longer_of_two_times():
  machine = roofline.Machine(flops_per_second=100.0, bytes_per_second=10.0)
  assert machine.lower_bound(roofline.Work(200, 10)) == 2
  assert machine.lower_bound(roofline.Work(200, 50)) == 5


def test_a_machine_is_measured():
  machine = roofline.measure_machine("float32", sizes=(64,))
  assert machine.flops_per_second > 1e6 and machine.bytes_per_second > 1e6


# Lengths.


def subject(preset, length=5):
  config = zoo.config(preset, vocab_size=V)
  if preset != "transformer_tiny":
    config = dataclasses.replace(config, posterior_gain=2.0)
  return subjects.random_subject(
    ExperimentConfig(config, TrainConfig()), 4, 3, length
  )


def test_a_beam_of_fixed_length_takes_as_many_steps():
  own, calls = subject("transformer_tiny"), []

  class Counted(type(own.decoder)):
    def step(self, *args):
      jax.debug.callback(lambda: calls.append(1))
      return super().step(*args)

  counted = Counted(own.config.model, target_length=5)
  # EOS would end many of them at once.
  embedding = own.params["params"]["embedding"]
  embedding["table"] = embedding["table"].at[EOS].multiply(20.0)
  found = decode.translate(counted, own.params, own.batch.x, Beam(2))
  jax.effects_barrier()
  tokens = np.asarray(found.tokens)
  assert len(calls) == 5
  assert np.all((tokens != PAD).sum(axis=-1) == 5)
  assert np.all((tokens == EOS).sum(axis=-1) == 1)


def test_decoding_of_random_weights_says_its_steps():
  own = subject("gauss_tiny")
  x = own.batches(1, 2)
  rows = [decoding.measure(own, Delta(steps), x, 1) for steps in (0, 1, 4)]
  assert [row["steps"] for row in rows] == [0, 1, 4]
  assert {row["target_length"] for row in rows} == {5}
  one, four = (row["flops"] - rows[0]["flops"] for row in rows[1:])
  # Keys and values of the source are there after the first refinement.
  assert 3 * one < four < 4 * one
  for row in rows:
    assert row["lowest"] <= row["value"] <= row["highest"]


def test_pairs_of_median_length():
  x = [[2] * n + [EOS] for n in (1, 7, 8, 9, 30)]
  y = [[3] * n + [EOS] for n in (9, 9, 2, 4, 9)]
  batch = subjects.of_median_length(x, y)
  assert batch.x.shape == (2, 16) and batch.y.shape == (2, 5)
  assert (batch.x != PAD).sum(axis=1).tolist() == [9, 10]
  assert (batch.y != PAD).sum(axis=1).tolist() == [3, 5]


# The binary.


def test_benchmark_of_a_preset_prints_json_lines_and_a_table(binary):
  result = binary(
    "benchmark",
    *("--preset=transformer_tiny", f"--vocab_size={V}", "--nomachine"),
    *("--source_length=3", "--target_length=4", "--methods=greedy"),
    *("--tasks=decode,train,likelihood", "--samples=3", "--train_tokens=8"),
    *("--batch_sizes=2", "--batches=1", "--repeats=2"),
  )
  assert result.status == 0, result.stderr
  lines = result.stdout.splitlines()
  rows = [json.loads(line) for line in lines if line.startswith("{")]
  parameters, speed, training, likelihood = rows
  assert parameters["value"] == models.num_parameters(
    zoo.config("transformer_tiny", vocab_size=V)
  )
  assert (speed["split"], speed["batch_size"]) == ("random", 2)
  assert training["target_tokens"] == 8
  assert training["flops"] > 2 * speed["flops"] > 0
  assert (likelihood["samples"], likelihood["flops"] > 0) == (None, True)
  assert all(row["peak_bytes"] > 1e7 for row in rows[1:])
  decoded, trained, scored = lines[-3:]
  assert decoded.startswith("| transformer_tiny | greedy | latentnmt | 2 |")
  assert "target tokens/s" in trained and "s/sentence" in scored


BAD = [
  (["--tasks=learn"], "valid are decode"),
  (["--preset=gauss_tiny", "--suite=cpu", "--tasks=train"], "--suite chooses"),
  (["--suite=tpu"], "--suite"),
]


@pytest.mark.parametrize("arguments, message", BAD)
def test_bad_input(binary, arguments, message):
  result = binary("benchmark", *arguments)
  assert result.status == 2 and not result.stdout
  assert re.search(message, result.stderr) and result.stderr.count("\n") == 1


def test_baselines_are_asked_for_where_they_are_missing(monkeypatch):
  monkeypatch.setattr(baselines.importlib.util, "find_spec", lambda name: None)
  with pytest.raises(ValueError, match="pip install 'latentnmt.baselines.'"):
    baselines.check()
  with pytest.raises(ValueError, match="autoregressive"):
    baselines.check_config(zoo.config("gauss_tiny", vocab_size=V))


def test_methods_are_by_default_those_a_model_takes():
  for preset, names in (
    ("transformer_tiny", ["beam4"]),
    ("gauss_tiny", ["delta0", "delta1", "delta4"]),
  ):
    model = models.build(zoo.config(preset, vocab_size=V))
    assert list(map(str, benchmark.methods(model, None))) == names
  with pytest.raises(ValueError, match="cannot decode by beam2"):
    benchmark.methods(model, ["delta0", "beam2"])


# Tables.


def test_suites_are_of_flags_that_there_are():
  defined = benchmark.flags.FLAGS
  for name in suites.SUITES:
    processes = suites.processes(name, True, None)
    presets = set()
    for process in processes:
      for flag in process.flags:
        key, value = flag.removeprefix("--").split("=", 1)
        defined[key].parser.parse(value)
        presets |= {value} if key == "preset" else set()
    assert presets <= set(zoo.names())
    assert ("flow_base" in presets) and "tasks=machine" in processes[0].flags[1]
    own = suites.processes(name, True, "gauss_base")
    assert 1 < len(own) < len(processes), name
  alone = suites.processes("cpu", False, None)
  assert len(alone) < len(suites.processes("cpu", True, None))


def speed_row(system, value, **fields):
  row = {
    "metric": "sentences_per_second", "model": "transformer_base",
    "system": system, "dtype": "float32", "matmul_dtype": "float32",
    "split": "random", "method": "beam4", "device": "2-core", "batch_size": 1,
    "source_length": 26, "target_length": 28, "steps": 28, "value": value,
    "lowest": value - 1, "highest": value + 1, "seconds": 1 / value,
  }  # fmt: skip
  return row | fields


def test_table_compares_with_baselines_and_rooflines():
  machine = roofline.Machine(flops_per_second=100.0, bytes_per_second=1e9)
  ours = speed_row("latentnmt", 10.0, flops=5.0, weight_bytes=1, peak_bytes=2e9)
  ours = table.beside_roofline(ours, {"float32": machine})
  assert ours["roofline_seconds"] == 0.05
  assert ours["utilisation"] == pytest.approx(0.5)
  other = speed_row("huggingface", 4.0, threads="2", version="torch 9")
  failed = {"metric": "failed", "value": 9, "flags": "--preset=flow_base"}
  text = table.table([ours, other, failed])
  assert "Not measured, status 9: --preset=flow_base" in text
  assert "huggingface: torch 9, transformer_base" in text
  *_, head, _, first, second = text.splitlines()
  cells = [cell.strip() for cell in first.strip("|").split("|")]
  named = dict(
    zip((n.strip() for n in head.strip("|").split("|")), cells, strict=True)
  )
  assert named["x huggingface"] == "2.50"
  assert (named["of peak"], named["GB"], named["roofline s"]) == (
    "50%", "2.0", "0.0500",
  )  # fmt: skip
  assert "huggingface (threads 2)" in second and "| 1.00 |" in second
  large = ours | {"model": "transformer_large"}
  assert table.table([large, other]).splitlines()[-2].endswith("|  |")
  rounded = table.table([ours | {"matmul_dtype": "bfloat16"}])
  assert "| latentnmt, bfloat16 products |" in rounded


# Baselines, where they are installed.


def test_ctranslate2_computes_the_same_model(tmp_path):
  ctranslate2 = pytest.importorskip("ctranslate2")
  own = subject("transformer_tiny", length=6)
  baselines.convert(own.config.model, own.params, str(tmp_path))
  translator = ctranslate2.Translator(str(tmp_path), compute_type="float32")
  found = translator.translate_batch(
    [[str(i) for i in row] for row in own.batch.x],
    beam_size=1, max_decoding_length=5, min_decoding_length=5,
    return_scores=True, length_penalty=0,
  )  # fmt: skip
  ours = decode.translate(own.decoder, own.params, own.batch.x, Greedy())
  for result, tokens in zip(found, np.asarray(ours.tokens), strict=True):
    assert list(map(int, result.hypotheses[0])) == tokens[0, :5].tolist()
  scores = [result.scores[0] for result in found]
  # Neither knows EOS before its end, and there ours is certain of it.
  np.testing.assert_allclose(scores, ours.scores[:, 0], rtol=1e-4)


@pytest.mark.parametrize("system", baselines.SYSTEMS)
def test_baselines_decode_as_many_steps(system):
  pytest.importorskip("ctranslate2")
  pytest.importorskip("transformers")
  own = subject("transformer_tiny")
  x = own.batches(1, 2)
  row = baselines.measure_decoding(system, own, Beam(2), x, 1)
  assert row["steps"] == 5 and row["value"] > 0
