"""Markdown and CSV to the letter; LaTeX that cannot break at a name."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

from mlkd.report.exports import CSV_HEADER, to_csv, to_latex, to_markdown, write_tables
from mlkd.report.results import Results
from mlkd.report.tables import build_tables
from mlkd.tasks.scoring.scores import Score, TaskResult

MARKDOWN = """\
### tatoeba accuracy (%), higher is better

| language | items | student | untrained | teacher |
|:---|---:|---:|---:|---:|
| de | 1000 | **63.1** [60.0, 66.0] | 1.0 | 41.0 |
| fr | 1000 | **70.0** | undefined | **70.0** |
| **mean** | 2000 | **66.6** | undefined | 55.5 |

protocol laser; data abababababab\x20\x20
student = 0f0f0f0f0f0f\x20\x20
**bold**: best of its row; brackets or ±: 95 % bootstrap interval\x20\x20

### bucc f1 (%), higher is better

| language | items | student | untrained | teacher |
|:---|---:|---:|---:|---:|
| de-en | 12 | **55.5** | 0.0 | _20.0_ |
| **mean** | 12 | **55.5** | 0.0 | _20.0_ |

protocol oracle, laser, k=4; data cdcdcdcdcdcd\x20\x20
student = 0f0f0f0f0f0f\x20\x20
**bold**: best of its row; _italics_: not significantly worse (paired bootstrap, p >= 0.05, Holm over languages)\x20\x20
"""

LATEX = r"""\begin{table}
\centering
\caption{tatoeba accuracy (\%), higher is better. protocol laser; data abababababab. student = 0f0f0f0f0f0f. bold: best of its row; brackets or $\pm$: 95 \% bootstrap interval.}
\begin{tabular}{lrrrr}
\toprule
language & items & student & untrained & teacher \\
\midrule
de & 1,000 & \textbf{63.1} {\scriptsize {[}60.0, 66.0]} & 1.0 & 41.0 \\
fr & 1,000 & \textbf{70.0} & undefined & \textbf{70.0} \\
\midrule
mean & 2,000 & \textbf{66.6} & undefined & 55.5 \\
\bottomrule
\end{tabular}
\end{table}
"""  # noqa: E501
SPECIAL = "a_b&c%d$e#f{g}h~i^j\\k<l>m"


def test_markdown_is_exactly_this(tested: Results) -> None:
    assert to_markdown(build_tables(tested)[:2]) == MARKDOWN


def test_markdown_escapes_bars_and_says_what_short_names_stand_for(results: Results, checkpoints: Results) -> None:
    only = Results(systems=["a|b"], results={"a|b": results.results["student"]})
    assert "| language | items | a\\|b |" in to_markdown(build_tables(only))
    text = to_markdown(build_tables(checkpoints))
    assert "| small | <b> |" in text
    assert "small = outputs/small/2026-01-31_12-00-00, 0f0f0f0f0f0f; <b> = somebody/<b>, 1f1f1f1f1f1f" in text


def test_latex_is_exactly_this(results: Results) -> None:
    assert to_latex(build_tables(results)[:1]) == "% needs \\usepackage{booktabs,longtable}\n\n" + LATEX


def test_latex_escapes_every_name(results: Results) -> None:
    renamed = {f"{SPECIAL}{i}": found for i, found in enumerate(list(results.results.values())[:1])}
    text = to_latex(build_tables(Results(systems=list(renamed), results=renamed)))
    escaped = r"a\_b\&c\%d\$e\#f\{g\}h\textasciitilde{}i\textasciicircum{}j\textbackslash{}k\textless{}l\textgreater{}m"
    assert f"items & {escaped}0 \\\\" in text


def test_latex_gives_long_names_letters_and_explains_them(checkpoints: Results) -> None:
    text = to_latex(build_tables(checkpoints))
    assert r"language & items & A & B & C \\" in text
    assert "A = outputs/small/2026-01-31\\_12-00-00, 0f0f0f0f0f0f; B = somebody/\\textless{}b" in text


def test_latex_is_balanced_and_its_rows_have_all_columns(checkpoints: Results) -> None:
    many = [Score(f"*l[{i}", "accuracy", -1.0, 9) for i in range(60)]
    checkpoints.results[checkpoints.systems[0]].append(TaskResult("wide", "", "accuracy", True, "", many))
    text = to_latex(build_tables(checkpoints))
    begun, ended = (re.findall(rf"\\{word}{{(\w+)}}", text) for word in ("begin", "end"))
    assert sorted(begun) == sorted(ended) and "longtable" in begun
    plain = re.sub(r"\\[\\{}%&#$_]", "", text)
    assert plain.count("{") == plain.count("}") and plain.count("$") % 2 == 0
    for columns, body in re.findall(
        r"{(?:tabular|longtable)}{(\w+)}(.*?)\\end{(?:tabular|longtable)}", text, re.DOTALL
    ):
        rows = [line for line in body.splitlines() if line.endswith(r"\\") and "caption" not in line]
        assert rows and all(len(re.findall(r"(?<!\\)&", row)) == len(columns) - 1 for row in rows)
        assert not any(row.startswith(("*", "[")) for row in rows)
    assert r"{*}l{[}59 & 9 & $-$1.0 \\" in text


def test_csv_has_a_line_for_each_score_of_each_system(results: Results) -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(results))))
    assert list(rows[0]) == CSV_HEADER
    assert len(rows) == sum(len(r.scores) for found in results.results.values() for r in found)
    first = next(row for row in rows if row["language"] == "de" and row["metric"] == "accuracy")
    assert first == {
        "task": "tatoeba",
        "protocol": "laser",
        "data_sha256": "ab" * 32,
        "language": "de",
        "metric": "accuracy",
        "system": "student",
        "model_sha256": "0f" * 32,
        "value": "63.14",
        "low": "60.0",
        "high": "66.04",
        "count": "1000",
    }
    undefined = next(row for row in rows if row["system"] == "untrained" and row["language"] == "fr")
    assert (undefined["value"], undefined["low"], undefined["model_sha256"]) == ("", "", "")


def test_all_three_are_written(results: Results, tmp_path: Path) -> None:
    tables = write_tables(tmp_path, results)
    assert (tmp_path / "results.md").read_text(encoding="utf-8") == to_markdown(tables)
    assert (tmp_path / "results.tex").read_text(encoding="utf-8") == to_latex(tables)
    assert (tmp_path / "results.csv").read_text(encoding="utf-8") == to_csv(results)
