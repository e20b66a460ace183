"""Colours of the report as CSS variables, so that one drawing serves light and dark pages."""

from __future__ import annotations

# Okabe & Ito's palette, told apart in every common form of colour blindness; report.css gives the values.
SERIES = [f"--c{i}" for i in range(7)]
NAMED = {"student": "--student", "untrained": "--untrained", "teacher": "--teacher"}
MARKERS = ["circle", "square", "triangle", "diamond"]

# Drawing libraries want real colours: each variable has a near-black that stands for it until `to_css`.
_VARIABLES = ["--ink", "--muted", "--rule", "--surface", *NAMED.values(), *SERIES]
_STAND_INS = {name: f"#0000{i + 1:02x}" for i, name in enumerate(_VARIABLES)}


def stand_in(variable: str) -> str:
    """The near-black that `to_css` turns into `variable`."""
    return _STAND_INS[variable]


def to_css(svg: str) -> str:
    """The drawing with every stand-in replaced by its CSS variable.

    >>> to_css(f'<path style="fill: {stand_in("--ink")}"/>')
    '<path style="fill: var(--ink)"/>'
    """
    for name, colour in _STAND_INS.items():
        svg = svg.replace(colour, f"var({name})")
    return svg


def system_colour(name: str, systems: list[str]) -> str:
    """A system's CSS variable: fixed for student, untrained and teacher, by position for all others."""
    return NAMED.get(name) or SERIES[systems.index(name) % len(SERIES)]


def system_style(name: str, systems: list[str]) -> tuple[str, str]:
    """CSS variable and marker of a system."""
    return system_colour(name, systems), MARKERS[systems.index(name) // len(SERIES) % len(MARKERS)]


def language_style(language: str, languages: list[str]) -> tuple[str, str]:
    """CSS variable and marker of a language: where the colours run out, the shape changes."""
    index = languages.index(language)
    return SERIES[index % len(SERIES)], MARKERS[index // len(SERIES) % len(MARKERS)]
