r"""Draws a sentence pair as a model sees it: its latents, or its alignment.

  latentnmt visualize --run=runs/quickstart/gauss-distilled \
    --data=runs/quickstart/data --split=test --line=3

embeds draws of each in the plane by t-SNE (Figure 1 of the paper) and writes
`<run>/figures/<split>-<line>.delta<k>.png`. A draw is the whole sentence's
latents, T x C numbers, at the length of the reference. The delta posterior has
the prior's draws after k = --steps refinements.

Of a model with slots or vertices it draws `<split>-<line>.alignment.png`, with
latents at the posterior's mean: of a CTC how probable each token of the
reference is in each slot, and the likeliest path that makes the reference; of a
graph the links between vertices, the path that the model finds, and that of
the reference. --picture=latents draws latents there, too.

A pair of one's own: --source="..." --target="...". Needs matplotlib and, for
latents, scikit-learn: the extra "plots".
"""

import dataclasses
import importlib
from pathlib import Path
import textwrap

from absl import flags
import jax
import numpy as np
import sentencepiece

from latentnmt import checkpoint, data, decode, files
from latentnmt.errors import InputError
from latentnmt.experiments import (
  alignment_picture,
  app,
  loading,
  shared_flags,
)
from latentnmt.runs import RunDirectory

_RUN = shared_flags.run_flag()
_CHECKPOINT = shared_flags.checkpoint_flag()
_DATA = shared_flags.data_flag(
  "Prepared data that has the pair.", required=False
)
_SPLIT = shared_flags.split_flag()
_LINE = flags.DEFINE_integer(
  "line", None, "Which pair of the split, from 1.", lower_bound=1
)
_SOURCE = flags.DEFINE_string("source", None, "Instead of --data: a sentence.")
_TARGET = flags.DEFINE_string("target", None, "Its reference, with --source.")
_PICTURE = flags.DEFINE_enum(
  "picture",
  None,
  ["alignment", "latents"],
  "What to draw; by default alignments where the model has some.",
)
_DRAWS = flags.DEFINE_integer("draws", 1000, "Draws of each density.", 2)
_STEPS = flags.DEFINE_integer("steps", 1, "k, refinements of a draw.", 0)
_PERPLEXITY = flags.DEFINE_float(
  "perplexity", 30.0, "Of t-SNE: about how many neighbours count.", 1.0
)
_SEED = flags.DEFINE_integer("seed", 0, "Of the draws and of t-SNE.", 0)
_OUTPUT = flags.DEFINE_string(
  "output", None, "The figure, .png, .pdf or .svg; by default in the run."
)
flags.register_validator(
  _OUTPUT,
  lambda path: path is None or Path(path).suffix in (".png", ".pdf", ".svg"),
  "end it in .png, .pdf or .svg",
)
# Marker and colour as in the paper, in shades that the colour-blind tell apart.
_LOOKS = {
  "prior": ("+", "#009E73", "prior"),
  "posterior": ("o", "#0072B2", "posterior"),
  "delta": ("x", "#D55E00", "delta posterior, k = {steps}"),
}


@dataclasses.dataclass(frozen=True)
class Pair:
  """A source, its reference, and what files and readers know them by."""

  name: str
  source: str
  target: str


def main(argv):
  """Draws the figure."""
  del argv
  _require("matplotlib.figure")
  _check_flags()
  if _SOURCE.value is not None:
    pair = Pair("own", _SOURCE.value, _TARGET.value)
  else:
    pair = _prepared_pair(_DATA.value, _SPLIT.value, _LINE.value)
  run = RunDirectory(_RUN.value)
  (step,) = loading.checkpoint_steps(run, _CHECKPOINT.value)
  loaded = checkpoint.load(run, step)
  subject = f"{run}, step {step}, {pair.name}."
  draw_it = _alignment if _aligns(loaded[0], run) else _latents
  figure, name = draw_it(loaded, pair, subject)
  path = Path(_OUTPUT.value or run.figures_path / f"{pair.name}.{name}.png")
  with files.replacing(path) as partial:
    figure.savefig(partial, format=path.suffix[1:], dpi=150)
  print(path)


def _aligns(model, run: RunDirectory) -> bool:
  """Returns whether to draw an alignment, rather than latents."""
  can = decode.can_align(model)
  if _PICTURE.value == "alignment" and not can:
    raise InputError(f"{run} has no alignments: no slots and no vertices.")
  if _PICTURE.value == "latents" or not can:
    if model.exact:
      raise InputError(
        f"{run} has no latents: its model is exact; give a latent run."
      )
    return False
  shared_flags.refuse(
    ["draws", "steps", "perplexity", "seed"], "is for --picture=latents"
  )
  return True


