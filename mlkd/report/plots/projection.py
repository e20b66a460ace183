"""The picture of sentences in two dimensions: principal components, and points whose translations are joined.

Shapes: L languages, N sentences in each, D dimensions.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mlkd.report.plots.colours import language_style
from mlkd.runtime.atomic_files import write_json
from mlkd.teacher.principal_components import principal_components

WIDTH, HEIGHT, PAD = 460, 400, 22
NUM_CAPTIONS = 6
CAPTION_LENGTH = 34
LETTER = 5.6  # about the width of a letter at the caption's size


class Box(NamedTuple):
    """A rectangle in drawing units, y downwards."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: Box) -> bool:
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom


def project(
    vectors: Mapping[str, Tensor], texts: Mapping[str, Sequence[str]], before: Mapping[str, Tensor] | None = None
) -> dict[str, Any]:
    """The two directions of largest variance of the unit-length vectors of all languages together.

    Args:
        vectors: language -> (N, D), row i of each language a translation of row i of the others.
        texts: language -> N sentences in the same order.
        before: the untrained student's vectors of the same sentences; they get components of their own.

    Returns:
        The content of eval/projection.json: `method`, `explained` (two shares of the variance, 0 to 1), `points`
        (`x`, `y`, `language`, `sentence`, `text`), and the same of the untrained student as `before`.
    """
    points, explained = _components(vectors, texts)
    found: dict[str, Any] = {"method": "pca", "explained": explained, "points": points}
    if before is not None:
        found["before"], found["before_explained"] = _components(before, texts)
    return found


