"""The figures of a report, drawn by matplotlib where it is installed.

Colour tells a model's family, filled marks and solid lines raw training data,
open marks and dashed lines distilled ones. Colours are those of Okabe and Ito,
which the colour-blind tell apart.
"""

import base64
from collections.abc import Callable, Sequence
import dataclasses
import functools
import html
import importlib.util
import io
import itertools
from typing import Any

import numpy as np

from latentnmt.experiments.report.rows import (
  AUTOREGRESSIVE,
  FLOW,
  GAUSSIAN,
  NOT_APPLICABLE,
  ModelRow,
  RunRow,
  TrainingLog,
  by_run,
)

# Colours and marks, of families that have their own and of all others.
_LOOKS = {
  AUTOREGRESSIVE: ("#0072B2", "o"),
  GAUSSIAN: ("#D55E00", "o"),
  FLOW: ("#009E73", "o"),
}
_MORE_COLOURS = ("#CC79A7", "#56B4E9", "#E69F00", "#000000")
_GREY = "#555555"
_NO_PLOTS = "Plots need matplotlib: pip install 'latentnmt[plots]'."
_WIDTH = 5.2  # inches: the width of a phone at the size of its text
_STYLE = {
  "axes.edgecolor": "#888888", "axes.grid": True, "grid.color": "#e6e6e6",
  "axes.spines.right": False, "axes.spines.top": False,
  "axes.titlelocation": "left", "axes.titlesize": 10, "font.size": 9,
  "legend.fontsize": 8, "legend.frameon": False, "lines.linewidth": 1.4,
  "xtick.labelsize": 8, "ytick.labelsize": 8, "svg.hashsalt": "latentnmt",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Figure:
  """A drawing with its title and what it shows, in words."""

  title: str
  caption: str
  svg: bytes


def sections(
  rows: list[ModelRow], points: list[ModelRow], logs: list[TrainingLog]
) -> list[tuple[str, str]]:
  """Returns titles and HTML of all plots, or of a line on how to have them.

  Of models, of their checkpoints and of their trainings, as `collect` has them.
  """
  if not importlib.util.find_spec("matplotlib"):
    return [("Plots", f"<p>{_NO_PLOTS}</p>")]
  figures = [*scatter(rows, points), speed(rows), training(logs)]
  return [(figure.title, as_html(figure)) for figure in figures if figure]


def as_html(figure: Figure) -> str:
  """Returns a section with the drawing inside it."""
  title, caption = html.escape(figure.title), html.escape(figure.caption)
  data = base64.b64encode(figure.svg).decode()
  return (
    f'<figure>\n<h2>{title}</h2>\n<img alt="{title}"'
    f' src="data:image/svg+xml;base64,{data}">\n'
    f"<figcaption>{caption}</figcaption>\n</figure>"
  )


# A panel draws on axes and returns its labels: place, text, colour.
Label = tuple[tuple[float, float], str, str]
Panel = Callable[[Any], list[Label]]


class Look:
  """Colours and marks of families, lines and fillings of training data."""

  def __init__(self, rows: Sequence[RunRow]):
    families = dict.fromkeys(row.family for row in rows)
    others = [family for family in families if family not in _LOOKS]
    looks = itertools.cycle(zip(_MORE_COLOURS, "s^Dv", strict=True))
    more = dict(zip(others, looks, strict=False))
    self._looks = {family: (_LOOKS | more)[family] for family in families}
    self._data = dict.fromkeys(row.data or "raw" for row in rows)

  def colour(self, row: RunRow) -> str:
    """Returns the colour of a row's family."""
    return self._looks[row.family][0]

  def line(self, row: RunRow) -> dict:
    """Returns how a line of this row is drawn."""
    style = "--" if row.data == "distilled" else "-"
    return {"color": self.colour(row), "linestyle": style}

  def mark(self, row: RunRow) -> dict:
    """Returns how a point of this row is drawn."""
    colour, marker = self._looks[row.family]
    face = "white" if row.data == "distilled" else colour
    style = {"marker": marker, "linestyle": "none"}
    return style | {"markeredgecolor": colour, "markerfacecolor": face}

  def draw(self, axes, rows: list, place: Callable, size: float) -> None:
    """Draws marks for rows of a run, several of them on a thin line."""
    x, y = zip(*map(place, rows), strict=True)
    if len(rows) > 1:
      axes.plot(x, y, **self.line(rows[0]) | {"linewidth": 0.8})
    axes.plot(x, y, **self.mark(rows[0]), markersize=size)

  def legend(self, figure) -> None:
    """Names families and data above all panels."""
    from matplotlib.lines import Line2D

    handles = [
      Line2D([], [], color=colour, marker=marker, ls="none", label=family)
      for family, (colour, marker) in self._looks.items()
    ]
    for name in self._data:
      face, style = ("white", "--") if name == "distilled" else (_GREY, "-")
      look = {"color": _GREY, "markerfacecolor": face, "linestyle": style}
      handles.append(Line2D([], [], marker="o", lw=1, label=name, **look))
    one_line = sum(len(h.get_label()) + 5 for h in handles) < 85
    columns = len(handles) if one_line else -(-len(handles) // 2)
    spacing = {"columnspacing": 1.2, "handletextpad": 0.4}
    place = "outside upper left"
    figure.legend(handles=handles, loc=place, ncols=columns, **spacing)


def _figure(
  title: str, caption: str, height: float, look: Look, panels: list[Panel]
) -> Figure:
  """Draws panels below each other, `height` inches each."""
  import matplotlib
  from matplotlib.figure import Figure as Canvas

  with matplotlib.rc_context(_STYLE):
    size = _WIDTH, 0.6 + height * len(panels)
    canvas = Canvas(size, layout="constrained")
    axes = canvas.subplots(len(panels), squeeze=False)[:, 0]
    labels = [panel(a) for panel, a in zip(panels, axes, strict=True)]
    look.legend(canvas)
    for pair in zip(axes, labels, strict=True):
      write_labels(*pair)
    file = io.BytesIO()
    # The date would make a new file of every report.
    canvas.savefig(file, format="svg", metadata={"Date": None})
  return Figure(title, caption, file.getvalue())


_AROUND = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))