def _alignment(loaded, pair: Pair, subject: str):
  """Returns a figure of an alignment, and its name."""
  model, params, tokenizer = loaded
  x, y = _tokens(model, tokenizer, pair)
  found = jax.device_get(decode.align(model, params, x, y))
  nats = "log p(y|x)" if model.exact else "at the posterior's mean log p(y|z,x)"
  caption = f"{subject} Of the reference, in nats: {nats} {found.log_prob:.2f}"
  if np.isfinite(found.log_path):
    caption += f", its likeliest path {found.log_path:.2f}."
  else:
    caption += ", by the escape alone: no path makes it."
  pieces = sentencepiece.SentencePieceProcessor(
    model_proto=tokenizer.model
  ).id_to_piece
  title = f"{pair.source} → {pair.target}"
  figure = alignment_picture.draw(found, pieces, y[0], title, caption)
  return figure, "alignment"


def _latents(loaded, pair: Pair, subject: str):
  """Returns a figure of draws of latents, and its name."""
  _require("sklearn.manifold")
  (model, params, tokenizer), steps = loaded, _STEPS.value
  draws = decode.latent_draws(
    model,
    params,
    *_tokens(model, tokenizer, pair),
    jax.random.key(_SEED.value),
    _DRAWS.value,
    steps,
  )
  shape = draws.prior.shape[1:]
  points = embed(draws, _PERPLEXITY.value, _SEED.value)
  caption = (
    f"{subject} {_DRAWS.value:,} draws of each,"
    f" {shape[0]} x {shape[1]} numbers; k = {steps}. t-SNE of"
    f" perplexity {_PERPLEXITY.value:g}, seed {_SEED.value}."
  )
  return draw(points, pair, caption, steps), f"delta{steps}"


def _require(module: str) -> None:
  try:
    importlib.import_module(module)
  except ImportError as error:
    raise InputError(
      f"{error.name} is not installed; install the extra: pip install -e"
      " '.[plots]'."
    ) from None


def _check_flags() -> None:
  if (_DATA.value is None) == (_SOURCE.value is None):
    raise InputError("Give either --data (with --line) or --source.")
  if _SOURCE.value is not None:
    shared_flags.refuse(["split", "line"], "is for --data")
    if _TARGET.value is None:
      raise InputError("--source needs its --target.")
  else:
    shared_flags.refuse(["target"], "is for --source")
    if _LINE.value is None:
      raise InputError("--data needs --line, the number of a pair.")
  if 3 * _DRAWS.value <= _PERPLEXITY.value:
    raise InputError(
      f"--perplexity={_PERPLEXITY.value:g} is not below the {3 * _DRAWS.value}"
      " points; lower it or raise --draws."
    )


def _prepared_pair(folder: str, split: str, line: int) -> Pair:
  prepared = data.PreparedData.open(folder)
  sources, targets = prepared.sources(split), prepared.targets(split)
  if line > len(sources):
    raise InputError(f"--line={line}: {split} has {len(sources):,} lines.")
  return Pair(f"{split}-{line}", sources[line - 1], targets[line - 1])


def _tokens(model, tokenizer, pair: Pair) -> tuple[np.ndarray, np.ndarray]:
  """int32[1, S] and int32[1, T]."""
  x, y = (
    decode.encode_lines(model, tokenizer, [line], truncate=False, side=side)
    for side, line in (("source", pair.source), ("target", pair.target))
  )
  return np.array(x, np.int32), np.array(y, np.int32)


def embed(
  draws: decode.LatentDraws, perplexity: float, seed: int
) -> dict[str, np.ndarray]:
  """Returns float[n, 2] of each field by name, embedded all together."""
  import sklearn.manifold

  fields = {name: np.asarray(getattr(draws, name)) for name in _LOOKS}
  flat = np.concatenate([z.reshape(len(z), -1) for z in fields.values()])
  tsne = sklearn.manifold.TSNE(
    perplexity=perplexity, init="pca", random_state=seed
  )
  parts = np.split(tsne.fit_transform(flat), len(fields))
  return dict(zip(fields, parts, strict=True))


def draw(points: dict[str, np.ndarray], pair: Pair, caption: str, steps: int):
  """Draws the figure, without a window."""
  from matplotlib.figure import Figure

  figure = Figure(figsize=(6.4, 6.4), layout="constrained")
  axes = figure.add_subplot()
  for name, (marker, colour, label) in _LOOKS.items():
    axes.scatter(
      *points[name].T,
      s=12,
      marker=marker,
      facecolors="none" if marker == "o" else colour,
      edgecolors=colour if marker == "o" else None,
      linewidths=0.6,
      label=label.format(steps=steps),
    )
  axes.set(xticks=[], yticks=[])
  lines = [f"{pair.source} → {pair.target}", caption]
  title, caption = ("\n".join(textwrap.wrap(line, 90)) for line in lines)
  axes.set_title(title, fontsize=9, parse_math=False)
  axes.set_xlabel(caption, fontsize=7, color="#555555", parse_math=False)
  axes.legend(loc="best", fontsize=8, markerscale=1.8)
  return figure


if __name__ == "__main__":
  app.run(main)
