"""What every corpus does with what it read: fields, filters, split, report."""

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mlkd.data.corpora.base import Corpus, ParallelCorpus
from mlkd.data.pairs import RawPairs
from mlkd.errors import MlkdError, fail


@dataclass(kw_only=True, slots=True)
class MemoryCorpus(ParallelCorpus):
    """Pairs from a table in memory; a language that is not in it is an error."""

    table: dict[str, list[list[str]]] = field(default_factory=dict)

    def read(self, language: str) -> RawPairs:
        if language not in self.table:
            raise fail("E303", f"{language}.tsv is empty (0 bytes)")
        source, target = map(list, zip(*self.table[language], strict=True)) if self.table[language] else ([], [])
        return RawPairs(source, target, f"{language}.tsv")


def numbered(count: int, word: str = "Satz") -> list[list[str]]:
    return [[f"This is sentence {index}.", f"{word} {index}."] for index in range(count)]


def load(table: dict[str, list[list[str]]], **options: object) -> Corpus:
    return MemoryCorpus(languages=list(table), table=table, **options).load()  # type: ignore[arg-type]


def problems_of(**options: object) -> list[str]:
    with pytest.raises(MlkdError) as caught:
        MemoryCorpus(**({"languages": ["de"]} | options))  # type: ignore[arg-type]
    return [f"{problem.code} {problem.where}" for problem in caught.value.problems]


class TestFields:
    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            ({"languages": []}, ["E205 languages"]),
            ({"languages": ["de", "False"]}, ["E206 languages[1]"]),
            ({"languages": ["jp"]}, ["E207 languages[0]"]),
            ({"languages": ["de", "en"]}, ["E207 languages"]),
            ({"source_language": "english"}, ["E207 source_language"]),
            ({"max_pairs_per_language": -1}, ["E204 max_pairs_per_language"]),
            ({"max_chars": 0, "min_chars": 0}, ["E204 max_chars"]),
            ({"max_chars": 10, "min_chars": 20}, ["E204 max_chars"]),
            ({"max_length_ratio": 0.5}, ["E204 max_length_ratio"]),
            ({"max_dropped_share": 1.5}, ["E204 max_dropped_share"]),
            ({"max_dev_share": -0.1}, ["E204 max_dev_share"]),
            ({"dev_pairs": -5}, ["E204 dev_pairs"]),
            ({"language_temperature": 0.0}, ["E204 language_temperature"]),
            ({"language_temperature": float("nan")}, ["E204 language_temperature"]),
            ({"languages": ["jp"], "dev_pairs": -5}, ["E207 languages[0]", "E204 dev_pairs"]),
        ],
    )
    def test_bad_values(self, options: dict[str, object], expected: list[str]) -> None:
        assert problems_of(**options) == expected

    def test_no_value_is_bad_by_default(self) -> None:
        corpus = MemoryCorpus(languages=["de", "no"])
        assert corpus.max_chars == 250 and corpus.source_language == "en"


class TestLoad:
    def test_pairs_stay_together_and_are_all_counted(self) -> None:
        corpus = load({"de": numbered(100), "fr": numbered(50, "Phrase")}, dev_pairs=8, max_dev_share=0.1)
        german, french = corpus.train
        assert (german.source_language, german.target_language, french.target_language) == ("en", "de", "fr")
        assert [len(pair) for pair in corpus.dev] == [8, 5]
        for pair in corpus.train + corpus.dev:
            for source, target in zip(pair.source, pair.target, strict=True):
                assert source.split()[-1] == target.split()[-1]
        for report in corpus.report.languages.values():
            assert report.read == report.train + report.dev + sum(report.dropped.values())

    def test_no_development_set(self) -> None:
        corpus = load({"de": numbered(10)}, dev_pairs=0)
        assert corpus.dev == [] and len(corpus.train[0]) == 10

    @pytest.mark.parametrize(("limit", "kept"), [(7, 7), (0, 90), (None, 90)])
    def test_limit(self, limit: int | None, kept: int) -> None:
        corpus = load({"de": numbered(100)}, max_pairs_per_language=limit)
        assert len(corpus.train[0]) == kept
        assert corpus.report.languages["de"].dropped == ({"over_limit": 83} if limit else {})

    def test_reasons_are_reported(self) -> None:
        table = [*numbered(100), ["", "leer"], ["x" * 251, "lang"], ["This is sentence 1.", "Satz 1."], ["OK", "OK"]]
        report = load({"de": table}, dev_pairs=0).report.languages["de"]
        assert report.dropped == {"empty": 1, "too_long": 1, "duplicate": 1}
        assert (report.read, report.train, report.identical) == (104, 101, 1)

    def test_many_empty_sides_are_an_error(self) -> None:
        table = [*numbered(90), *[["text", " "]] * 10]
        with pytest.raises(MlkdError) as caught:
            load({"de": table})
        assert "error[E317]: de.tsv: 10 of 100 pairs have an empty side (10.0 %; at most 5 % may)" in str(caught.value)
        assert "data.max_dropped_share" in str(caught.value)
        assert len(load({"de": table}, max_dropped_share=0.1, dev_pairs=0).train[0]) == 90

    def test_nothing_left(self) -> None:
        with pytest.raises(MlkdError, match=r"E318.*none of 100 pairs is left; dropped: 100 too_short"):
            load({"de": numbered(100)}, min_chars=100)
        with pytest.raises(MlkdError, match=r"E303.*de.tsv has no pairs"):
            load({"de": []})
        with pytest.raises(MlkdError, match=r"E318.*no training pairs are left for 'de'"):
            load({"de": numbered(1)}, dev_pairs=1, max_dev_share=1.0)

    def test_problems_of_all_languages_together(self) -> None:
        corpus = MemoryCorpus(languages=["de", "fr", "zh"], table={"fr": numbered(50)})
        with pytest.raises(MlkdError) as caught:
            corpus.load()
        assert [problem.what[:6] for problem in caught.value.problems] == ["de.tsv", "zh.tsv"]


