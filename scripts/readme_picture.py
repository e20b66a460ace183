"""Draw a run's held-out sentences before and after training as one picture: readme_picture.py RUN_FOLDER OUT.png."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#f0e442")


def draw(axes: Axes, points: list[dict[str, Any]], title: str) -> None:
    """Points coloured by language, translations of one sentence joined."""
    languages = list(dict.fromkeys(point["language"] for point in points))
    sentences: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for point in points:
        sentences[point["sentence"]].append(point)
    for members in sentences.values():
        axes.plot([m["x"] for m in members], [m["y"] for m in members], color="#bbbbbb", linewidth=0.6, zorder=1)
    for language, colour in zip(languages, COLOURS, strict=False):
        mine = [p for p in points if p["language"] == language]
        axes.scatter([p["x"] for p in mine], [p["y"] for p in mine], s=14, color=colour, label=language, zorder=2)
    axes.set_title(title, fontsize=10)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color("#dddddd")


def main(run: Path, out: Path) -> None:
    """Two panels: the untrained and the trained student."""
    projection = json.loads((run / "eval" / "projection.json").read_text(encoding="utf-8"))
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    before, after = figure.subplots(1, 2)
    draw(before, projection["before"], "before the first step")
    draw(after, projection["points"], "after training")
    after.legend(loc="lower right", fontsize=8, frameon=False, ncols=3)
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
