"""report.html: parses, needs no network, escapes every text, says what is missing."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from mlkd.errors import MlkdError
from mlkd.report.__main__ import main
from mlkd.report.html import write_report
from mlkd.report.results import Results, read_results, write_results
from tests.report.conftest import assert_snapshot

VOID = {"meta", "link", "br", "hr", "img", "input"}
ALLOWED_SCRIPTS = 1
HEADINGS = [
    "Scores by language",
    "Scores while training",
    "Training loss",
    "Differences",
    "8 sentences and their translations",
    "Telling translations from neighbours",
    "All numbers",
    "Training data",
    "How it was made",
]


class Page(HTMLParser):
    """Checks that tags nest; collects text by tag and the attributes that load things."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.words: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = dict(attrs)
        self.loads += [str(values[name]) for name in ("src", "href", "xlink:href", "srcset") if name in values]
        self.ids += [str(values["id"])] if "id" in values else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append((self.open[-1] if self.open else "", data))

    def text(self) -> str:
        return " ".join(" ".join(word for tag, word in self.words if tag not in ("style", "script")).split())


def read_page(folder: Path) -> tuple[str, Page]:
    text = write_report(folder).read_text(encoding="utf-8")
    return text, Page(text)


def test_one_file_without_network(report: str) -> None:
    text, page = report, Page(report)
    assert len(text) < 1_500_000
    assert not re.search(r"https?://|@import|url\((?!#)", text)
    assert all(load.startswith("#") for load in page.loads)
    assert {load[1:] for load in page.loads} <= set(page.ids)
    assert "default-src 'none'" in text
    assert not {"link", "img", "iframe"} & set(page.tags)


def test_every_part_is_shown(report: str) -> None:
    page = Page(report)
    text = page.text()
    for heading in HEADINGS:
        assert heading in text
    assert "small/2026-01-31_12-00-00" in text
    lede = (
        "A student (4.21 M parameters, 384 dimensions) learned from mini (22.7 M parameters, 384 dimensions) on 1,000"
    )
    assert lede in text.replace("\N{NO-BREAK SPACE}", " ")
    assert "interrupted at step 400 of 900" in text
    assert "60 empty, 40 too_long" in text
    assert "12 true and 59 false" in text
    assert "is not in this folder" not in text
    # One per task, total and two terms and shares, one curve, one histogram, two pictures, and the keys of legends.
    assert sum(tag == "svg" for tag in page.tags) == 3 + 4 + 1 + 1 + 2 + len(["en", "de", "ja"]) + 3


def headlines(text: str) -> str:
    """The part of the page with the big numbers."""
    return text[text.index('<section class="headlines"') : text.index("</section>")]


def test_headlines_show_the_student_beside_the_others(report: str) -> None:
    assert_snapshot("headlines.html", headlines(report))


def test_among_checkpoints_the_best_is_the_headline_and_named(run_folder: Path, results: Results) -> None:
    renamed = {"a": results.results["untrained"], "<b>": results.results["student"]}
    write_results(run_folder / "results.json", Results(systems=list(renamed), results=renamed))
    assert_snapshot("headlines_of_checkpoints.html", headlines(read_page(run_folder)[0]))


def test_texts_are_escaped(report: str) -> None:
    text, page = report, Page(report)
    assert page.tags.count("script") == ALLOWED_SCRIPTS
    assert "<script>alert" not in text
    assert text.count("&lt;script&gt;alert") > 2 * 8 * 3


def test_no_colour_is_fixed_in_drawings(report: str) -> None:
    text = report
    drawings = "".join(re.findall(r'<svg class="plot".*?</svg>', text, flags=re.DOTALL))
    assert "var(--student)" in drawings and "var(--ink)" in drawings
    assert not re.search(r"#[0-9a-f]{6}", re.sub(r'href="#\w+"|url\(#\w+\)', "", drawings))


def test_missing_side_parts_are_said(run_folder: Path) -> None:
    for part in ("eval/projection.json", "config.yaml", "data.json", "environment.json", "status.json"):
        (run_folder / part).unlink()
    text = read_page(run_folder)[1].text()
    assert "eval/projection.json is not in this folder: no picture of the sentences." in text
    assert "config.yaml is not in this folder: no configuration." in text
    assert "data.json is not in this folder: no counts of the data." in text
    assert "environment.json is not in this folder: no environment." in text
    assert "status.json is not in this folder: no status." in text