class TestReport:
    def test_the_fingerprint_changes_with_any_kept_text(self) -> None:
        rows = numbered(100)
        first = load({"de": rows}).report
        assert first.fingerprint == load({"de": rows}).report.fingerprint
        for index in range(100):
            changed = [list(row) for row in rows]
            changed[index][1] += "!"
            assert load({"de": changed}).report.fingerprint != first.fingerprint, index

    def test_the_fingerprint_sees_language_seed_and_split(self) -> None:
        prints = {
            load({"de": numbered(100)}).report.fingerprint,
            load({"nl": numbered(100)}).report.fingerprint,
            load({"de": numbered(100)}, dev_seed=1).report.fingerprint,
            load({"de": numbered(100)}, dev_pairs=0).report.fingerprint,
        }
        assert len(prints) == 4

    def test_json(self) -> None:
        report = load({"de": [*numbered(100), ["", "x"]]}).report
        data = json.loads(json.dumps(report.as_json()))
        assert data["fingerprint"] == report.fingerprint
        assert data["languages"]["de"]["dropped"] == {"empty": 1}
        assert data["languages"]["de"]["origin"] == "de.tsv"

    def test_lines(self) -> None:
        table = {"de": [*numbered(1200), ["", "x"]], "fr": [[f"Phrase {i}.", f"Ligne {i}."] for i in range(50)]}
        lines = load(table).report.lines()
        assert [line.split() for line in lines] == [
            ["language", "read", "train", "dev", "dropped"],
            ["de", "1,201", "1,080", "120", "1", "empty"],
            ["fr", "50", "45", "5", "0"],
            ["all", "1,251", "1,125", "125", "1"],
        ]


class TestPlausibility:
    def warnings(self, caplog: pytest.LogCaptureFixture, rows: list[list[str]], language: str = "de") -> list[str]:
        with caplog.at_level(logging.WARNING, logger="mlkd"):
            load({language: rows})
        return [record.getMessage() for record in caplog.records]

    def test_plausible_text_gives_no_warning(self, caplog: pytest.LogCaptureFixture) -> None:
        assert self.warnings(caplog, numbered(100)) == []
        assert self.warnings(caplog, numbered(100, "Предложение номер"), "ru") == []
        assert self.warnings(caplog, numbered(100, "これは文です"), "ja") == []

    def test_another_script(self, caplog: pytest.LogCaptureFixture) -> None:
        (message,) = self.warnings(caplog, numbered(100), "ru")
        assert message.startswith("warning[W308]: ru.tsv: the target side, 'ru', looks wrong: 100 % of ")
        assert "in Latin script" in message and "swapped" in message

    def test_swapped_columns(self, caplog: pytest.LogCaptureFixture) -> None:
        messages = self.warnings(caplog, [row[::-1] for row in numbered(100, "Предложение номер")], "ru")
        assert [message.split("side")[0].split()[-1] for message in messages] == ["source", "target"]

    def test_untranslated_target(self, caplog: pytest.LogCaptureFixture) -> None:
        rows = [[f"This is text {index} of many.", f"This is the text {index} of a file."] for index in range(99)]
        (message,) = self.warnings(caplog, rows)
        assert "the target side, 'de', looks like 'en' (100 % of " in message

    def test_copied_text(self, caplog: pytest.LogCaptureFixture) -> None:
        rows = [*numbered(80), *[[f"Name {index}", f"Name {index}"] for index in range(20)]]
        (message,) = self.warnings(caplog, rows)
        assert message.startswith("warning[W309]: de.tsv: 20 % of 100 pairs are identical")


def test_a_corpus_without_files_checks_nothing(tmp_path: Path) -> None:
    MemoryCorpus(languages=["de"]).check_files()
