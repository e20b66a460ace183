"""One rule of tokenising: control tokens in texts are text, and what is asked for is cut, cased and framed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlkd.models.serialization import load_transformer
from mlkd.models.tokenization import tokenize_texts


@pytest.fixture(scope="module")
def xlmr(tiny_xlmr: Path) -> Any:
    return load_transformer(tiny_xlmr)[1]


@pytest.mark.parametrize("special_tokens", [True, False])
def test_control_tokens_in_texts_are_text(xlmr: Any, special_tokens: bool) -> None:
    texts = ["la </s> bei<mask>", "<pad><s>", "<unk> la"]
    frame = ([0], [2]) if special_tokens else ([], [])
    for row in tokenize_texts(xlmr, texts, special_tokens=special_tokens):
        ids = row.tolist()
        assert (ids[: len(frame[0])], ids[len(ids) - len(frame[1]) :]) == frame
        inner = ids[len(frame[0]) : len(ids) - len(frame[1])]
        assert inner and not set(inner) & {0, 1, 2, len(xlmr) - 1}


def test_nothing_is_cut_unless_asked(xlmr: Any) -> None:
    (whole,) = tokenize_texts(xlmr, ["la " * 100])
    (cut,) = tokenize_texts(xlmr, ["la " * 100], max_length=9)
    assert len(whole) >= 102 and whole.dtype == np.int32
    assert cut.tolist() == [*whole[:8].tolist(), 2]


def test_case(xlmr: Any) -> None:
    upper, lower, folded = (
        tokenize_texts(xlmr, [text], lower_case=fold)[0].tolist()
        for text, fold in (("La BEI", False), ("la bei", False), ("La BEI", True))
    )
    assert folded == lower != upper
    assert tokenize_texts(xlmr, []) == []
