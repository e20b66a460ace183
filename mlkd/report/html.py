"""One self-contained report.html from a run folder: no network, light and dark, from phone to desktop."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

from mlkd.report.comparison import STUDENT, cost_plots, differences, histograms, system_rows
from mlkd.report.markup import heat_map, to_html
from mlkd.report.names import short_names
from mlkd.report.parts import RunParts, read_parts
from mlkd.report.plots.colours import language_style, system_colour, system_style
from mlkd.report.plots.curves import evaluation_curves, loss_curves
from mlkd.report.plots.projection import draw_marker, draw_points
from mlkd.report.plots.scores import score_plot
from mlkd.report.results import Results
from mlkd.report.tables import Table, build_tables, unit_of
from mlkd.runtime.atomic_files import write_text
from mlkd.version import __version__

NUM_HEADLINES = 3
MAX_TITLE = 60
# Tables of so many systems stand in two columns.
MAX_NARROW_SYSTEMS = 3


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
    return template.render(
        css=Markup(package.joinpath("report.css").read_text(encoding="utf-8")),
        run=run,
        title=_title(run),
        version=__version__,
        lede=_lede(run),
        ending=_ending(run.status),
        # Everything passed as Markup is drawn by this package, which escapes the texts inside it.
        **_scored(run.results, Markup),
        losses=[(plot.title, Markup(plot.svg)) for plot in loss_curves(run.metrics)],
        curves=[(plot.title, Markup(plot.svg)) for plot in evaluation_curves(run.metrics, run.results)],
        pictures=_pictures(run, Markup),
        data=_data_rows(run.data),
        described=_describe_rows(run.results),
        environment=_flatten(run.environment),
    )


def _scored(results: Results | None, markup: Any) -> dict[str, Any]:
    """Everything that is drawn from scores; empty where there are none."""
    results = results or Results(systems=[], results={})
    systems, names, tables = results.systems, short_names(results.systems), build_tables(results)
    by_language = [table for table in tables if table.of_languages]
    maps = [found for table in by_language if (found := heat_map(table, names)) is not None]
    return {
        "systems": [(names[name], markup(draw_marker(7, 7, system_style(name, systems)))) for name in systems],
        "compared": system_rows(results, names) if STUDENT not in systems else [],
        "headlines": [_headline(table, systems, names) for table in tables if table.mean][:NUM_HEADLINES],
        "scores": [(table.name, table.direction, markup(score_plot(table, systems).svg)) for table in by_language],
        "intervals": any(table.has_intervals for table in tables),
        "marked": any(cell.tied for table in tables for row in table.rows for cell in row.cells),
        "heat_maps": [(found, markup(found.markup)) for found in maps],
        "costs": [(title, markup(svg)) for title, svg in cost_plots(results, tables, names)],
        "differences": [markup(rows) for rows in differences(results, tables, names)],
        "histograms": [
            (found, [(title, counts, markup(svg)) for title, counts, svg in found.drawings])
            for found in histograms(results, names)
        ],
        "tables": [(markup(to_html(table, names)), not table.of_languages) for table in tables],
        "wide": any(len(table.systems) > MAX_NARROW_SYSTEMS for table in tables),
    }


def _title(run: RunParts) -> str:
    """The experiment; of an evaluation the systems, where their names are short."""
    if run.results is None or run.metrics:
        return run.title
    listed = _listed(list(short_names(run.results.systems).values()))
    return listed if len(listed) <= MAX_TITLE else f"{len(run.results.systems)} systems"


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
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else "nothing"


def _of_size(described: dict[str, Any]) -> str:
    facts = []
    if described.get("parameters"):
        facts.append(f"{described['parameters'] / 1e6:.3g}\N{NO-BREAK SPACE}M\N{NO-BREAK SPACE}parameters")
    if described.get("dimension"):
        facts.append(f"{described['dimension']}\N{NO-BREAK SPACE}dimensions")
    return f" ({', '.join(facts)})" if facts else ""


def _system_name(described: dict[str, Any]) -> str:
    return str(described.get("name") or Path(str(described.get("path") or "")).name)


def _headline(table: Table, systems: list[str], names: dict[str, str]) -> dict[str, Any]:
    """The big number of one task: the student's mean, or else the best system's, with all others beside it."""
    row = table.mean
    assert row is not None, "only tables with a mean have a headline"
    trained = STUDENT in table.systems
    best = [cell.best for cell in row.cells]
    focus = table.systems.index(STUDENT) if trained else best.index(True) if True in best else 0
    unit = (unit_of(table.metric) or ("", 0))[0]
    on_track = bool(unit) and table.metric != "mse"
    marks = []
    for name, cell in zip(table.systems, row.cells, strict=True):
        position = min(100.0, max(0.0, cell.value)) if cell.value is not None and on_track else None
        mark = {"name": names[name], "cell": cell.text, "colour": system_colour(name, systems), "position": position}
        marks.append(mark | {"spread": cell.spread})
    metric = "" if table.metric == table.task else table.metric
    return {
        "task": table.task,
        "metric": metric if unit == "%" else f"{metric} {unit}".strip(),
        "unit": unit if unit == "%" else "",
        "lower": table.higher_is_better is False,
        "value": row.cells[focus].text,
        "focus": marks[focus],
        # The student is named by the page's first sentence, the best of several systems is not.
        "named": marks[focus]["name"] if not trained and len(marks) > 1 else "",
        "others": marks[:focus] + marks[focus + 1 :],
        "marks": [mark for mark in marks if mark["position"] is not None],
    }


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
