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
import importlib.util
import operator
import os
import tempfile

import jax
import numpy as np

from latentnmt.config import AutoregressiveConfig, ModelConfig
from latentnmt.decode import Beam
from latentnmt.errors import InputError
from latentnmt.experiments import hardware
from latentnmt.experiments.benchmark.workloads.subject import Subject
from latentnmt.experiments.benchmark.workloads.timing import Times, timed
from latentnmt.inference import variables
from latentnmt.models import num_parameters
from latentnmt.transformer import sinusoids
from latentnmt.types import EOS, PAD

SYSTEMS = ("ctranslate2-float32", "ctranslate2-int8", "huggingface")
_PACKAGES = ("ctranslate2", "torch", "transformers")


def check() -> None:
  """Refuses to compare without the baselines.

  Raises:
    InputError: names those that are not installed.
  """
  missing = [name for name in _PACKAGES if not importlib.util.find_spec(name)]
  if missing:
    raise InputError(
      f"--baselines needs {', '.join(missing)}: pip install"
      " 'latentnmt[baselines]'."
    )


def check_config(config: ModelConfig) -> None:
  """Refuses models that the baselines do not have.

  Raises:
    InputError: for one that is not autoregressive, or rounds to bfloat16.
  """
  if config.family != "autoregressive":
    raise InputError(
      "--baselines are autoregressive; give a transformer preset."
    )
  rounds = config.transformer.operand_dtype != "float32"
  if rounds or jax.default_backend() != "cpu":
    raise InputError("--baselines are compared on CPUs, in float32.")


def decoding(
  subject: Subject,
  system: str,
  method: Beam,
  size: int,
  batches: int,
  repeats: int,
) -> dict:
  """Measures sentences per second of a baseline, in batches of `size`.

  Of several settings of its threads the fastest is taken.

  Raises:
    RuntimeError: if it did not decode as many steps.
  """
  x = subject.rows(size * batches).x.reshape(batches, size, -1)
  desc = f"{system} {method} x {size}"
  if system == "huggingface":
    times, about = _marian_decoding(subject, method, x, repeats, desc)
  else:
    compute_type = system.partition("-")[2]
    times, about = _ctranslate2(subject, compute_type, method, x, repeats, desc)
  return {
    "metric": "sentences_per_second",
    **times.rates(size * batches),
    "seconds": times.median / batches,
    "split": subject.source,
    "method": str(method),
    "batch_size": size,
    "source_length": x.shape[-1],
    "target_length": subject.length,
    "steps": subject.length,
    **about,
    "device": hardware.device_description(),
  }


def _check_steps(name: str, steps: Iterable[int], expected: int) -> None:
  if set(steps) != {expected}:
    raise RuntimeError(
      f"{name} decoded {sorted(set(steps))} steps instead of {expected}."
    )


def _quickest(settings: dict[str, Callable], repeats: int, desc: str):
  """Times of the quickest of several calls, and which it is."""
  if len(settings) > 1:
    tried = {name: timed(call, 1, desc) for name, call in settings.items()}
    best = min(tried, key=lambda name: tried[name].median)
  else:
    (best,) = settings
  return timed(settings[best], repeats, desc), best


# CTranslate2.


