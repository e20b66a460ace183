"""Translation memories, and the attacks XML allows."""

from pathlib import Path

import pytest

from mlkd.data.corpora.tmx import TmxCorpus
from mlkd.data.formats.tmx import read_tmx
from mlkd.errors import MlkdError

HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n<tmx version="1.4"><header/>\n<body>\n'
TAIL = "</body></tmx>\n"


def unit(*sides: tuple[str, str]) -> str:
    return "<tu>" + "".join(f'<tuv xml:lang="{lang}"><seg>{text}</seg></tuv>' for lang, text in sides) + "</tu>\n"


def write(folder: Path, content: str, encoding: str = "utf-8") -> Path:
    path = folder / "t.tmx"
    path.write_bytes(content.encode(encoding))
    return path


def test_units(tmp_path: Path) -> None:
    body = unit(("en-US", "Hello &amp; bye"), ("DE", "Hallo &amp; tschüss")) + unit(("fr", "x"), ("de", "y"))
    raw = read_tmx(write(tmp_path, HEAD + body + TAIL), "en", "de")
    assert (raw.source, raw.target) == (["Hello & bye"], ["Hallo & tschüss"])
    assert raw.dropped == {"missing_language": 1}
    assert raw.num_read == 2 and raw.place(0).endswith("t.tmx:4")


def test_formatting_codes_are_no_text(tmp_path: Path) -> None:
    text = 'A <bpt i="1">&lt;b&gt;</bpt><hi>bold</hi><ept i="1">&lt;/b&gt;</ept>\n   word'
    raw = read_tmx(write(tmp_path, HEAD + unit(("en", text), ("de", "b")) + TAIL), "en", "de")
    assert raw.source == ["A bold word"]


def test_utf16_is_legal_xml(tmp_path: Path) -> None:
    content = (HEAD + unit(("en", "one"), ("de", "größer")) + TAIL).replace("UTF-8", "UTF-16")
    assert read_tmx(write(tmp_path, content, "utf-16"), "en", "de").target == ["größer"]


def test_malformed(tmp_path: Path) -> None:
    path = write(tmp_path, HEAD + "<tu><tuv></tu>" + TAIL)
    with pytest.raises(MlkdError) as caught:
        read_tmx(path, "en", "de")
    assert str(caught.value).startswith(f"error[E313]: {path}:4: not well-formed XML (mismatched tag")


def test_cut_off(tmp_path: Path) -> None:
    with pytest.raises(MlkdError, match="E313"):
        read_tmx(write(tmp_path, HEAD + unit(("en", "a"), ("de", "b"))), "en", "de")


@pytest.mark.parametrize(
    "subset",
    [
        '<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;">',
        '<!ENTITY c SYSTEM "file:///etc/hostname">',
        "<!ELEMENT c ANY>",
    ],
)
def test_entities_are_refused(tmp_path: Path, subset: str) -> None:
    doctype = f"<!DOCTYPE tmx [{subset}]>\n"
    content = HEAD.replace("<tmx", f"{doctype}<tmx") + unit(("en", "&c;"), ("de", "b")) + TAIL
    with pytest.raises(MlkdError, match=r"E313.*refused"):
        read_tmx(write(tmp_path, content), "en", "de")


def test_a_named_document_type_is_never_fetched(tmp_path: Path) -> None:
    doctype = '<!DOCTYPE tmx SYSTEM "http://127.0.0.1:9/tmx14.dtd">\n<tmx'
    content = HEAD.replace("<tmx", doctype) + unit(("en", "a"), ("de", "b")) + TAIL
    assert read_tmx(write(tmp_path, content), "en", "de").source == ["a"]
    with pytest.raises(MlkdError, match=r"E313.*refused"):
        read_tmx(write(tmp_path, content.replace(">a<", ">&a;<")), "en", "de")


def test_corpus(tmp_path: Path) -> None:
    body = "".join(unit(("en", f"Sentence {i}."), ("de", f"Satz {i}."), ("fr", f"Phrase {i}.")) for i in range(100))
    path = write(tmp_path, HEAD + body + TAIL)
    corpus = TmxCorpus(languages=["de", "fr"], path=str(path)).load()
    assert [len(pair) for pair in corpus.train] == [90, 90]
    with pytest.raises(MlkdError, match=r"E205"):
        TmxCorpus(languages=["de"])