def test_a_run_without_scores_shows_its_curves_and_says_so(run_folder: Path) -> None:
    (run_folder / "results.json").unlink()
    text = read_page(run_folder)[1].text()
    assert "There are no scores yet" in text and "Training loss" in text and "Scores by language" not in text


def test_only_scores_is_an_evaluation(run_folder: Path) -> None:
    for path in run_folder.rglob("*"):
        if path.is_file() and path.name not in ("results.json", "environment.json"):
            path.unlink()
    _, page = read_page(run_folder)
    assert "3 systems scored on tatoeba, bucc and mse." in page.text()
    assert "is not in this folder" not in page.text() and "2.13.0" in page.text()
    assert "Training loss" not in page.text()


def test_checkpoints_side_by_side(tmp_path: Path, checkpoints: Results) -> None:
    write_results(tmp_path / "results.json", checkpoints)
    text, page = read_page(tmp_path)
    headings = ["Systems", "Scores by language", "Differences", "Score against cost", "All numbers"]
    places = [page.text().index(heading) for heading in headings]
    assert places == sorted(places)
    assert ("h1", "3 systems") in page.words
    assert "outputs/small/2026-01-31_12-00-00" in page.text() and "&lt;b&gt;" in text and "<b>&" not in text
    assert "Underlined: not significantly worse than the best" in page.text()
    assert not re.search(r"https?://|@import|url\((?!#)", text)
    assert all(load.startswith("#") for load in page.loads)


def test_one_checkpoint_is_compared_with_nothing(tmp_path: Path, checkpoints: Results) -> None:
    name = checkpoints.systems[0]
    write_results(tmp_path / "results.json", Results(systems=[name], results={name: checkpoints.results[name]}))
    page = read_page(tmp_path)[1]
    text = page.text()
    assert ("h1", "small") in page.words
    assert "1 system scored on tatoeba, bucc and efficiency." in text
    assert not any(words in text for words in ("Differences", "Score against cost", "Bold: best"))


def test_broken_side_parts_are_said_and_broken_main_parts_refused(run_folder: Path) -> None:
    (run_folder / "environment.json").write_text("{")
    (run_folder / "data.json").write_text("[]")
    text = read_page(run_folder)[1].text()
    assert "environment.json is not JSON" in text and "data.json does not hold named values" in text
    with (run_folder / "metrics.jsonl").open("a") as file:
        file.write("{broken\n{}\n")
    with pytest.raises(MlkdError, match=r"E309.*metrics.jsonl:402: not JSON"):
        write_report(run_folder)


def test_a_cut_off_last_line_is_left_out_and_said(run_folder: Path) -> None:
    with (run_folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 401, "ki')
    assert "the last line of metrics.jsonl was cut off" in read_page(run_folder)[1].text()


def test_undefined_everywhere_still_gives_a_report(run_folder: Path) -> None:
    record = json.loads((run_folder / "results.json").read_text())
    for row in record["scores"]:
        row["values"] = dict.fromkeys(row["values"])
    (run_folder / "results.json").write_text(json.dumps(record))
    assert_snapshot("headlines_undefined.html", headlines(read_page(run_folder)[0]))


def test_many_languages_stay_small(run_folder: Path) -> None:
    results = read_results(run_folder / "results.json")
    for found in results.results.values():
        first = found[0].scores
        first += [type(first[0])(f"l{i}", "accuracy", i / 2, 1000) for i in range(110)]
    write_results(run_folder / "results.json", results)
    text, page = read_page(run_folder)
    assert len(text) < 1_500_000 and ">l109<" in text
    assert "Every language at a glance" in page.text()


def test_the_command(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(run_folder)]) == 0
    assert capsys.readouterr().out.strip() == str(run_folder / "report.html")
    assert main([str(tmp_path)]) == 3
    assert "has neither results.json nor metrics.jsonl" in capsys.readouterr().err
    assert main([]) == 2


def test_same_content_same_bytes(run_folder: Path, report: str) -> None:
    assert write_report(run_folder).read_text(encoding="utf-8") == report
