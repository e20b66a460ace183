"""Corpora in files."""

import gzip
import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlkd.data.corpora.base import OnMisaligned, ParallelCorpus
from mlkd.data.corpora.files import JsonlCorpus, MosesCorpus, ParquetCorpus, TsvCorpus, first_suspicious_line
from mlkd.data.formats.tsv import Header, OnBadUtf8
from mlkd.errors import MlkdError

ROWS = [(f"This is sentence {index}.", f"Satz {index}.") for index in range(100)]


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def tsv(folder: Path, language: str = "de", header: str = "") -> Path:
    path = folder / f"en-{language}.tsv.gz"
    path.write_bytes(gzip.compress((header + "".join(f"{a}\t{b}\n" for a, b in ROWS)).encode()))
    return path


def moses(folder: Path, source: list[str], target: list[str], **options: object) -> MosesCorpus:
    write(folder / "a.en", "".join(f"{line}\n" for line in source))
    write(folder / "a.de", "".join(f"{line}\n" for line in target))
    paths = {"source_path": f"{folder}/a.en", "target_path": f"{folder}/a.{{language}}"}
    return MosesCorpus(languages=["de"], **(paths | options))  # type: ignore[arg-type]


def all_pairs(corpus: ParallelCorpus) -> list[tuple[str, str]]:
    loaded = corpus.load()
    return sorted(pair for part in loaded.train + loaded.dev for pair in zip(part.source, part.target, strict=True))