def _ctranslate2(
  subject: Subject, compute_type: str, method: Beam, x, repeats: int, desc: str
) -> tuple[Times, dict]:
  import ctranslate2

  cores, size = os.cpu_count(), x.shape[1]
  with tempfile.TemporaryDirectory() as folder:
    parameters = convert(subject.config.model, subject.params, folder)
    batches = [[[str(i) for i in row] for row in batch] for batch in x]
    settings = {}
    for workers in {1, cores} if size > 1 else {1}:
      for threads in {1, cores // workers}:
        translator = ctranslate2.Translator(
          folder, "cpu", compute_type=compute_type,
          inter_threads=workers, intra_threads=threads,
        )  # fmt: skip
        part = -(-size // workers)
        settings[f"{workers} x {threads}"] = _bound(
          translator, batches, method, subject.length, part
        )
    found = settings["1 x 1"]()
    lengths = [len(h) for r in found for h in r.hypotheses]
    _check_steps("CTranslate2", lengths, subject.length)
    times, threads = _quickest(settings, repeats, desc)
  return times, {
    "dtype": compute_type,
    "threads": threads,
    "parameters": parameters,
    "version": f"ctranslate2 {ctranslate2.__version__}",
  }


def _bound(translator, batches, method: Beam, length: int, part: int):
  """A call that translates all batches, each in parts of so many sentences."""

  def translate():
    found = []
    for batch in batches:
      found += translator.translate_batch(
        batch,
        max_batch_size=part,
        beam_size=method.size,
        num_hypotheses=method.size,
        min_decoding_length=length,
        max_decoding_length=length,
      )
    return found

  return translate


def convert(config: AutoregressiveConfig, params, folder: str) -> int:
  """Writes an autoregressive model for CTranslate2.

  Its tokens are the decimal numbers of ours, EOS is "1".

  Args:
    config: of the model.
    params: of the model, or what `models.for_inference` made of them.
    folder: to write to.

  Returns:
    The number of its parameters.
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
    _convert_dense(layer.ffn.linear_0, own["feed_forward"]["hidden"])
    _convert_dense(layer.ffn.linear_1, own["feed_forward"]["out"])


def _convert_dense(spec, dense) -> None:
  spec.weight = np.ascontiguousarray(dense["kernel"].T)
  spec.bias = dense["bias"]


def _matrices(attention, width: int) -> list[np.ndarray]:
  """Of queries, keys, values and the output: outputs first, then inputs."""
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
      vocab_size=sizes.vocab_size,
      d_model=sizes.width,
      encoder_layers=config.encoder_layers,
      decoder_layers=config.decoder_layers,
      encoder_attention_heads=sizes.heads,
      decoder_attention_heads=sizes.heads,
      encoder_ffn_dim=sizes.hidden,
      decoder_ffn_dim=sizes.hidden,
      max_position_embeddings=sizes.max_length,
      activation_function="relu",
      dropout=sizes.dropout,
      attention_dropout=sizes.attention_dropout,
      activation_dropout=sizes.hidden_dropout,
      scale_embedding=True,
      pad_token_id=PAD,
      eos_token_id=EOS,
      decoder_start_token_id=PAD,
      forced_eos_token_id=None,
    )
  )
  learned = [p.numel() for p in model.parameters() if p.requires_grad]
  parameters, expected = sum(learned), num_parameters(config)
  if abs(parameters - expected) > 0.01 * expected:
    raise RuntimeError(
      f"Marian has {parameters:,} parameters instead of {expected:,}."
    )
  version = (
    f"transformers {transformers.__version__}, torch {torch.__version__}"
  )
  return model, {"parameters": parameters, "version": version}


def _threads(call: Callable) -> dict[str, Callable]:
  """The call with one thread and with one for each core."""
  import torch

  def with_threads(number):
    torch.set_num_threads(number)
    return call()

  return {
    str(number): lambda number=number: with_threads(number)
    for number in {1, os.cpu_count()}
  }


def _marian_decoding(
  subject: Subject, method: Beam, x, repeats: int, desc: str
) -> tuple[Times, dict]:
  import torch

  model, about = _marian(subject.config.model)
  model.eval()
  batches, calls = torch.from_numpy(x.astype(np.int64)), []
  hook = model.model.decoder.register_forward_hook(lambda *_: calls.append(1))

  @torch.inference_mode()
  def translate():
    for batch in batches:
      model.generate(
        input_ids=batch,
        attention_mask=torch.ones_like(batch),
        num_beams=method.size,
        do_sample=False,
        min_new_tokens=subject.length,
        max_new_tokens=subject.length,
      )

  translate()
  _check_steps("Marian", [len(calls) / len(batches)], subject.length)
  hook.remove()
  times, threads = _quickest(_threads(translate), repeats, desc)
  return times, {"threads": threads, **about}


def training(subject: Subject, batch_tokens: int, repeats: int) -> dict:
  """Target tokens per second of Marian; see `workloads.training`.

  Adam, clipping, dropout and label smoothing as ours.
  """
  import torch

  train, length = subject.config.train, subject.batch.y.shape[1]
  batch = subject.rows(max(batch_tokens // length, 1))
  x, y = (
    torch.from_numpy(side.astype(np.int64)) for side in (batch.x, batch.y)
  )
  before = torch.nn.functional.pad(y, (1, 0), value=PAD)[:, :-1]
  model, about = _marian(subject.config.model)
  model.train()
  adam = torch.optim.Adam(
    model.parameters(),
    lr=1e-4,
    betas=(train.adam_b1, train.adam_b2),
    eps=train.adam_eps,
  )

  def step():
    logits = model(
      input_ids=x,
      attention_mask=torch.ones_like(x),
      decoder_input_ids=before,
      use_cache=False,
    ).logits
    loss = torch.nn.functional.cross_entropy(
      logits.flatten(0, 1), y.flatten(), label_smoothing=train.label_smoothing
    )
    adam.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), train.clip)
    adam.step()

  desc = f"huggingface training x {len(x)}"
  times, threads = _quickest(_threads(step), repeats, desc)
  return {
    "metric": "target_tokens_per_second",
    **times.rates(y.numel()),
    "seconds": times.median,
    "split": subject.source,
    "batch_size": len(x),
    "source_length": x.shape[1],
    "target_length": length,
    "target_tokens": y.numel(),
    "threads": threads,
    **about,
    "device": hardware.device_description(),
  }
