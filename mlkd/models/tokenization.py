"""Tokenization: from texts to token ids, by one rule for every place that tokenises."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

TokenIds = np.ndarray[Any, np.dtype[np.int32]]


def tokenize_texts(
    tokenizer: Any,
    texts: Sequence[str],
    *,
    max_length: int | None = None,
    lower_case: bool = False,
    special_tokens: bool = True,
) -> list[TokenIds]:
    """Token ids of each text.

    A control token spelled out in a text (`</s>`) is split like other text: data cannot end a sentence early.

    Args:
        tokenizer: a transformers fast tokenizer.
        texts: any number.
        max_length: tokens, special tokens included; None cuts nothing.
        lower_case: lower-case the texts first.
        special_tokens: put the model's own before and behind each text.
    """
    if not texts:
        return []
    prepared = [t.lower() for t in texts] if lower_case else list(texts)
    # split_special_tokens is not enough: a Unigram model like XLM-R's holds its control tokens as pieces.
    controls = re.compile("|".join(map(re.escape, tokenizer.all_special_tokens)) or "(?!)")
    prepared = [controls.sub(lambda m: f"{m[0][0]} {m[0][1:]}", t) for t in prepared]
    batch = tokenizer(
        prepared,
        add_special_tokens=special_tokens,
        truncation=max_length is not None,
        max_length=max_length,
        return_attention_mask=False,
        return_token_type_ids=False,
        split_special_tokens=True,
        verbose=False,
    )
    return [np.asarray(ids, dtype=np.int32) for ids in batch["input_ids"]]
