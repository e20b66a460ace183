"""From matplotlib axes to SVG markup that takes its colours and letters from the HTML page around it."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlkd.report.plots.colours import stand_in, to_css
from mlkd.report.tables import unit_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDE_IN = 4.7
NARROW_IN = 3.6
Painter = Callable[["Axes"], None]


@dataclass(frozen=True, slots=True)
class Plot:
    """A drawing and what it shows in words; `svg` is markup for the inside of an HTML page."""

    title: str
    svg: str


def draw(label: str, paint: Painter, *, width_in: float = WIDE_IN, height_in: float = 2.6) -> str:
    """The painted axes as an `<svg>` for HTML: no size, no name spaces, letters as text, colours as CSS variables."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    ink, muted, rule = stand_in("--ink"), stand_in("--muted"), stand_in("--rule")
    look: dict[Any, Any] = {
        "svg.fonttype": "none", "text.parse_math": False, "svg.hashsalt": label,
        "font.size": 10.5, "font.family": ["DejaVu Sans"],
        "text.color": ink, "axes.labelcolor": muted, "xtick.color": muted, "ytick.color": muted,
        "xtick.labelcolor": muted, "ytick.labelcolor": ink, "axes.edgecolor": rule, "grid.color": rule,
        "axes.grid": True, "axes.grid.axis": "y", "grid.linewidth": 0.7, "axes.axisbelow": True,
        "axes.spines.top": False, "axes.spines.right": False, "axes.spines.left": False,
        "xtick.major.size": 0, "ytick.major.size": 0, "xtick.minor.size": 0, "ytick.minor.size": 0,
        "axes.labelsize": 9.5, "xtick.labelsize": 9.5, "ytick.labelsize": 9.5,
    }  # fmt: skip
    written = io.StringIO()
    with rc_context(look):
        figure = Figure(figsize=(width_in, height_in), layout="constrained", facecolor="none")
        axes = figure.add_subplot(facecolor="none")
        axes.margins(x=0.02)
        paint(axes)
        figure.savefig(written, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _inline(written.getvalue(), label)


def annotate(axes: Axes, text: str, at: tuple[float, float], colour: str, **placed: Any) -> None:
    """Small letters at a point of the data, moved by `xytext` points."""
    axes.annotate(text, at, textcoords="offset points", color=colour, fontsize=9, annotation_clip=False, **placed)


def out_of_100(metric: str) -> bool:
    """Whether the metric's scale ends at 100."""
    return (unit_of(metric) or ("", 0))[0] in ("%", "x100") and metric != "mse"


def _inline(svg: str, label: str) -> str:
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<!--.*?-->", "", body, flags=re.DOTALL)
    box = re.search(r'viewBox="([^"]+)"', body)
    assert box is not None, "matplotlib writes a viewBox"
    opening = f'<svg class="plot" viewBox="{box[1]}" role="img" aria-label="{html.escape(label)}">'
    body = opening + body[body.index(">") + 1 :]
    body = body.replace("xlink:href", "href")
    # Ids of groups are numbered anew in every drawing; only those of markers and clip paths are referred to.
    body = re.sub(r'<g id="(?![mp][0-9a-f]{10})[^"]*"', "<g", body)
    body = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", body)
    return to_css(re.sub(r"\n\s*", "\n", body))