def write_projection(path: Path, projection: Mapping[str, Any]) -> None:
    """Write what `project` returned; the folder is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, projection)


def draw_points(points: list[dict[str, Any]], languages: list[str], label: str, *, captions: bool) -> str:
    """Inline SVG: points coloured by language, thin lines joining the translations of one sentence.

    Each point carries its sentence as `<title>` and its number as `data-s`, which the page's script lights up.
    `captions` writes the English (else the first language's) text beside a few far-apart sentences.
    """
    placed = _place(points)
    sentences: dict[Any, list[dict[str, Any]]] = {}
    for point in placed:
        sentences.setdefault(point["sentence"], []).append(point)
    lines = [_joined(number, members) for number, members in sentences.items() if len(members) > 1]
    dots = [_dot(point, languages) for point in placed]
    labels = _captions(sentences) if captions else []
    name = html.escape(label)
    opening = f'<svg class="points" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{name}">'
    return "\n".join([opening, *lines, *dots, *labels, "</svg>"])


def draw_marker(x: float, y: float, style: tuple[str, str], attributes: str = "", title: str = "") -> str:
    """One point in its language's colour and shape."""
    colour, marker = style
    shapes = {
        "circle": f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.2"',
        "square": f'<rect x="{x - 3.7:.1f}" y="{y - 3.7:.1f}" width="7.4" height="7.4"',
        "triangle": f'<path d="M{x:.1f} {y - 5:.1f}l4.8 8.4h-9.6z"',
        "diamond": f'<path d="M{x:.1f} {y - 5.4:.1f}l5 5.4l-5 5.4l-5-5.4z"',
    }
    inside = f"<title>{html.escape(title)}</title>" if title else ""
    return f'{shapes[marker]} style="fill:var({colour})"{attributes}>{inside}</{shapes[marker][1:].split(" ")[0]}>'


def _components(
    vectors: Mapping[str, Tensor], texts: Mapping[str, Sequence[str]]
) -> tuple[list[dict[str, Any]], list[float]]:
    stacked_MD = torch.cat([torch.nn.functional.normalize(rows.double(), dim=1) for rows in vectors.values()])
    found = principal_components([stacked_MD])
    kept = min(2, len(found.directions_EE))
    plane_M2 = torch.zeros(len(stacked_MD), 2, dtype=torch.float64)
    plane_M2[:, :kept] = (stacked_MD - found.mean_E) @ found.directions_EE[:kept].T
    total = float(found.variances_E.sum())
    shares = [float(v) / total if total > 0 else 0.0 for v in found.variances_E[:2]]
    owners = [(language, i) for language, rows in vectors.items() for i in range(len(rows))]
    points = [
        {"x": round(x, 6), "y": round(y, 6), "language": language, "sentence": i, "text": texts[language][i]}
        for (language, i), (x, y) in zip(owners, plane_M2.tolist(), strict=True)
    ]
    return points, [*shares, 0.0, 0.0][:2]


def _place(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The points in drawing units: both axes in one scale, centred."""
    xs, ys = [float(p["x"]) for p in points], [float(p["y"]) for p in points]
    if not points:
        return []
    span_x, span_y = max(xs) - min(xs) or 1e-9, max(ys) - min(ys) or 1e-9
    scale = min((WIDTH - 2 * PAD) / span_x, (HEIGHT - 2 * PAD) / span_y)
    middle_x, middle_y = (max(xs) + min(xs)) / 2, (max(ys) + min(ys)) / 2
    return [
        {**p, "px": WIDTH / 2 + (x - middle_x) * scale, "py": HEIGHT / 2 - (y - middle_y) * scale}
        for p, x, y in zip(points, xs, ys, strict=True)
    ]


def _joined(number: Any, members: list[dict[str, Any]]) -> str:
    """The shortest tree through a sentence's translations (Prim): fewer and shorter lines than all with all."""
    inside, outside, path = [members[0]], members[1:], ""
    while outside:
        near = min(((a, b) for a in inside for b in outside), key=_distance)
        inside.append(near[1])
        outside.remove(near[1])
        path += f"M{near[0]['px']:.1f} {near[0]['py']:.1f}L{near[1]['px']:.1f} {near[1]['py']:.1f}"
    return f'<path class="join" data-s="{html.escape(str(number))}" d="{path}"/>'


def _distance(pair: tuple[dict[str, Any], dict[str, Any]]) -> float:
    return float((pair[0]["px"] - pair[1]["px"]) ** 2 + (pair[0]["py"] - pair[1]["py"]) ** 2)


def _dot(point: dict[str, Any], languages: list[str]) -> str:
    style = language_style(point["language"], languages)
    title = f"{point['language']}: {point['text']}"
    return draw_marker(point["px"], point["py"], style, f' data-s="{html.escape(str(point["sentence"]))}"', title)


def _centre(members: list[dict[str, Any]]) -> tuple[float, float]:
    return sum(p["px"] for p in members) / len(members), sum(p["py"] for p in members) / len(members)


def _captions(sentences: dict[Any, list[dict[str, Any]]]) -> list[str]:
    """Captions of sentences chosen one by one, each as far as can be from those chosen before."""
    centres = {number: _centre(members) for number, members in sentences.items()}
    near = {n: (x - WIDTH / 2) ** 2 + (y - HEIGHT / 2) ** 2 for n, (x, y) in centres.items()}
    taken = [Box(p["px"] - 4, p["py"] - 4, p["px"] + 4, p["py"] + 4) for members in sentences.values() for p in members]
    drawn: list[str] = []
    while near and len(drawn) < NUM_CAPTIONS:
        far = max(near, key=lambda n: near[n])
        del near[far]
        text = _shorten(next((p["text"] for p in sentences[far] if p["language"] == "en"), sentences[far][0]["text"]))
        box = next(
            (b for b in _caption_boxes(sentences[far], text) if not any(b.meets(other) for other in taken)), None
        )
        if box is None:
            continue
        taken.append(box)
        place = f'x="{(box.left + box.right) / 2:.1f}" y="{box.bottom - 3:.1f}" text-anchor="middle"'
        drawn.append(f'<text class="caption" {place}>{html.escape(text)}</text>')
        # The first choice is the one farthest from the middle, later ones are measured from what is chosen.
        x, y = centres[far]
        gaps = {n: (centres[n][0] - x) ** 2 + (centres[n][1] - y) ** 2 for n in near}
        near = gaps if len(drawn) == 1 else {n: min(near[n], gaps[n]) for n in near}
    return drawn


def _shorten(text: str) -> str:
    return text if len(text) <= CAPTION_LENGTH else text[: CAPTION_LENGTH - 1].rstrip() + "…"


def _caption_boxes(members: list[dict[str, Any]], text: str) -> list[Box]:
    """Room for the text above, below, left and right of the points, as far as it is inside the drawing."""
    xs, ys = [p["px"] for p in members], [p["py"] for p in members]
    wide, high = LETTER * len(text), 14.0
    left = min(max((min(xs) + max(xs) - wide) / 2, 3.0), WIDTH - 3 - wide)
    middle = (min(ys) + max(ys) - high) / 2
    corners = [(left, min(ys) - 6 - high), (left, max(ys) + 6), (max(xs) + 7, middle), (min(xs) - 7 - wide, middle)]
    boxes = [Box(x, y, x + wide, y + high) for x, y in corners]
    return [b for b in boxes if b.left >= 2 and b.right <= WIDTH - 2 and b.top >= 2 and b.bottom <= HEIGHT - 2]
