"""Baselines, which a user might pick instead: CTranslate2 and Marian.

Both at the size of one of our autoregressive presets and on the same random
sentences. CTranslate2 computes the very same model: our random weights are
converted to its format. Marian's layers, normed after what ours are normed
before and with biases in attention, get random weights of their own; their
number may differ by a hundredth.

Each decodes exactly as many steps as ours: the least and the most tokens are
set to the same number, which bans EOS before. CTranslate2 is asked how long all
hypotheses are, of Marian's decoder the calls are counted.
"""

from collections.abc import Callable, Iterable
import functools
import importlib.util
import operator
import os
import tempfile

import jax
import numpy as np

from latentnmt.config import AutoregressiveConfig, ModelConfig
from latentnmt.decode import Beam
from latentnmt.errors import InputError
from latentnmt.experiments.benchmark.workloads import decoding, training
from latentnmt.experiments.benchmark.workloads.subjects import Subject
from latentnmt.experiments.benchmark.workloads.timing import timed
from latentnmt.inference import variables
from latentnmt.models import num_parameters
from latentnmt.transformer import sinusoids
from latentnmt.types import EOS, PAD

SYSTEMS = ("ctranslate2-float32", "ctranslate2-int8", "huggingface")
_PACKAGES = ("ctranslate2", "torch", "transformers")


def check() -> None:
  """Raises InputError, with their names, if baselines are not installed."""
  missing = [name for name in _PACKAGES if not importlib.util.find_spec(name)]
  if missing:
    raise InputError(
      f"--baselines needs {', '.join(missing)}: pip install"
      " 'latentnmt[baselines]'."
    )


def check_config(config: ModelConfig) -> None:
  """Raises InputError for models that the baselines do not have."""
  if config.family != "autoregressive":
    raise InputError(
      "--baselines are autoregressive; give a transformer preset."
    )
  rounds = config.transformer.operand_dtype != "float32"
  if rounds or jax.default_backend() != "cpu":
    raise InputError("--baselines are compared on CPUs, in float32.")


def measure_decoding(
  system: str, subject: Subject, method: Beam, x: np.ndarray, repeats: int
) -> dict:
  """Decodes int32[batches, B, S]; the fastest setting of threads counts.

  Raises:
    RuntimeError: if it did not decode as many steps.
  """
  make = _marian_calls if system == "huggingface" else _ctranslate2_calls
  calls, about = make(system, subject, method, x)
  desc = f"{system} {method} x {x.shape[1]}"
  times, threads = _quickest(calls, repeats, desc)
  length = subject.length
  steps = {"target_length": length, "steps": length, "threads": threads}
  return decoding.row(times, method, x) | steps | about


def _check_steps(name: str, steps: Iterable[int], expected: int) -> None:
  if set(steps) != {expected}:
    raise RuntimeError(
      f"{name} decoded {sorted(set(steps))} steps instead of {expected}."
    )


def _quickest(calls: dict[str, Callable], repeats: int, desc: str):
  """Times the quickest of several calls, and says which it is."""
  best = next(iter(calls))
  if len(calls) > 1:
    tried = {name: timed(call, 1, desc) for name, call in calls.items()}
    best = min(tried, key=lambda name: tried[name].median)
  return timed(calls[best], repeats, desc), best


# CTranslate2.