def write_labels(axes, labels: Sequence[Label]) -> None:
  """Writes labels where they cover no line, point or other label.

  Lines are drawn by then, and the limits of the axes final.
  """
  axes.figure.draw_without_rendering()  # fixes the layout to measure in
  inside, taken = axes.get_window_extent(), []
  points = np.concatenate([_along(line) for line in axes.get_lines()])

  def cost(box) -> float:
    out = max(inside.x0 - box.x0, box.x1 - inside.x1, 0)
    out += max(inside.y0 - box.y0, box.y1 - inside.y1, 0)
    covered = sum(box.overlaps(other) for other in taken)
    return 40 * covered + box.count_contains(points) + out

  def move(text, distance: int, direction: tuple[int, int]):
    dx, dy = direction
    text.set_position((dx * distance, dy * distance))
    text.set_ha(("right", "center", "left")[dx + 1])
    text.set_va(("top", "center", "bottom")[dy + 1])
    return text.get_window_extent().padded(1)

  style = {"textcoords": "offset points", "fontsize": 8}
  for place, name, colour in labels:
    text = axes.annotate(name, place, (0, 0), color=colour, **style)
    moves = itertools.product((7, 14, 22, 32), _AROUND)
    best = min(moves, key=lambda m, text=text: cost(move(text, *m)))
    taken.append(move(text, *best))


def _along(line) -> np.ndarray:
  """float[n, 2], points of a line on the canvas, close to each other."""
  points = line.get_transform().transform(line.get_xydata())
  t = np.linspace(0, len(points) - 1, 40 * len(points))
  return np.stack([np.interp(t, range(len(points)), p) for p in points.T], 1)


def _bleu_axis(axes, rows: Sequence[ModelRow]) -> None:
  """Starts BLEU at zero and leaves room at the sides for labels."""
  axes.set_ylabel("BLEU")
  axes.set_ylim(0, 1.12 * max(row.bleu.value for row in rows) or 1)
  axes.margins(x=0.15)


# Likelihood against BLEU.


def scatter(rows: list[ModelRow], points: list[ModelRow]) -> list[Figure]:
  """Draws BLEU against log-likelihood: models, then their checkpoints."""
  models = [
    [row]
    for row in rows
    if row.primary and None not in (row.bleu.value, row.log_likelihood)
  ]
  caption = (
    "Each model with its primary decoding method. Further right is the better"
    " density, further up the better translator."
  )
  look = Look(rows)
  figures = [_scatter("models", caption, look, models)] if models else []
  paths = [_near(run, points) for run in by_run(points)]
  if len(points) > len(paths):
    far = len(points) - sum(map(len, paths))
    caption = (
      "Small marks are checkpoints, joined in the order of training; the large"
      " one is the last."
      + (f" Too far left to be shown, early ones: {far}." if far else "")
    )
    figures.append(_scatter("checkpoints", caption, look, paths))
  return figures


