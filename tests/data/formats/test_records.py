"""JSON lines and Parquet."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlkd.data.formats.jsonl import read_jsonl
from mlkd.data.formats.parquet import read_parquet
from mlkd.errors import MlkdError


def jsonl(folder: Path, *lines: str) -> Path:
    path = folder / "x.jsonl"
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def parquet(folder: Path, **columns: object) -> Path:
    path = folder / "x.parquet"
    pq.write_table(pa.table(columns), path)
    return path


class TestJsonl:
    def test_columns(self, tmp_path: Path) -> None:
        table = read_jsonl(
            jsonl(tmp_path, '{"de": "eins", "en": "one"}', "", '{"en": "two", "de": null}'), ["en", "de"]
        )
        assert table.columns == {"en": ["one", "two"], "de": ["eins", ""]}
        assert table.line_numbers == [1, 3]
        assert table.cleaned == {"blank_line": 1, "null": 1}

    def test_nested(self, tmp_path: Path) -> None:
        path = jsonl(tmp_path, '{"translation": {"en": "one", "de": "eins"}}')
        assert read_jsonl(path, ["translation.de"]).columns == {"translation.de": ["eins"]}

    @pytest.mark.parametrize(
        ("line", "words"),
        [
            ('{"en": "one" "de": 1}', r"x.jsonl:2: not JSON \(Expecting ',' delimiter, column 14\)"),
            ('{"en": "one", "den": "x"}', r"missing key 'de'; keys found: en, den\. Did you mean 'den'\?"),
            ('{"en": "one", "de": 3}', "the value of 'de' is int, not text"),
            ('["one", "eins"]', "not a JSON object but list"),
            ("[" * 100_000, "nested too deeply|not JSON"),
        ],
    )
    def test_broken_lines(self, tmp_path: Path, line: str, words: str) -> None:
        path = jsonl(tmp_path, '{"en": "one", "de": "eins"}', line)
        with pytest.raises(MlkdError, match=words) as caught:
            read_jsonl(path, ["en", "de"])
        assert caught.value.problems[0].code == "E309"

    def test_many_broken_lines_are_summed_up(self, tmp_path: Path) -> None:
        with pytest.raises(MlkdError) as caught:
            read_jsonl(jsonl(tmp_path, *["{"] * 10), ["en"])
        assert len(caught.value.problems) == 3 and "7 more lines" in str(caught.value)

    def test_control_characters_are_repaired(self, tmp_path: Path) -> None:
        table = read_jsonl(jsonl(tmp_path, '{"en": "a\\nb\\u0000\\ud800\\u2028c"}'), ["en"])
        assert table.columns["en"] == ["a b\ufffd c"]
        assert table.cleaned == {"line_break_character": 2, "nul": 1, "surrogate": 1}

    @settings(max_examples=100, deadline=None)
    @given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"])), min_size=1))
    def test_legal_text_comes_back(self, tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
        folder = tmp_path_factory.mktemp("jsonl")
        path = jsonl(folder, *(json.dumps({"en": text}, ensure_ascii=False) for text in texts))
        assert read_jsonl(path, ["en"]).columns["en"] == texts


class TestParquet:
    def test_columns(self, tmp_path: Path) -> None:
        table = read_parquet(parquet(tmp_path, en=["one", None], de=["ei\nns", "NA"]), ["en", "de"])
        assert table.columns == {"en": ["one", ""], "de": ["ei ns", "NA"]}
        assert table.cleaned == {"null": 1, "line_break_character": 1}

    def test_nested_and_dictionary(self, tmp_path: Path) -> None:
        path = parquet(
            tmp_path,
            translation=pa.array([{"en": "one", "de": "eins"}]),
            kind=pa.array(["x"]).dictionary_encode(),
        )
        table = read_parquet(path, ["translation.de", "kind"])
        assert table.columns == {"translation.de": ["eins"], "kind": ["x"]}

    def test_missing_column_and_wrong_type_together(self, tmp_path: Path) -> None:
        with pytest.raises(MlkdError) as caught:
            read_parquet(parquet(tmp_path, src=["a"], tgt=[1]), ["en", "tgt"])
        assert [problem.code for problem in caught.value.problems] == ["E310", "E310"]
        assert "column 'en' missing; columns: src, tgt" in str(caught.value)
        assert "column 'tgt' holds int64, not text" in str(caught.value)
        assert "data.source_column" in str(caught.value)

    def test_truncated(self, tmp_path: Path) -> None:
        path = parquet(tmp_path, en=["one"] * 100)
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(MlkdError, match=r"E311.*cut off or damaged"):
            read_parquet(path, ["en"])

    def test_other_content(self, tmp_path: Path) -> None:
        path = tmp_path / "x.parquet"
        path.write_text("en,de\n")
        with pytest.raises(MlkdError, match=r"E311.*not a Parquet file"):
            read_parquet(path, ["en"])
        path.write_text("version https://git-lfs.github.com/spec/v1\n")
        with pytest.raises(MlkdError, match="E312"):
            read_parquet(path, ["en"])
        path.write_text("")
        with pytest.raises(MlkdError, match="E303"):
            read_parquet(path, ["en"])
        with pytest.raises(MlkdError, match="E301"):
            read_parquet(tmp_path / "y.parquet", ["en"])

    def test_text_that_is_not_utf8(self, tmp_path: Path) -> None:
        buffers = pa.array([b"gr\xf6n"], pa.binary()).buffers()
        broken = pa.StringArray.from_buffers(1, buffers[1], buffers[2])
        with pytest.raises(MlkdError, match="E304"):
            read_parquet(parquet(tmp_path, en=broken), ["en"])
