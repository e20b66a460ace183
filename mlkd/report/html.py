"""One self-contained report.html from a run folder: no network, light and dark, from phone to desktop."""

from __future__ import annotations

import math
from importlib.resources import files
from pathlib import Path
from typing import Any

from mlkd import __version__
from mlkd.report.colours import language_style, system_colour
from mlkd.report.parts import RunParts, read_parts
from mlkd.report.plots import evaluation_curves, loss_curves, score_plot, similarity_histogram
from mlkd.report.projection import draw_marker, draw_points
from mlkd.report.results import Results
from mlkd.report.tables import UNITS, Row, Table, build_tables, to_html
from mlkd.runtime.run_folder import write_text

NUM_HEADLINES = 3


def write_report(folder: Path) -> Path:
    """Read what the run folder holds, write `folder/report.html` and return its path.

    Raises:
        MlkdError: E301 where there is neither results.json nor metrics.jsonl, E309 where one of these is broken.
    """
    path = folder / "report.html"
    write_text(path, render(read_parts(folder)))
    return path


def render(run: RunParts) -> str:
    """The page as one string."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    package = files("mlkd.report")
    template = environment.from_string(package.joinpath("report.html").read_text(encoding="utf-8"))
    systems = run.results.systems if run.results else []
    tables = build_tables(run.results) if run.results else []
    # Everything passed as Markup is drawn by this package, which escapes the texts inside it.
    return template.render(
        css=Markup(package.joinpath("report.css").read_text(encoding="utf-8")),
        run=run,
        version=__version__,
        lede=_lede(run),
        ending=_ending(run.status),
        systems=[(name, system_colour(name, systems)) for name in systems],
        headlines=[_headline(table, systems) for table in tables if _mean(table)][:NUM_HEADLINES],
        scores=[(table.name, table.terms, Markup(score_plot(table, systems).svg)) for table in tables],
        intervals=any(bounds for table in tables for row in table.rows for bounds in row.intervals),
        losses=[(plot.title, Markup(plot.svg)) for plot in loss_curves(run.metrics)],
        curves=[(plot.title, Markup(plot.svg)) for plot in evaluation_curves(run.metrics, run.results)],
        pictures=_pictures(run, Markup),
        tables=[Markup(to_html(table)) for table in tables],
        histograms=_histograms(run, Markup),
        mined_by=_first_system(systems),
        data=_data_rows(run.data),
        described=_describe_rows(run.results),
        environment=_flatten(run.environment),
    )


def _lede(run: RunParts) -> str:
    """One sentence saying what was trained, from the parts that are there."""
    described = run.results.describe if run.results else {}
    if run.results and not run.metrics:
        tasks = list(dict.fromkeys(r.task for rs in run.results.results.values() for r in rs))
        number = len(run.results.systems)
        return f"{number} system{'s' * (number != 1)} scored on {_listed(tasks)}."
    sentence = "A student" + _of_size(described.get("student", {}))
    if "teacher" in described:
        teacher = described["teacher"]
        sentence += f" learned from {_system_name(teacher) or 'a teacher'}{_of_size(teacher)}"
    languages = run.data.get("languages", {})
    pairs = sum(report.get("train", 0) for report in languages.values())
    if pairs:
        sentence += f" on {pairs:,} sentence pairs (en – {', '.join(languages)})"
    steps = max((int(line["step"]) for line in run.metrics if "step" in line), default=0)
    return f"{sentence} over {steps:,} steps."


def _ending(status: dict[str, Any]) -> str:
    """What a reader must know about a run that did not finish; empty for all others."""
    endings = {"interrupted": "was interrupted", "failed": "was ended by an error"}
    if status.get("state") not in endings:
        return ""
    planned = f" of {status['max_steps']:,}" if status.get("max_steps") else ""
    reason = f": {status['error']}" if status.get("error") else ""
    return f"This run {endings[status['state']]} at step {status.get('step', 0):,}{planned}{reason}."


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else "no task"


def _of_size(described: dict[str, Any]) -> str:
    facts = []
    if described.get("parameters"):
        facts.append(f"{described['parameters'] / 1e6:.3g}\N{NO-BREAK SPACE}M\N{NO-BREAK SPACE}parameters")
    if described.get("dimension"):
        facts.append(f"{described['dimension']}\N{NO-BREAK SPACE}dimensions")
    return f" ({', '.join(facts)})" if facts else ""


def _system_name(described: dict[str, Any]) -> str:
    return str(described.get("name") or Path(str(described.get("path") or "")).name)


def _mean(table: Table) -> Row | None:
    return next((row for row in table.rows if row.is_mean), None)


def _headline(table: Table, systems: list[str]) -> dict[str, Any]:
    """The big number of one task: the student's mean, or else the best system's, with all others beside it."""
    row = _mean(table)
    assert row is not None, "only tables with a mean have a headline"
    trained = "student" in table.systems
    focus = table.systems.index("student") if trained else row.best.index(True) if True in row.best else 0
    unit = UNITS.get(table.metric, ("", 0))[0]
    marks = []
    for name, cell in zip(table.systems, row.cells, strict=True):
        position = min(100.0, max(0.0, float(cell))) if _is_number(cell) and unit and table.metric != "mse" else None
        marks.append({"name": name, "cell": cell, "colour": system_colour(name, systems), "position": position})
    metric = "" if table.metric == table.task else table.metric
    return {
        "task": table.task,
        "metric": metric if unit == "%" else f"{metric} {unit}".strip(),
        "unit": unit if unit == "%" else "",
        "lower": table.higher_is_better is False,
        "value": row.cells[focus],
        "focus": marks[focus],
        # The student is named by the page's first sentence, the best of several systems is not.
        "named": marks[focus]["name"] if not trained and len(marks) > 1 else "",
        "others": marks[:focus] + marks[focus + 1 :],
        "marks": [mark for mark in marks if mark["position"] is not None],
    }


def _is_number(cell: str) -> bool:
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False


def _pictures(run: RunParts, markup: Any) -> dict[str, Any]:
    points = run.projection.get("points", [])
    if not points:
        return {}
    languages = list(dict.fromkeys(point["language"] for point in points))
    kinds = [("untrained student", "before", "before_explained"), ("trained student", "points", "explained")]
    panels = []
    for name, key, explained in kinds:
        if run.projection.get(key):
            drawn = draw_points(run.projection[key], languages, f"sentences, {name}", captions=key == "points")
            share = 100 * sum(run.projection.get(explained, []))
            panels.append((name, markup(drawn), f"{share:.0f} % of the variance" if share else ""))
    method = run.projection.get("method", "")
    return {
        "panels": panels,
        "legend": [(name, markup(draw_marker(7, 7, language_style(name, languages)))) for name in languages],
        "sentences": len({point["sentence"] for point in points}),
        "method": "principal components" if method == "pca" else method,
    }


def _histograms(run: RunParts, markup: Any) -> list[tuple[str, str, Any]]:
    """Of the student, or else the first system: every task that keeps its mining scores in `details["mining"]`."""
    if run.results is None:
        return []
    found = []
    for result in run.results.results.get(_first_system(run.results.systems), []):
        for pair, histogram in result.details.get("mining", {}).items():
            if histogram["edges"]:
                counts = f"{sum(histogram['true']):,} true and {sum(histogram['false']):,} false"
                found.append((f"{result.task} {pair}", counts, markup(similarity_histogram(pair, histogram).svg)))
    return found


def _first_system(systems: list[str]) -> str:
    return "student" if "student" in systems else next(iter(systems), "")


def _data_rows(data: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for language, report in data.get("languages", {}).items():
        dropped = {name: count for name, count in report.get("dropped", {}).items() if count}
        reasons = ", ".join(f"{count:,} {name}" for name, count in dropped.items())
        counts = {name: report.get(name, 0) for name in ("read", "train", "dev")}
        rows.append({"language": language, **counts, "dropped": sum(dropped.values()), "reasons": reasons})
    return rows


def _describe_rows(results: Results | None) -> list[tuple[str, list[tuple[str, str]]]]:
    described = results.describe if results else {}
    return [(system, _flatten(facts)) for system, facts in described.items()]


def _flatten(facts: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested facts as `versions.torch` and text, what is empty left out."""
    rows: list[tuple[str, str]] = []
    for name, value in facts.items():
        if isinstance(value, dict):
            rows += _flatten(value, f"{prefix}{name}.")
        elif value not in (None, "", []):
            shown = ", ".join(map(str, value)) if isinstance(value, list) else value
            rows.append((f"{prefix}{name}", f"{shown:,}" if type(shown) is int else str(shown)))
    return rows
