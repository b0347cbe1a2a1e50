"""Pictures of alignments: slots by tokens, and a graph with its paths."""

from collections.abc import Sequence
import dataclasses
import textwrap

import numpy as np

from latentnmt.types import PAD

_INCHES = 0.24  # for a slot, a vertex or a token
_LEAST = 0.05  # probability of a link that is drawn
# In shades that the colour-blind tell apart.
_REFERENCE, _FOUND, _LINK = "#0072B2", "#D55E00", "#999999"
_BLANK = "∅"


@dataclasses.dataclass(frozen=True)
class Words:
  """What the ids of an alignment stand for.

  Attributes:
    target: n tokens of the reference, without EOS.
    positions: of U slots or vertices, what each emits most likely.
  """

  target: Sequence[str]
  positions: Sequence[str]


def draw(alignment, pieces, y: np.ndarray, title: str, caption: str):
  """Draws an alignment, without a window.

  Args:
    alignment: as `latentnmt.decode.align` returns it.
    pieces: a function from an id to what to write for it.
    y: int32[T], the reference.
    title: above the picture.
    caption: below it.

  Returns:
    A figure of matplotlib.
  """
  from matplotlib.figure import Figure

  tokens = np.asarray(alignment.tokens)
  positions = [_BLANK if t == PAD else pieces(int(t)) for t in tokens]
  words = Words([pieces(int(token)) for token in y[:-1]], positions)
  width = max(6.4, 1.6 + _INCHES * len(tokens))
  figure = Figure(figsize=(width, 4), layout="constrained")
  if alignment.links is None:
    _draw_slots(figure, alignment, words)
  else:
    _draw_graph(figure, alignment, words)
  lines = [textwrap.wrap(text, int(13 * width)) for text in (title, caption)]
  title, caption = map("\n".join, lines)
  figure.suptitle(title, fontsize=9, parse_math=False)
  figure.supxlabel(caption, fontsize=7, color="#555555", parse_math=False)
  return figure


def _draw_slots(figure, alignment, words: Words) -> None:
  """Draws a matrix of tokens, and blank, by slots."""
  rows = [*words.target, _BLANK]
  figure.set_figheight(2.2 + _INCHES * len(rows))
  axes = figure.add_subplot()
  emissions = np.vstack([alignment.emissions[:-1], alignment.blank[None]])
  shades = axes.imshow(
    np.exp(emissions), cmap="Greys", vmin=0, vmax=1, aspect="auto"
  )
  figure.colorbar(shades, label="probability in the slot", pad=0.01)
  index = np.asarray(alignment.reference)
  if (index >= 0).any() or not words.target:
    row = np.where(index < 0, len(rows) - 1, index)
    axes.plot(
      np.arange(len(row)), row, "o", ms=7, mfc="none", mec=_REFERENCE, mew=1.4,
      label="likeliest path of the reference",
    )  # fmt: skip
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), fontsize=8, frameon=0)
  _name(axes, words.positions, alignment.found)
  axes.set_yticks(range(len(rows)), rows, fontsize=8, parse_math=False)
  axes.set_xlabel("likeliest of each slot, words in bold", fontsize=8)


def _draw_graph(figure, alignment, words: Words) -> None:
  """Draws vertices in a row: links above, the reference's path below."""
  figure.set_figheight(5.6)
  above, below = figure.subplots(2, 1, height_ratios=(3, 2))
  probs = np.exp(alignment.links)
  found, reference = (
    _walk(path) for path in (alignment.found, alignment.reference)
  )
  for i, j in np.argwhere(probs >= _LEAST):
    _arc(above, i, j, 0.3 + 2.2 * probs[i, j], _LINK, alpha=0.6)
  for i, j in found:
    _arc(above, i, j, 0.6 + 2.2 * probs[i, j], _FOUND)
  for i, j in reference:
    _arc(below, i, j, 0.6 + 2.2 * probs[i, j], _REFERENCE, side=-1)
  last = len(words.positions) - 1
  names = ["start", *words.positions[1:-1], "end"]
  visited = np.asarray(alignment.found).copy()
  visited[[0, last]] = -1  # which emit no word
  _name(above, names, visited)
  below.set_xticks([])
  for axes, sign in ((above, 1), (below, -1)):
    axes.plot(range(last + 1), np.zeros(last + 1), "o", ms=3, color="#444444")
    axes.spines[:].set_visible(False)
    axes.set(yticks=[], xlim=(-1, last + 1))
    axes.autoscale_view()
    axes.set_ylim(sorted((-0.06 * sign * _height(axes), sign * _height(axes))))
  emitted = {
    u: words.target[t]
    for u, t in enumerate(np.asarray(alignment.reference))
    if 0 <= t < len(words.target)
  }
  for u, word in emitted.items():
    below.annotate(
      word, (u, 0), (0, 3), textcoords="offset points", rotation=90,
      ha="center", va="bottom", fontsize=7, color=_REFERENCE, parse_math=False,
    )  # fmt: skip
  _legend(above)


def _legend(axes) -> None:
  from matplotlib.lines import Line2D

  looks = {
    f"link of probability {_LEAST:g} or more, wider for more": _LINK,
    "path found": _FOUND,
    "likeliest path of the reference": _REFERENCE,
  }
  lines = [Line2D([], [], color=c, label=text) for text, c in looks.items()]
  axes.legend(
    handles=lines, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3,
    fontsize=8, frameon=False,
  )  # fmt: skip


def _walk(index: np.ndarray) -> list[tuple[int, int]]:
  """Returns the links that a path takes; none where there is no path."""
  visited = [0, *np.flatnonzero(np.asarray(index) >= 0)]
  return list(zip(visited, visited[1:], strict=False))


def _arc(axes, i: int, j: int, width: float, colour: str, side=1, alpha=1.0):
  """Draws half an ellipse from vertex to vertex."""
  from matplotlib.patches import Arc

  start, end = (0, 180) if side > 0 else (180, 360)
  axes.add_patch(
    Arc(
      ((i + j) / 2, 0),
      j - i,
      2 * np.sqrt(j - i),
      theta1=start,
      theta2=end,
      linewidth=width,
      color=colour,
      alpha=alpha,
    )  # fmt: skip
  )


def _height(axes) -> float:
  """Returns how far from the vertices the highest arc goes, and a bit."""
  return 0.1 + max((arc.height / 2 for arc in axes.patches), default=1.0)


def _name(axes, names: Sequence[str], path: np.ndarray) -> None:
  """Writes words below positions, in bold those that a path emits."""
  axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
  for label, index in zip(axes.get_xticklabels(), path, strict=True):
    label.set_parse_math(False)
    if index >= 0:
      label.set(color=_FOUND, fontweight="bold")