class TestTables:
    def test_tsv_with_a_header(self, tmp_path: Path) -> None:
        tsv(tmp_path, header="en\tde\n")
        corpus = TsvCorpus(languages=["de"], path=f"{tmp_path}/{{source_language}}-{{language}}.tsv.gz")
        assert all_pairs(corpus) == sorted(ROWS)

    def test_tsv_without_a_header(self, tmp_path: Path) -> None:
        path = tsv(tmp_path)
        corpus = TsvCorpus(languages=["de"], path=str(path), source_column="0", target_column="1")
        assert all_pairs(corpus) == sorted(ROWS)
        assert corpus.header is Header.auto

    def test_one_wide_file_for_all_languages(self, tmp_path: Path) -> None:
        path = write(tmp_path / "all.tsv", "en\tde\tfr\n" + "".join(f"{a}\t{b}\tF {b}\n" for a, b in ROWS))
        loaded = TsvCorpus(languages=["de", "fr"], path=str(path)).load()
        assert [pair.target[0][0] for pair in loaded.train] == ["S", "F"]

    def test_a_path_of_its_own(self, tmp_path: Path) -> None:
        tsv(tmp_path, header="en\tde\n").rename(tmp_path / "other.tsv.gz")
        corpus = TsvCorpus(languages=["de"], paths={"de": f"{tmp_path}/other.tsv.gz"})
        assert len(all_pairs(corpus)) == 100

    def test_jsonl(self, tmp_path: Path) -> None:
        lines = (json.dumps({"translation": {"en": a, "de": b}}) for a, b in ROWS)
        path = write(tmp_path / "a.jsonl", "\n".join(lines))
        columns = {"source_column": "translation.en", "target_column": "translation.{language}"}
        assert all_pairs(JsonlCorpus(languages=["de"], path=str(path), **columns)) == sorted(ROWS)

    def test_parquet(self, tmp_path: Path) -> None:
        path = tmp_path / "a.parquet"
        pq.write_table(pa.table({"en": [a for a, _ in ROWS], "de": [b for _, b in ROWS]}), path)
        assert all_pairs(ParquetCorpus(languages=["de"], path=str(path))) == sorted(ROWS)

    def test_the_report_names_the_files_and_repairs(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.tsv", "en\tde\r\n" + "".join(f"{a}\t{b}\r\n" for a, b in ROWS) + "\r\n")
        report = TsvCorpus(languages=["de"], path=str(path)).load().report
        german = report.languages["de"]
        assert list(german.files) == [str(path)] and len(german.files[str(path)]) == 64
        assert german.cleaned == {"crlf": 102, "blank_line": 1}
        assert "de: cleaned 102 crlf, 1 blank_line" in report.lines()

    def test_bad_lines_can_be_skipped_and_are_counted(self, tmp_path: Path) -> None:
        path = tmp_path / "a.tsv"
        path.write_bytes("".join(f"{a}\t{b}\n" for a, b in ROWS).encode() + b"one\tgr\xfcn\n")
        options = {"path": str(path), "source_column": "0", "target_column": "1"}
        with pytest.raises(MlkdError, match=r"E304.*a.tsv:101: byte 0xfc at column 7"):
            TsvCorpus(languages=["de"], **options).load()  # type: ignore[arg-type]
        report = TsvCorpus(languages=["de"], on_bad_utf8=OnBadUtf8.skip, **options).load().report  # type: ignore[arg-type]
        assert report.languages["de"].dropped == {"bad_utf8": 1}
        assert report.languages["de"].read == 101

    def test_missing_files_are_reported_together(self, tmp_path: Path) -> None:
        tsv(tmp_path, "de", "en\tde\n")
        corpus = TsvCorpus(languages=["de", "fr", "es"], path=f"{tmp_path}/en-{{language}}.tsv.gz")
        for action in (corpus.check_files, corpus.load):
            with pytest.raises(MlkdError) as caught:
                action()
            assert [problem.code for problem in caught.value.problems] == ["E301", "E301"]
            assert "en-fr.tsv.gz" in str(caught.value) and "en-es.tsv.gz" in str(caught.value)

    def test_problems_of_several_files_are_reported_together(self, tmp_path: Path) -> None:
        write(tmp_path / "en-de.tsv", "en\tde\na\tb\tc\n")
        write(tmp_path / "en-fr.tsv", "")
        with pytest.raises(MlkdError) as caught:
            TsvCorpus(languages=["de", "fr"], path=f"{tmp_path}/en-{{language}}.tsv").load()
        assert [problem.code for problem in caught.value.problems] == ["E307", "E303"]

    @pytest.mark.parametrize(
        ("options", "code", "words"),
        [
            ({}, "E205", "path: is required and not set"),
            ({"path": "a.tsv", "target_column": "1"}, "E204", "are the same for de, fr"),
            ({"path": "{lang}.tsv"}, "E204", "{lang}; known: {language}, {source_language}"),
            ({"path": "{language"}, "E204", "expected '}'"),
            ({"path": "{language}.tsv", "paths": {"df": "x"}}, "E204", "'df' is not in languages"),
            ({"path": "{language}.tsv", "source_column": ""}, "E205", "source_column"),
        ],
    )
    def test_bad_fields(self, options: dict[str, object], code: str, words: str) -> None:
        with pytest.raises(MlkdError) as caught:
            TsvCorpus(languages=["de", "fr"], **options)  # type: ignore[arg-type]
        assert [problem.code for problem in caught.value.problems] == [code]
        assert words in str(caught.value)


class TestMoses:
    def test_pairs(self, tmp_path: Path) -> None:
        corpus = moses(tmp_path, *map(list, zip(*ROWS, strict=True)))
        assert all_pairs(corpus) == sorted(ROWS)
        assert len(corpus.load().report.languages["de"].files) == 2

    def test_different_lengths(self, tmp_path: Path) -> None:
        corpus = moses(tmp_path, ["a"] * 1200, ["b"] * 1198)
        with pytest.raises(MlkdError) as caught:
            corpus.load()
        message = str(caught.value)
        assert f"error[E302]: line counts differ: {tmp_path}/a.en 1,200, {tmp_path}/a.de 1,198." in message
        assert "First suspicious line ~" in message and "No data was used" in message
        assert "data.on_misaligned=truncate" in message

    def test_truncate(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        source, target = map(list, zip(*ROWS, strict=True))
        report = moses(tmp_path, source, target[:-3], on_misaligned=OnMisaligned.truncate).load().report
        assert report.languages["de"].dropped == {"misaligned": 3}
        assert report.languages["de"].read == 100
        assert "warning[W302]" in caplog.text

    def test_lone_line_breaks_do_not_shift_the_sides(self, tmp_path: Path) -> None:
        source = [f"{a} one\rtwo\u2028three\x85four" for a, _ in ROWS]
        corpus = moses(tmp_path, source, [b for _, b in ROWS])
        assert all_pairs(corpus) == sorted((f"{a} one two three four", b) for a, b in ROWS)
        assert corpus.load().report.languages["de"].cleaned == {"line_break_character": 300}

    def test_an_undecodable_line_leaves_with_its_translation(self, tmp_path: Path) -> None:
        corpus = moses(tmp_path, *map(list, zip(*ROWS, strict=True)), on_bad_utf8=OnBadUtf8.skip)
        lines = (tmp_path / "a.de").read_bytes().split(b"\n")
        lines[4] = b"\xff"
        (tmp_path / "a.de").write_bytes(b"\n".join(lines))
        assert all_pairs(corpus) == sorted(ROWS[:4] + ROWS[5:])

    def test_problems_of_both_sides(self, tmp_path: Path) -> None:
        with pytest.raises(MlkdError) as caught:
            moses(tmp_path, [], []).load()
        assert [problem.code for problem in caught.value.problems] == ["E303", "E303"]

    @pytest.mark.parametrize("removed", [300, 1000, 1700])
    def test_the_shift_is_located(self, removed: int) -> None:
        rng = random.Random(removed)
        source = ["x" * rng.randint(5, 120) for _ in range(2000)]
        target = [line + "y" * rng.randint(0, len(line) // 4) for line in source]
        del target[removed]
        assert abs(first_suspicious_line(source, target) - removed) < 30

    def test_the_target_must_name_the_language(self) -> None:
        with pytest.raises(MlkdError, match=r"E204.*the same file for de, fr"):
            MosesCorpus(languages=["de", "fr"], source_path="a.en", target_path="a.de")
