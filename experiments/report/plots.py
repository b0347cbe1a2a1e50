"""The figures of a report, drawn by matplotlib where it is installed.

Colour tells a model's family, filled marks and solid lines raw training data,
open marks and dashed lines distilled ones. Colours are those of Okabe and Ito,
which the colour-blind tell apart.
"""

import base64
from collections.abc import Sequence
import dataclasses
import html
import importlib.util
import io
import itertools

import numpy as np

from latentnmt.experiments.report.collect import SPEED

_COLOURS = {
  "autoregressive": "#0072B2",
  "Gaussian prior": "#D55E00",
  "flow prior": "#009E73",
}
_MORE_COLOURS = ("#CC79A7", "#56B4E9", "#E69F00", "#000000")
_WIDTH = 5.2  # inches: the width of a phone at the size of its text
_STYLE = {
  "axes.edgecolor": "#888888",
  "axes.grid": True,
  "axes.spines.right": False,
  "axes.spines.top": False,
  "axes.titlelocation": "left",
  "axes.titlesize": 10,
  "axes.labelsize": 9,
  "font.size": 9,
  "grid.color": "#e6e6e6",
  "legend.fontsize": 8,
  "legend.frameon": False,
  "lines.linewidth": 1.4,
  "svg.hashsalt": "latentnmt",
  "xtick.labelsize": 8,
  "ytick.labelsize": 8,
}


@dataclasses.dataclass(frozen=True)
class Figure:
  """A drawing with its title and what it shows, in words."""

  title: str
  caption: str
  svg: bytes


def available() -> bool:
  """Whether figures can be drawn here."""
  return importlib.util.find_spec("matplotlib") is not None


def as_html(figure: Figure) -> str:
  """A section with the drawing inside it."""
  title, caption = html.escape(figure.title), html.escape(figure.caption)
  data = base64.b64encode(figure.svg).decode()
  return (
    f'<figure>\n<h2>{title}</h2>\n<img alt="{title}"'
    f' src="data:image/svg+xml;base64,{data}">\n'
    f"<figcaption>{caption}</figcaption>\n</figure>"
  )


def _draw(title: str, caption: str, height: float, rows: int, draw) -> Figure:
  """A figure of panels below each other: draw(panels) fills them."""
  import matplotlib
  from matplotlib.figure import Figure as Canvas

  with matplotlib.rc_context(_STYLE):
    canvas = Canvas((_WIDTH, height), layout="constrained")
    draw(canvas.subplots(rows, squeeze=False)[:, 0])
    file = io.BytesIO()
    # The date would make a new file of every report.
    canvas.savefig(file, format="svg", metadata={"Date": None})
  return Figure(title, caption, file.getvalue())


