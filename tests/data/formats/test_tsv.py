"""Lines and tables: what is repaired is counted, what is refused is named."""

import logging
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlkd.data.formats.tsv import Header, OnBadUtf8, read_lines, read_tsv
from mlkd.errors import MlkdError

# Everything a line may hold: no character that ends or is repaired in a line, no lone surrogates.
LEGAL = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029\x00")
)
CELL = LEGAL.map(lambda text: text.replace("\t", " "))


def write(folder: Path, name: str, content: bytes | str) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def error_of(path: Path, **kwargs: OnBadUtf8) -> MlkdError:
    with pytest.raises(MlkdError) as caught:
        read_lines(path, **kwargs)  # type: ignore[arg-type]
    return caught.value


class TestLines:
    def test_every_line_in_order(self, tmp_path: Path) -> None:
        assert read_lines(write(tmp_path, "a", "eins\n\nzwei\n")).lines == ["eins", "", "zwei"]

    def test_no_line_end_after_the_last_line(self, tmp_path: Path) -> None:
        assert read_lines(write(tmp_path, "a", "eins\nzwei")).lines == ["eins", "zwei"]

    @settings(max_examples=200, deadline=None)
    @given(lines=st.lists(LEGAL, min_size=1))
    def test_legal_text_comes_back(self, tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
        path = tmp_path_factory.mktemp("lines") / "a.txt"
        content = "".join(f"{line}\n" for line in lines)
        if content.startswith("\ufeff") or content.encode()[:4] in (b"BZh9",):
            return
        path.write_bytes(content.encode())
        try:
            text = read_lines(path)
        except MlkdError as error:
            assert error.problems[0].code == "E312", error  # text that is a server's error message, word for word
            return
        assert text.lines == lines
        assert not text.cleaned

    def test_byte_order_mark(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.WARNING, logger="mlkd"):
            text = read_lines(write(tmp_path, "a.en", b"\xef\xbb\xbfone\ntwo\n"))
        assert text.lines == ["one", "two"]
        assert text.cleaned == {"byte_order_mark": 1}
        assert [record.getMessage()[:13] for record in caplog.records] == ["warning[W305]"]

    @pytest.mark.parametrize("content", [b"\xef\xbb\xbf", b"\r", b"\xef\xbb\xbf\r"])
    def test_nothing_but_a_mark(self, tmp_path: Path, content: bytes) -> None:
        path = write(tmp_path, "a.en", content)
        for read in (read_lines, read_tsv):
            with pytest.raises(MlkdError, match=r"E303.*a.en has no lines"):
                read(path)

    def test_windows_line_ends(self, tmp_path: Path) -> None:
        text = read_lines(write(tmp_path, "a", b"one\r\ntwo\r\nthree\r"))
        assert text.lines == ["one", "two", "three"]
        assert text.cleaned == {"crlf": 3}

    @pytest.mark.parametrize("character", ["\r", "\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1e"])
    def test_other_line_breaks_stay_inside(self, tmp_path: Path, character: str) -> None:
        text = read_lines(write(tmp_path, "a", f"one{character}half\ntwo\n"))
        assert text.lines == ["one half", "two"]
        assert text.cleaned == {"line_break_character": 1}

    def test_raw_keeps_them(self, tmp_path: Path) -> None:
        text = read_lines(write(tmp_path, "a", "one\u2028half\r\n\x85two \n"), raw=True)
        assert text.lines == ["one\u2028half\r", "\x85two "]
        assert not text.cleaned

    def test_few_nul_are_removed(self, tmp_path: Path) -> None:
        text = read_lines(write(tmp_path, "a", "o\x00ne\n" + 200 * "two\n"))
        assert text.lines[0] == "one"
        assert text.cleaned == {"nul": 1}

    def test_many_nul_look_binary(self, tmp_path: Path) -> None:
        error = error_of(write(tmp_path, "a", b"ab\x00cdefg\n" * 100))
        assert error.problems[0].code == "E306" and "looks binary" in str(error)

    def test_the_hash_is_that_of_the_bytes(self, tmp_path: Path) -> None:
        first = read_lines(write(tmp_path, "a", "one\n")).sha256
        assert first == "2c8b08da5ce60398e1f19af0e5dccc744df274b826abe585eaba68c525434806"
        assert first != read_lines(write(tmp_path, "b", "one \n")).sha256


class TestEncoding:
    LATIN1 = "gut\nschlecht\ngr\xf6\xdfer\n".encode("latin-1")

    def test_bad_byte_is_located(self, tmp_path: Path) -> None:
        path = write(tmp_path, "a.de", b"ok\n" * 16 + b"ab\xff\n")
        error = error_of(path)
        assert error.problems[0].code == "E304"
        assert str(error).startswith(f"error[E304]: {path}:17: byte 0xff at column 3 is not UTF-8 (looks like Latin-1")
        assert "iconv -f LATIN1" in str(error) and "data.on_bad_utf8=skip|replace" in str(error)

    def test_cut_inside_a_character(self, tmp_path: Path) -> None:
        assert "ends inside a character" in str(error_of(write(tmp_path, "a", "größe".encode()[:3])))

    def test_skip_keeps_the_line_numbers(self, tmp_path: Path) -> None:
        text = read_lines(write(tmp_path, "a", self.LATIN1), on_bad_utf8=OnBadUtf8.skip)
        assert text.lines == ["gut", "schlecht", ""]
        assert text.skipped == {2}
        assert text.cleaned == {"bad_utf8_skipped": 1}

    def test_replace(self, tmp_path: Path) -> None:
        text = read_lines(write(tmp_path, "a", self.LATIN1), on_bad_utf8=OnBadUtf8.replace)
        assert text.lines[2] == "gr\ufffd\ufffder"
        assert text.cleaned == {"bad_utf8_replaced": 1}

    @pytest.mark.parametrize(("encoding", "words"), [("utf-16", "FF FE: UTF-16"), ("utf-16-le", "every other byte")])
    def test_utf16(self, tmp_path: Path, encoding: str, words: str) -> None:
        error = error_of(write(tmp_path, "a", ("Guten Tag\n" * 10).encode(encoding)))
        assert error.problems[0].code == "E304"
        assert words in str(error) and "iconv -f UTF-16" in str(error)


class TestTsv:
    def test_columns_by_header(self, tmp_path: Path) -> None:
        table = read_tsv(write(tmp_path, "a", "source\ten\tde\nx\tone\teins\n"), ["de", "en"])
        assert table.columns == {"de": ["eins"], "en": ["one"]}
        assert table.line_numbers == [2]

    def test_columns_by_position(self, tmp_path: Path) -> None:
        table = read_tsv(write(tmp_path, "a", "one\teins\ntwo\tzwei\n"), [0, "1"])
        assert table.columns == {"0": ["one", "two"], "1": ["eins", "zwei"]}
        assert table.line_numbers == [1, 2]

    def test_position_in_a_file_with_a_header(self, tmp_path: Path) -> None:
        table = read_tsv(write(tmp_path, "a", "en\tde\none\teins\n"), ["0", "1"], Header.present)
        assert table.columns == {"0": ["one"], "1": ["eins"]}

    def test_all_columns(self, tmp_path: Path) -> None:
        path = write(tmp_path, "a", "en\tde\none\teins\n")
        assert read_tsv(path).columns == {"0": ["en", "one"], "1": ["de", "eins"]}
        assert read_tsv(path, None, Header.present).columns == {"en": ["one"], "de": ["eins"]}

    def test_wrong_column_count(self, tmp_path: Path) -> None:
        path = write(tmp_path, "p.tsv", "a\tb\n" * 52 + "a\tb\tc\n" + "a\n" * 9)
        with pytest.raises(MlkdError) as caught:
            read_tsv(path, [0, 1])
        assert f"error[E307]: {path}:53: expected 2 columns (tab), got 3" in str(caught.value)
        assert len(caught.value.problems) == 3 and "7 more lines" in str(caught.value)

    def test_loose_files_may_have_more_columns(self, tmp_path: Path) -> None:
        path = write(tmp_path, "p.tsv", "a\tb\nc\td\te\nf\n")
        with pytest.raises(MlkdError, match="expected at least 2 columns"):
            read_tsv(path, [0, 1], strict=False)
        path = write(tmp_path, "p.tsv", "a\tb\nc\td\te\n")
        assert read_tsv(path, [0, 1], strict=False).columns["1"] == ["b", "d"]

    def test_missing_column_lists_those_there_are(self, tmp_path: Path) -> None:
        with pytest.raises(MlkdError, match=r"E307.*no column 'germ'; columns: en, german\. Did you mean 'german'\?"):
            read_tsv(write(tmp_path, "a", "en\tgerman\none\teins\n"), ["en", "germ"])
        with pytest.raises(MlkdError, match=r"no column 'en' in the first line, which has the columns: 'one', 'eins'"):
            read_tsv(write(tmp_path, "a", "one\teins\n"), ["en", "de"])
        with pytest.raises(MlkdError, match="no column at position 2: there are 2"):
            read_tsv(write(tmp_path, "a", "one\teins\n"), [0, 2])

    def test_column_named_twice(self, tmp_path: Path) -> None:
        with pytest.raises(MlkdError, match="occurs more than once"):
            read_tsv(write(tmp_path, "a", "en\tde\tde\na\tb\tc\n"), ["en", "de"])

    def test_quotes_and_na_are_text(self, tmp_path: Path) -> None:
        content = 'NA\tnull\n"open\tNone\n""\t"a\n1e5\tnan\n'
        table = read_tsv(write(tmp_path, "a", content), [0, 1])
        assert table.columns == {"0": ["NA", '"open', '""', "1e5"], "1": ["null", "None", '"a', "nan"]}

    def test_blank_lines_are_counted(self, tmp_path: Path) -> None:
        table = read_tsv(write(tmp_path, "a", "one\teins\n\n \ntwo\tzwei\n"), [0, 1])
        assert table.line_numbers == [1, 4]
        assert table.cleaned == {"blank_line": 2}

    def test_an_undecodable_row_is_left_out(self, tmp_path: Path) -> None:
        path = write(tmp_path, "a", b"one\teins\ntwo\tzw\xe4i\nthree\tdrei\n")
        table = read_tsv(path, [0, 1], on_bad_utf8=OnBadUtf8.skip)
        assert table.columns["1"] == ["eins", "drei"]
        assert table.line_numbers == [1, 3]

    @settings(max_examples=100, deadline=None)
    @given(rows=st.lists(st.tuples(CELL, CELL), min_size=1))
    def test_legal_cells_come_back(self, tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]) -> None:
        path = tmp_path_factory.mktemp("tsv") / "a.tsv"
        path.write_bytes(("en\tde\n" + "".join(f"{en}\t{de}\n" for en, de in rows)).encode())
        table = read_tsv(path, ["en", "de"])
        kept = [row for row in rows if "\t".join(row).strip()]
        assert list(zip(table.columns["en"], table.columns["de"], strict=True)) == kept
        assert table.cleaned["blank_line"] == len(rows) - len(kept)
