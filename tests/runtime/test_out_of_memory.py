"""Half as many tokens after an allocation failed, down to one sentence."""

from __future__ import annotations

import logging

import pytest

from mlkd.errors import MlkdError
from mlkd.runtime.out_of_memory import fewer_tokens


def test_half_and_at_least_the_longest_sentence(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "mlkd"):
        assert fewer_tokens(4096, 100, "training") == 2048
    assert "out of device memory in training: retried with 2,048 token positions" in caplog.text
    assert fewer_tokens(150, 100, "training") == 100


def test_one_sentence_is_the_end() -> None:
    with pytest.raises(MlkdError, match=r"error\[E520\]: out of device memory in encoding") as caught:
        fewer_tokens(100, 100, "encoding")
    assert caught.value.exit_code == 5
    assert "optim.batch_size" in str(caught.value)
