"""Vectors computed elsewhere: texts out, rows in, and every way in which the two may not fit."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from mlkd.errors import MlkdError
from mlkd.models.encoder import Encoder
from mlkd.models.precomputed import PrecomputedEncoder, export_texts, holds_vectors, locate_vectors, vectors_sha256

TEXTS = ["Käse", "two\u2028words", " padded ", "", "日本"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five texts with vectors of three dimensions: n, n + 0.5, -n."""
    assert export_texts(tmp_path / "vectors", [*TEXTS, "Käse"]) == 5
    rows = np.arange(5, dtype=np.float32)[:, None] * [1, 1, -1] + np.array([0, 0.5, 0], dtype=np.float32)
    np.save(tmp_path / "vectors/labse.npy", rows.astype(np.float32))
    return tmp_path / "vectors"


def refusal(folder: Path) -> str:
    with pytest.raises(MlkdError) as caught:
        PrecomputedEncoder.open(locate_vectors(folder))
    return str(caught.value)


def test_texts_are_written_once_a_line_with_a_hash_that_sha256sum_checks(folder: Path) -> None:
    content = (folder / "texts.txt").read_bytes()
    assert content == "Käse\ntwo\u2028words\n padded \n\n日本\n".encode()
    assert (folder / "texts.sha256").read_text() == f"{hashlib.sha256(content).hexdigest()}  texts.txt\n"


@pytest.mark.parametrize("text", ["a\nb", "a\rb", "half \ud800"])
def test_what_no_line_can_hold(tmp_path: Path, text: str) -> None:
    with pytest.raises(MlkdError, match="E409"):
        export_texts(tmp_path, ["fine", text])
    assert not (tmp_path / "texts.txt").exists()


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_rows_are_looked_up(folder: Path, dtype: type) -> None:
    np.save(folder / "labse.npy", np.load(folder / "labse.npy").astype(dtype))
    encoder = PrecomputedEncoder.open(locate_vectors(folder))
    assert isinstance(encoder, Encoder) and isinstance(encoder.vectors_ND, np.memmap)
    found = encoder.encode(["日本", "Käse", "日本"])
    assert torch.equal(found, torch.tensor([[4.0, 4.5, -4.0], [0.0, 0.5, 0.0], [4.0, 4.5, -4.0]]))
    assert found.dtype is torch.float32 and encoder.dimension == 3
    assert encoder.encode([]).shape == (0, 3)
    assert vectors_sha256(folder / "labse.npy") == hashlib.sha256((folder / "labse.npy").read_bytes()).hexdigest()


def test_a_text_without_a_vector_is_named(folder: Path) -> None:
    encoder = PrecomputedEncoder.open(folder / "labse.npy")
    with pytest.raises(MlkdError, match=r"E409.*2 texts have no vector, first 'padded'"):
        encoder.encode(["Käse", "padded", "other"])


def test_where_vectors_are(folder: Path, tmp_path: Path) -> None:
    assert locate_vectors(folder) == locate_vectors(folder / "labse.npy") == folder / "labse.npy"
    assert holds_vectors(folder) and holds_vectors(folder / "labse.npy") and not holds_vectors(tmp_path)
    assert "Did you mean" in refusal(folder / "labsee.npy")
    assert "no such folder" in refusal(tmp_path / "absent")
    np.save(folder / "second.npy", np.zeros((5, 2), dtype=np.float32))
    assert "has 2 .npy files (labse.npy, second.npy); one is needed" in refusal(folder)
    assert locate_vectors(folder / "second.npy") == folder / "second.npy"
    for name in ("texts.sha256", "texts.txt"):
        (folder / name).unlink()
        assert f"has no {name}" in refusal(folder / "labse.npy")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (np.zeros((4, 3), dtype=np.float32), "has 4 rows, texts.txt 5 lines"),
        (np.zeros(5, dtype=np.float32), "must be float32 or float16 (N, D); got float32 (5,)"),
        (np.zeros((5, 3)), "got float64 (5, 3)"),
        (np.zeros((5, 3), dtype=np.int32), "got int32"),
        (
            np.array([[0.0], [1.0], [np.inf], [np.nan], [1.0]], dtype=np.float16),
            "row 2 holds NaN or infinity: ' padded '",
        ),
        (np.array([["a"], [None]], dtype=object), "no .npy file of numbers"),
    ],
)
def test_matrices_that_do_not_fit(folder: Path, rows: np.ndarray, words: str) -> None:
    np.save(folder / "labse.npy", rows, allow_pickle=True)
    found = refusal(folder)
    assert "error[E402]" in found and words in found


def test_texts_that_were_changed(folder: Path) -> None:
    path = folder / "texts.txt"

    def rewrite(content: bytes) -> str:
        path.write_bytes(content)
        (folder / "texts.sha256").write_text(hashlib.sha256(content).hexdigest())
        return refusal(folder)

    (folder / "labse.npy").write_bytes((folder / "labse.npy").read_bytes()[:-1])
    assert "no .npy file of numbers" in refusal(folder)
    content = path.read_bytes()
    path.write_bytes(content + b"more\n")
    assert "was changed since its export" in refusal(folder)
    assert "the last line has no line break" in rewrite(content[:-1])
    assert "lists a text twice" in rewrite(content + b"\n")
    assert "not UTF-8" in rewrite(b"\xff\n")