def _ctranslate2_calls(
  system: str, subject: Subject, method: Beam, x: np.ndarray
) -> tuple[dict[str, Callable], dict]:
  """Calls that translate int32[batches, B, S], by workers x their threads."""
  import ctranslate2

  dtype = system.partition("-")[2]
  cores, size, length = os.cpu_count(), x.shape[1], subject.length
  batches = [[[str(i) for i in row] for row in batch] for batch in x]

  def call(workers: int, threads: int):
    translator = ctranslate2.Translator(
      folder, compute_type=dtype,
      inter_threads=workers, intra_threads=threads,
    )  # fmt: skip
    options = dict(
      max_batch_size=-(-size // workers), beam_size=method.size,
      num_hypotheses=method.size, min_decoding_length=length,
      max_decoding_length=length,
    )  # fmt: skip
    return lambda: [
      found
      for batch in batches
      for found in translator.translate_batch(batch, **options)
    ]

  with tempfile.TemporaryDirectory() as folder:
    parameters = convert(subject.config.model, subject.params, folder)
    calls = {
      f"{workers} x {threads}": call(workers, threads)
      for workers in ({1, cores} if size > 1 else {1})
      for threads in {1, cores // workers}
    }
  lengths = [len(h) for r in calls["1 x 1"]() for h in r.hypotheses]
  _check_steps("CTranslate2", lengths, length)
  version = f"ctranslate2 {ctranslate2.__version__}"
  return calls, {"dtype": dtype, "parameters": parameters, "version": version}


def convert(config: AutoregressiveConfig, params, folder: str) -> int:
  """Writes an autoregressive model for CTranslate2.

  Its tokens are the decimal numbers of ours, EOS is "1".

  `params` are the model's, or what `models.for_inference` made of them. Returns
  how many there are.
  """
  from ctranslate2.specs import TransformerSpec

  sizes, params = config.transformer, variables(params)["params"]
  params = jax.device_get(params)
  spec = TransformerSpec.from_config(
    (config.encoder_layers, config.decoder_layers), sizes.heads
  )
  table = params["embedding"]["table"]
  _convert_stack(spec.encoder, params["encoder"]["stack"], sizes)
  _convert_stack(spec.decoder, params["decoder"], sizes)
  for part in (*spec.encoder.embeddings, spec.decoder.embeddings):
    part.weight = table
  spec.decoder.projection.weight = table
  spec.decoder.start_from_zero_embedding = True  # as that of PAD is
  names = [str(i) for i in range(sizes.vocab_size)]
  spec.register_source_vocabulary(names)
  spec.register_target_vocabulary(names)
  special = {"bos": PAD, "eos": EOS, "unk": EOS + 1, "decoder_start": PAD}
  for name, token in special.items():
    setattr(spec.config, f"{name}_token", str(token))
  spec.config.layer_norm_epsilon = 1e-6
  spec.validate()
  spec.optimize()
  spec.save(folder)
  return num_parameters(config)


def _convert_stack(spec, params, sizes) -> None:
  spec.position_encodings.encodings = sinusoids(sizes.max_length, sizes.width)
  _convert_norm(spec.layer_norm, params["norm"])
  for i, layer in enumerate(spec.layer):
    own = jax.tree.map(operator.itemgetter(i), params["layers"])
    _convert_norm(layer.self_attention.layer_norm, own["attention_norm"])
    query, key, value, out = _matrices(own["attention"], sizes.width)
    layer.self_attention.linear[0].weight = np.concatenate([query, key, value])
    layer.self_attention.linear[1].weight = out
    if "cross" in own:
      _convert_norm(layer.attention.layer_norm, own["cross_norm"])
      query, key, value, out = _matrices(own["cross"], sizes.width)
      weights = query, np.concatenate([key, value]), out
      for linear, weight in zip(layer.attention.linear, weights, strict=True):
        linear.weight = weight
    _convert_norm(layer.ffn.layer_norm, own["feed_forward_norm"])
    for place, name in enumerate(("hidden", "out")):
      linear = getattr(layer.ffn, f"linear_{place}")
      dense = own["feed_forward"][name]
      linear.weight = np.ascontiguousarray(dense["kernel"].T)
      linear.bias = dense["bias"]


def _matrices(attention, width: int) -> list[np.ndarray]:
  """Returns kernels of query, key, value and output as [outputs, inputs]."""
  return [
    np.ascontiguousarray(attention[name]["kernel"].reshape(width, width).T)
    for name in ("query", "key", "value", "out")
  ]


def _convert_norm(spec, norm) -> None:
  spec.gamma, spec.beta = norm["scale"], norm["bias"]


# Hugging Face.


def _marian(config: AutoregressiveConfig):
  """Marian of the same size, and what to say of it."""
  import torch
  import transformers

  sizes = config.transformer
  torch.manual_seed(0)
  model = transformers.MarianMTModel(
    transformers.MarianConfig(
      vocab_size=sizes.vocab_size, d_model=sizes.width,
      encoder_layers=config.encoder_layers, encoder_ffn_dim=sizes.hidden,
      decoder_layers=config.decoder_layers, decoder_ffn_dim=sizes.hidden,
      encoder_attention_heads=sizes.heads, decoder_attention_heads=sizes.heads,
      max_position_embeddings=sizes.max_length, scale_embedding=True,
      activation_function="relu", activation_dropout=sizes.hidden_dropout,
      dropout=sizes.dropout, attention_dropout=sizes.attention_dropout,
      pad_token_id=PAD, decoder_start_token_id=PAD, eos_token_id=EOS,
      forced_eos_token_id=None,
    )
  )  # fmt: skip
  learned = [p.numel() for p in model.parameters() if p.requires_grad]
  parameters, expected = sum(learned), num_parameters(config)
  if abs(parameters - expected) > 0.01 * expected:
    raise RuntimeError(
      f"Marian has {parameters:,} parameters instead of {expected:,}."
    )
  versions = (
    f"transformers {transformers.__version__}, torch {torch.__version__}"
  )
  return model, {"parameters": parameters, "version": versions}


def _threads(call: Callable) -> dict[str, Callable]:
  """The call with one thread and with one for each core."""
  import torch

  def with_threads(number):
    torch.set_num_threads(number)
    return call()

  numbers = {1, os.cpu_count()}
  return {str(n): functools.partial(with_threads, n) for n in numbers}


def _marian_calls(
  system: str, subject: Subject, method: Beam, x: np.ndarray
) -> tuple[dict[str, Callable], dict]:
  """Calls that translate int32[batches, B, S], by their threads."""
  import torch

  del system  # the only one
  model, about = _marian(subject.config.model)
  model.eval()
  batches, passes = torch.from_numpy(np.int64(x)), []
  hook = model.model.decoder.register_forward_hook(lambda *_: passes.append(1))

  @torch.inference_mode()
  def translate():
    for batch in batches:
      model.generate(
        input_ids=batch, attention_mask=torch.ones_like(batch),
        num_beams=method.size, do_sample=False,
        min_new_tokens=subject.length, max_new_tokens=subject.length,
      )  # fmt: skip

  translate()
  _check_steps("Marian", [len(passes) / len(batches)], subject.length)
  hook.remove()
  return _threads(translate), about


def measure_training(subject: Subject, batch_tokens: int, repeats: int) -> dict:
  """Trains Marian with Adam, clipping, dropout and label smoothing as ours."""
  import torch

  train = subject.config.train
  batch = subject.rows(max(batch_tokens // subject.batch.y.shape[1], 1))
  x, y = (torch.from_numpy(np.int64(side)) for side in (batch.x, batch.y))
  before = torch.nn.functional.pad(y, (1, 0), value=PAD)[:, :-1]
  model, about = _marian(subject.config.model)
  model.train()
  betas = train.adam_b1, train.adam_b2
  adam = torch.optim.Adam(model.parameters(), 1e-4, betas, train.adam_eps)

  def step():
    logits = model(
      input_ids=x, attention_mask=torch.ones_like(x),
      decoder_input_ids=before, use_cache=False,
    ).logits  # fmt: skip
    loss = torch.nn.functional.cross_entropy(
      logits.flatten(0, 1), y.flatten(), label_smoothing=train.label_smoothing
    )
    adam.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), train.clip)
    adam.step()

  desc = f"huggingface training x {len(x)}"
  times, threads = _quickest(_threads(step), repeats, desc)
  return training.row(times, batch) | {"threads": threads} | about