class Look:
  """Colours of families and marks of training data."""

  def __init__(self, rows: Sequence[dict]):
    families = dict.fromkeys(row["family"] for row in rows)
    others = [family for family in families if family not in _COLOURS]
    more = dict(zip(others, itertools.cycle(_MORE_COLOURS), strict=False))
    self._colours = {f: (_COLOURS | more)[f] for f in families}
    self._data = dict.fromkeys(row["data"] or "raw" for row in rows)

  def colour(self, row: dict) -> str:
    """Of a row's family."""
    return self._colours[row["family"]]

  def line(self, row: dict) -> dict:
    """How a line of this row is drawn."""
    style = "--" if row["data"] == "distilled" else "-"
    return {"color": self.colour(row), "linestyle": style}

  def mark(self, row: dict) -> dict:
    """How a point of this row is drawn."""
    colour = self.colour(row)
    return {
      "marker": "o",
      "linestyle": "none",
      "markeredgecolor": colour,
      "markerfacecolor": "white" if row["data"] == "distilled" else colour,
    }

  def legend(self, figure) -> None:
    """Names families and data above all panels."""
    from matplotlib.lines import Line2D

    handles = [
      Line2D([], [], color=colour, marker="o", linestyle="none", label=family)
      for family, colour in self._colours.items()
    ]
    for name in self._data:
      face, style = ("white", "--") if name == "distilled" else ("#555555", "-")
      look = {"color": "#555555", "markerfacecolor": face, "linestyle": style}
      handles.append(Line2D([], [], marker="o", lw=1, label=name, **look))
    one_line = sum(len(h.get_label()) + 5 for h in handles) < 85
    figure.legend(
      handles=handles,
      loc="outside upper left",
      ncols=len(handles) if one_line else -(-len(handles) // 2),
      columnspacing=1.2,
      handletextpad=0.4,
    )


# Likelihood against BLEU.


def scatter(rows: list[dict], points: list[dict], split: str) -> list[Figure]:
  """BLEU against log-likelihood: models, then their checkpoints.

  Args:
    rows: as `results.collect` returns them.
    points: as `results.checkpoints` returns them.
    split: of the rows.
  """
  finals = [
    row
    for row in rows
    if row["usual"] and None not in (row["bleu"], row["log_likelihood"])
  ]
  figures = []
  if finals:
    figures.append(
      _draw(
        f"BLEU against log-likelihood: models, on {split}",
        "Each model by its usual decoding. Further right is the better"
        " density, further up the better translator.",
        3.9,
        1,
        lambda panels: _scatter(panels[0], Look(rows), finals, []),
      )
    )
  runs = [point["run"] for point in points]
  if any(runs.count(run) > 1 for run in runs):
    ends = {point["run"]: point for point in points}.values()
    near = _near(points)
    far = len(points) - len(near)
    figures.append(
      _draw(
        f"BLEU against log-likelihood: checkpoints, on {points[0]['split']}",
        "Small marks are checkpoints, joined in the order of training; the"
        " large one is the last."
        + (f" Too far left to be shown, early ones: {far}." if far else ""),
        3.9,
        1,
        lambda panels: _scatter(panels[0], Look(rows), list(ends), near),
      )
    )
  return figures


def _near(points: list[dict]) -> list[dict]:
  """Without checkpoints so unlikely that the others would be one spot.

  Such are those from before the KL term: below the median by more than five
  times what the best is above it.
  """
  values = sorted(point["log_likelihood"] for point in points)
  median = values[len(values) // 2]
  lowest = median - 5 * (values[-1] - median)
  return [point for point in points if point["log_likelihood"] >= lowest]


def _scatter(axes, look: Look, large: list[dict], small: list[dict]) -> None:
  for row in large if small else []:
    path = [point for point in small if point["run"] == row["run"]]
    x, y = ([p[f] for p in path] for f in ("log_likelihood", "bleu"))
    axes.plot(x, y, **look.line(row) | {"linewidth": 0.8})
    axes.plot(x, y, **look.mark(row), markersize=3.5)
  for row in large:
    axes.plot(
      row["log_likelihood"], row["bleu"], **look.mark(row), markersize=8
    )
  axes.set_xlabel("log p(y | x), nats per token, length paid for")
  _bleu_axis(axes, [*large, *small])
  look.legend(axes.figure)
  places = [(row["log_likelihood"], row["bleu"]) for row in large]
  names = [row["run"] for row in large]
  label(axes, places, names, [look.colour(row) for row in large])


def _bleu_axis(axes, rows: list[dict]) -> None:
  """BLEU from zero upwards, with room at the sides for names."""
  axes.set_ylabel("BLEU")
  axes.set_ylim(0, 1.12 * max(row["bleu"] for row in rows) or 1)
  axes.margins(x=0.15)


def label(axes, places, names, colours) -> None:
  """Writes names beside points where they cover no line, point or name.

  Args:
    axes: the panel, with its lines drawn and its limits final.
    places: (x, y) of each name's point.
    names: texts.
    colours: of the texts.
  """
  axes.figure.draw_without_rendering()  # fixes the layout to measure in
  inside, taken = axes.get_window_extent(), []
  points = np.concatenate([_along(line) for line in axes.get_lines()])

  def cost(box) -> float:
    out = max(inside.x0 - box.x0, box.x1 - inside.x1, 0)
    out += max(inside.y0 - box.y0, box.y1 - inside.y1, 0)
    covered = sum(box.overlaps(other) for other in taken)
    return 40 * covered + box.count_contains(points) + out

  for place, name, colour in zip(places, names, colours, strict=True):
    best = None
    for distance, (dx, dy) in itertools.product((7, 14, 22, 32), _AROUND):
      options = {
        "xytext": (dx * distance, dy * distance),
        "textcoords": "offset points",
        "ha": ("right", "center", "left")[dx + 1],
        "va": ("top", "center", "bottom")[dy + 1],
      }
      text = axes.annotate(name, place, fontsize=8, color=colour, **options)
      box = text.get_window_extent().padded(1)
      text.remove()
      if best is None or cost(box) < cost(best[0]):
        best = box, options
    axes.annotate(name, place, fontsize=8, color=colour, **best[1])
    taken.append(best[0])


def _along(line) -> np.ndarray:
  """float[n, 2], points of a line on the canvas, close to each other."""
  points = line.get_transform().transform(line.get_xydata())
  t = np.linspace(0, len(points) - 1, 40 * len(points))
  return np.stack([np.interp(t, range(len(points)), p) for p in points.T], 1)


_AROUND = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))


# Speed and training.


