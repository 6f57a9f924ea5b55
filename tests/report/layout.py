"""Find what a reader would call a fault of a figure's layout, by matplotlib's own measures."""

from itertools import combinations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

SLACK = 1.0  # pixels


def faults(figure: Figure) -> list[str]:
    """Texts beyond the canvas or over each other, and legends over data or texts."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    page = Bbox.from_bounds(0, 0, *canvas.get_width_height())
    legends = [*figure.legends, *(own for ax in figure.axes if (own := ax.get_legend()))]
    inside = {text for legend in legends for text in [*legend.get_texts(), legend.get_title()]}
    idle = {text for ax in figure.axes for text in _idle(ax)}
    texts = [
        text
        for text in figure.findobj(Text)
        if isinstance(text, Text)
        and text.get_visible()
        and text.get_text().strip()
        and text not in idle
    ]
    found = [
        f"'{text.get_text()}' leaves the canvas"
        for text in texts
        if not _within(text.get_window_extent(), page)
    ]
    for one, other in combinations([t for t in texts if t.get_rotation() % 90 == 0], 2):
        if _overlap(one.get_window_extent(), other.get_window_extent()):
            found.append(f"'{one.get_text()}' lies over '{other.get_text()}'")
    for legend in legends:
        box = legend.get_window_extent()
        if not _within(box, page):
            found.append("a legend leaves the canvas")
        found += [
            f"a legend lies over '{text.get_text()}'"
            for text in texts
            if text not in inside and _overlap(box, text.get_window_extent())
        ]
        for ax in figure.axes:
            if legend in figure.legends and ax.axison and _overlap(box, ax.get_window_extent()):
                found.append("a legend lies over a panel")
            if _hidden(ax, box):
                found.append("a legend lies over data")
    return found


def _idle(ax: Axes) -> set[Text]:
    """The labels of a panel that are not drawn: of ticks out of view or left from a first draft."""
    idle: set[Text] = set()
    for axis in (ax.xaxis, ax.yaxis):
        low, high = sorted(axis.get_view_interval())
        for every, drawn in (
            (axis.majorTicks, axis.get_major_ticks()),
            (axis.minorTicks, axis.get_minor_ticks()),
        ):
            seen = {t for t in drawn if ax.axison and low <= t.get_loc() <= high}
            idle |= {label for t in every if t not in seen for label in (t.label1, t.label2)}
        if not ax.axison:
            idle |= {axis.label, axis.offsetText}
    return idle


def _hidden(ax: Axes, box: Bbox) -> bool:
    """Whether a line, or its points, of a panel runs through a box."""
    for line in ax.lines:
        points = line.get_transform().transform(np.asarray(line.get_xydata(), dtype=float))
        if len(points) > 1:
            steps = np.linspace(0, 1, 50)[:, None, None]
            points = (points[:-1] + steps * (points[1:] - points[:-1])).reshape(-1, 2)
        seen = ax.get_window_extent()
        if any(box.contains(*p) and seen.contains(*p) for p in points.tolist()):
            return True
    return False


def _within(box: Bbox, page: Bbox) -> bool:
    return bool(
        box.x0 > page.x0 - SLACK and box.y0 > page.y0 - SLACK
        and box.x1 < page.x1 + SLACK and box.y1 < page.y1 + SLACK
    )  # fmt: skip


def _overlap(one: Bbox, other: Bbox) -> bool:
    common = Bbox.intersection(one, other)
    return common is not None and common.width > SLACK and common.height > SLACK
