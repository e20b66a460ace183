"""Language codes and scripts."""

import pytest

from mlkd.data.languages import check_language, check_languages, expected_script, script_of


@pytest.mark.parametrize(
    "code",
    [
        *("de", "no", "zh-cn", "pt-BR", "deu", "deu_Latn", "cmn", "es-419", "sr-Latn-RS", "x-elvish"),
        # Of IN22, MAFAND, NTREX, OPUS, FLORES+ and AmericasNLP; bibliographic, a family, and withdrawn.
        *("brx_Deva", "bbj", "shi", "cnr", "tok", "quc", "oci_Latn_aran1260", "shp", "ger", "ber", "sh", "ajp"),
    ],
)
def test_known_codes(code: str) -> None:
    assert check_language(code, "languages[0]") is None


@pytest.mark.parametrize(
    ("code", "suggestion"),
    [
        *(("jp", "ja"), ("cn", "zh"), ("cz", "cs"), ("ed", ""), ("german", "de"), ("Scots", "sco"), ("DE", "de")),
        *(("", ""), ("qqq", ""), ("de_", ""), ("de_Latn_x", "")),
    ],
)
def test_unknown_codes(code: str, suggestion: str) -> None:
    problem = check_language(code, "languages[0]")
    assert problem is not None and problem.code == "E207"
    assert problem.what.startswith(f"unknown language '{code}'.")
    assert not suggestion or f"Did you mean '{suggestion}'?" in problem.what


@pytest.mark.parametrize("value", [False, "False", "false"])
def test_yaml_booleans(value: object) -> None:
    (problem,) = check_languages(["de", value], "languages")
    assert str(problem).startswith("error[E206]: languages[1]: is the boolean False. YAML reads no/on/yes as booleans")
    assert 'write "no" in quotes' in problem.remedy


def test_a_language_listed_twice() -> None:
    (problem,) = check_languages(["de", "fr", "de"], "languages")
    assert problem.where == "languages[2]" and "listed twice" in problem.what


def test_all_problems_of_a_list() -> None:
    assert [problem.code for problem in check_languages(["jp", "True", "de"], "languages")] == ["E207", "E206"]


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("Straße", "Latin"),
        ("Привет, John", "Cyrillic"),
        ("你好，世界", "Han"),
        ("今日は暑いですね", "Japanese"),
        ("한국어", "Hangul"),
        ("مرحبا", "Arabic"),
        ("नमस्ते", "Devanagari"),
        ("123 ?!", None),
    ],
)
def test_script_of(text: str, script: str | None) -> None:
    assert script_of(text) == script


def test_expected_script() -> None:
    assert expected_script("ru") == expected_script("ru-RU") == "Cyrillic"
    assert expected_script("zh-tw") == "Han"
    assert expected_script("sr") is None
    assert expected_script("uzn_Cyrl") is None
    assert expected_script("x-elvish") is None
