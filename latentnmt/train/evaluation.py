"""Judging a model on the dev split while it trains."""

from collections.abc import Callable, Iterable
import functools

from flax import linen as nn
import jax

from latentnmt import decode, metrics, objectives, sharding
from latentnmt.config import TrainConfig
from latentnmt.data import PreparedData, few_shapes, length_batches
from latentnmt.train.step import DEV, step_key
from latentnmt.types import Params


def quick_method(model: nn.Module) -> decode.Method:
  """Returns what dev BLEU is measured with: one cheap pass."""
  return model.methods[0]()


class Dev:
  """Judges a model on the dev split, on one local device.

  Args:
    model: to be judged.
    data: whose split "dev" is used.
    train: for the seed and the size of batches.
    progress: makes the bar of the translations, called as `tqdm` is.
  """

  def __init__(
    self,
    model: nn.Module,
    data: PreparedData,
    train: TrainConfig,
    progress: Callable[..., Iterable],
  ):
    self._model, self._tokenizer = model, data.tokenizer
    self._sources, self._targets = data.sources("dev"), data.targets("dev")
    self._batch_tokens = train.batch_tokens
    x = self._tokenizer.encode(self._sources)
    y = self._tokenizer.encode(self._targets)
    # The terms are quick to compute and slow to compile.
    shapes = min(few_shapes(len(x)), 2)
    batches = length_batches(
      x, y, batch_tokens=self._batch_tokens, max_shapes=shapes
    )
    self._batches = [batch for _, batch in batches]
    self._progress = functools.partial(progress, desc="dev", leave=False)
    # The same posterior sample each time, so that evaluations compare.
    key = step_key(train.seed, 0, DEV)
    self._sums = jax.jit(
      lambda params, batch: objectives.totals(
        model.apply({"params": params}, batch, key, train=False)
      )
    )

  def __call__(self, params: Params) -> dict[str, float]:
    """Returns BLEU, nats per token of the bound and of its terms, escapes."""
    sums = [self._sums(params, batch) for batch in self._batches]
    sums = objectives.add(jax.device_get(sums))
    nats = metrics.terms_per_token(sums)
    del nats["kl_standard"]  # a regulariser, of no interest on dev
    hypotheses = decode.translate_lines(
      self._model,
      params,
      self._tokenizer,
      self._sources,
      quick_method(self._model),
      batch_tokens=self._batch_tokens,
      progress=self._progress,
    )
    bleu = metrics.bleu(hypotheses, self._targets).value
    escaped = {"escaped": sums["escaped"]}  # sentences
    return {"bleu": sharding.agree(bleu), **nats, **escaped}