def _near(run: list[ModelRow], points: list[ModelRow]) -> list[ModelRow]:
  """The last, and those not so unlikely that all others would be one spot.

  Such are those from before the KL term: below the median by more than five
  times what the best is above it.
  """
  values = sorted(point.log_likelihood for point in points)
  median = values[len(values) // 2]
  lowest = median - 5 * (values[-1] - median)
  return [p for p in run if p.log_likelihood >= lowest or p is run[-1]]


def _scatter(
  kind: str, caption: str, look: Look, paths: list[list[ModelRow]]
) -> Figure:
  """Draws a path for each run, its end large and with a name."""
  ends = [path[-1] for path in paths]

  def place(row: ModelRow) -> tuple[float, float]:
    return row.log_likelihood, row.bleu.value

  def panel(axes) -> list[Label]:
    for path, size in [(p, 3.5) for p in paths] + [([end], 8) for end in ends]:
      look.draw(axes, path, place, size)
    axes.set_xlabel("log p(y | x), nats per token, length paid for")
    _bleu_axis(axes, list(itertools.chain(*paths)))
    return [(place(row), row.run, look.colour(row)) for row in ends]

  title = f"BLEU against log-likelihood: {kind}, on {ends[0].split}"
  return _figure(title, caption, 3.3, look, [panel])


# Speed and training.


def speed(rows: list[ModelRow]) -> Figure | None:
  """Draws BLEU against speed, a panel for each batch size that was timed."""
  timed: dict[int, list[ModelRow]] = {}
  for row in rows:
    for size, found in row.speeds.items():
      if None not in (found.sentences_per_second, row.bleu.value):
        timed.setdefault(size, []).append(row)
  look = Look(rows)
  if not timed:
    return None
  return _figure(
    "BLEU against speed",
    "Each model with each of its decoding methods, joined in the order of"
    " refinement steps k, of which the fewest and the most are named. Further"
    " right is faster.",
    2.9,
    look,
    [functools.partial(_speed, look, timed[n], n) for n in sorted(timed)],
  )


def _speed(look: Look, rows: list[ModelRow], size: int, axes) -> list[Label]:
  from matplotlib.ticker import LogLocator, NullLocator

  def place(row: ModelRow) -> tuple[float, float]:
    return row.speeds[size].sentences_per_second, row.bleu.value

  labels = []
  for run in by_run(rows):
    run.sort(key=lambda row: (row.k is NOT_APPLICABLE, row.k or 0))
    look.draw(axes, run, place, 6)
    for row in run:
      name = row.method if row.k is NOT_APPLICABLE else f"k={row.k}"
      if row.k is NOT_APPLICABLE or row in (run[0], run[-1]):
        labels.append((place(row), name, look.colour(row)))
  axes.set_xscale("log")
  axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
  axes.xaxis.set_major_formatter("{x:g}")
  axes.xaxis.set_minor_locator(NullLocator())
  axes.set_title(f"{size} sentence{'s' * (size > 1)} decoded at once")
  axes.set_xlabel("sentences per second")
  _bleu_axis(axes, rows)
  return labels


# Panels of the training curves: title, scale, unit, metric.
_CURVES = (
  ("Reconstruction, log p(y | z, x)", "linear", "nats per token", "log_py"),
  ("KL(q || p)", "log", "nats per token", "kl"),
  ("Length, log p(T | x)", "linear", "nats per token", "log_pl"),
  ("BLEU on dev", "linear", "BLEU", "bleu"),
)


def training(logs: list[TrainingLog]) -> Figure | None:
  """Draws loss terms and dev BLEU by step, what of them was logged."""
  curves = [c for c in _CURVES if any(any(_pairs(log, c)) for log in logs)]
  if not curves:
    return None
  caption = (
    "Lines are means over training steps, marks the dev split. The evidence"
    " lower bound is reconstruction less KL; an autoregressive model has no z."
    " Dev BLEU is of greedy decoding or of one refinement."
  )
  look = Look(logs)
  panels = [functools.partial(_curve, look, logs, curve) for curve in curves]
  panels[-1] = functools.partial(panels[-1], last=True)
  return _figure("Training", caption, 2.05, look, panels)


def _pairs(log: TrainingLog, curve: tuple) -> tuple[list, list]:
  """(step, value) on train and on dev, none of a term that is always zero."""
  names = curve[-1], f"dev_{curve[-1]}"
  pairs = [log.curves.get(name, []) for name in names]
  return tuple(p if any(value for _, value in p) else [] for p in pairs)


def _curve(
  look: Look, logs: list[TrainingLog], curve: tuple, axes, last: bool = False
) -> list[Label]:
  """Draws a line and marks for each run that has the term; names the last."""
  title, scale, unit, _ = curve
  axes.set(title=title, yscale=scale, ylabel=unit)
  steps = (step for log in logs for step, _ in log.curves.get("step", []))
  axes.set_xlim(0, 1.05 * max(steps))
  axes.set_xlabel("step" if last else "")
  labels = []
  for log in logs:
    train, dev = _pairs(log, curve)
    if line := train or dev:
      axes.plot(*zip(*line, strict=True), **look.line(log))
    if dev:
      axes.plot(*zip(*dev, strict=True), **look.mark(log), markersize=4)
      labels.append((dev[-1], log.run, look.colour(log)))
  return labels if last else []