def speed(rows: list[dict]) -> Figure | None:
  """BLEU against speed, a panel for each batch size; None without speeds."""
  sizes = sorted(
    {int(f.removeprefix(SPEED)) for row in rows for f in row if SPEED in f}
  )
  rows = [row for row in rows if row["bleu"] is not None]
  sizes = [n for n in sizes if any(row.get(f"{SPEED}{n}") for row in rows)]
  if not sizes:
    return None

  def draw(panels):
    for axes, n in zip(panels, sizes, strict=True):
      _speed(axes, Look(rows), rows, n)
    Look(rows).legend(panels[0].figure)

  return _draw(
    "BLEU against speed",
    "Each model with each of its decodings, joined in the order of refinement"
    " steps k, of which the fewest and the most are named. Further right is"
    " faster.",
    0.6 + 2.9 * len(sizes),
    len(sizes),
    draw,
  )


def _speed(axes, look: Look, rows: list[dict], size: int) -> None:
  from matplotlib.ticker import LogLocator, NullLocator

  field = f"{SPEED}{size}"
  rows, named = [row for row in rows if row.get(field)], []
  for run in dict.fromkeys(row["run"] for row in rows):
    mine = [row for row in rows if row["run"] == run]
    mine.sort(key=lambda row: (row["k"] == "", row["k"]))
    x, y = ([row[f] for row in mine] for f in (field, "bleu"))
    axes.plot(x, y, **look.line(mine[0]) | {"linewidth": 0.8})
    axes.plot(x, y, **look.mark(mine[0]), markersize=6)
    ends = mine[0], mine[-1]
    named += [row for row in mine if row["k"] == "" or row in ends]
  axes.set_xscale("log")
  axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
  axes.xaxis.set_major_formatter("{x:g}")
  axes.xaxis.set_minor_locator(NullLocator())
  axes.set_title(f"{size} sentence{'s' * (size > 1)} decoded at once")
  axes.set_xlabel("sentences per second")
  _bleu_axis(axes, rows)
  places = [(row[field], row["bleu"]) for row in named]
  names = [
    f"k={row['k']}" if row["k"] != "" else row["method"] for row in named
  ]
  label(axes, places, names, [look.colour(row) for row in named])


# Panels of the training curves: title, scale, unit, metric.
_CURVES = (
  ("Reconstruction, log p(y | z, x)", "linear", "nats per token", "log_py"),
  ("KL(q || p)", "log", "nats per token", "kl"),
  ("Length, log p(T | x)", "linear", "nats per token", "log_pl"),
  ("BLEU on dev", "linear", "BLEU", "bleu"),
)


def training(logs: list[dict]) -> Figure | None:
  """Loss terms and dev BLEU by step; None where nothing was logged.

  Args:
    logs: as `results.training` returns them.
  """
  curves = [c for c in _CURVES if any(any(_pairs(log, c)) for log in logs)]
  if not curves:
    return None

  def draw(panels):
    look = Look(logs)
    for axes, curve in zip(panels, curves, strict=True):
      _curve(axes, look, logs, curve)
    last = max(axes.get_xlim()[1] for axes in panels)
    for axes in panels:
      axes.set_xlim(0, last)
    panels[-1].set_xlabel("step")
    look.legend(panels[-1].figure)
    ends = [(log, _pairs(log, curves[-1])[1][-1:]) for log in logs]
    ends = [(log, *end) for log, end in ends if end]
    names = [log["run"] for log, _ in ends]
    colours = [look.colour(log) for log, _ in ends]
    label(panels[-1], [place for _, place in ends], names, colours)

  return _draw(
    "Training",
    "Lines are means over training steps, marks the dev split. The evidence"
    " lower bound is reconstruction less KL; an autoregressive model has no z."
    " Dev BLEU is of greedy decoding or of one refinement.",
    0.6 + 2.05 * len(curves),
    len(curves),
    draw,
  )


def _pairs(log: dict, curve: tuple) -> tuple[list, list]:
  """(step, value) on train and on dev, none of a term that is always zero."""
  names = curve[-1], f"dev_{curve[-1]}"
  pairs = [log["metrics"].get(name, []) for name in names]
  return tuple(p if any(value for _, value in p) else [] for p in pairs)


def _curve(axes, look: Look, logs: list[dict], curve: tuple) -> None:
  """One panel, with a line and marks for each run that has the term."""
  title, scale, unit, _ = curve
  axes.set(title=title, yscale=scale, ylabel=unit)
  for log in logs:
    train, dev = _pairs(log, curve)
    if line := train or dev:
      axes.plot(*zip(*line, strict=True), **look.line(log))
    if dev:
      axes.plot(*zip(*dev, strict=True), **look.mark(log), markersize=4)
