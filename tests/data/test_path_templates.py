"""Templates: what is filled in, and what is refused by name."""

from __future__ import annotations

import pytest

from mlkd.data.path_templates import check_required_template, check_template, fill_template
from mlkd.errors import MlkdError

KNOWN = ("language", "source_language")


def test_values_are_filled_in_and_literal_braces_stay() -> None:
    filled = fill_template(
        "{{a}}/{source_language}-{language}/{language}", "path", language="{x}", source_language="en"
    )
    assert filled == "{a}/en-{x}/{x}"


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{lang}.tsv", "path: '{lang}.tsv' has the placeholder {lang}; known: {language}, {source_language}."),
        ("{langage}", "Did you mean 'language'?"),
        ("{}", "has the placeholder {};"),
        ("{language:>9}", "has the placeholder {language:>9};"),
        ("{language!r}", "has the placeholder {language!r};"),
        ("{language.x}", "has the placeholder {language.x};"),
        ("{language", "expected '}' before end of string"),
        ("language}", "Single '}' encountered"),
    ],
)
def test_what_cannot_be_filled(template: str, words: str) -> None:
    (problem,) = check_template(template, "path", KNOWN)
    assert problem.code == "E204" and words in str(problem)
    with pytest.raises(MlkdError) as caught:
        fill_template(template, "path", language="de", source_language="en")
    assert caught.value.problems == [problem]


def test_a_required_template_needs_text() -> None:
    (problem,) = check_required_template("", "path", KNOWN, "data.path=a.tsv")
    assert str(problem) == "error[E205]: path: is required and not set\n  fix: for example: data.path=a.tsv"
    assert check_required_template("{language}.tsv", "path", KNOWN, "") == []
    assert check_required_template("{x}", "path", KNOWN, "")[0].code == "E204"
