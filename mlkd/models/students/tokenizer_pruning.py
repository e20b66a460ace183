"""Tokenizer pruning: pieces are taken out, and text of the kept ones is segmented as before.

Why segmentation stays: greedy longest match (WordPiece) and whole words (WordLevel) find the same pieces where none
of them is gone. The best path of a Unigram model stays the best among fewer paths; a path through an unknown character
costs the lowest score of all pieces and more, so the piece of the lowest score stays. Byte pairs are merged in their
order; a merge that ever led to a kept piece stays.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from mlkd.data.languages import script_of
from mlkd.errors import fail

Ids = np.ndarray[Any, np.dtype[np.int64]]
BYTE_PIECE = re.compile(r"<0x[0-9A-F]{2}>")
SPECIAL_NAMES = ("pad", "unk", "bos", "eos", "cls", "sep", "mask")
# Their position numbers count from the padding piece's id.
POSITIONS_FROM_PADDING = frozenset({"roberta", "xlm-roberta", "camembert"})


class PrunableVocabulary:
    """The vocabulary of a fast tokenizer, seen as what can be taken out of it.

    Args:
        tokenizer: a transformers fast tokenizer of kind WordPiece, WordLevel, Unigram or BPE.

    Raises:
        MlkdError: E408 for other kinds.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.json: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
        self.model: dict[str, Any] = self.json["model"]
        self.kind = str(self.model.get("type"))
        affixes = [k for k in ("continuing_subword_prefix", "end_of_word_suffix") if self.model.get(k)]
        if self.kind not in {"WordPiece", "WordLevel", "Unigram", "BPE"} or (self.kind == "BPE" and affixes):
            raise fail(
                "E408",
                f"a tokenizer of kind {' with '.join([self.kind, *affixes])} cannot be trimmed; "
                "WordPiece, WordLevel, Unigram and byte-level BPE can",
                where="student.trimming",
                remedy="set student.trimming.enabled=false",
            )
        vocabulary = self.model["vocab"]
        pieces = [p for p, _ in vocabulary] if self.kind == "Unigram" else sorted(vocabulary, key=vocabulary.get)
        self.ids = {piece: i if self.kind == "Unigram" else vocabulary[piece] for i, piece in enumerate(pieces)}
        self._ranks = {tuple(_merge(m)): rank for rank, m in enumerate(self.model.get("merges") or [])}

    def always(self, scripts: frozenset[str], *, up_to_padding: bool) -> set[int]:
        """Ids that stay whatever the corpus: control pieces, bytes, single characters, and what the method needs.

        Args:
            scripts: names as by `script_of`; letters of other scripts may go, other characters stay.
            up_to_padding: keep all ids up to the padding piece's, so that its id stays.
        """
        kept = {int(token["id"]) for token in self.json["added_tokens"]} | set(self.tokenizer.all_special_ids)
        kept |= set(_processor_ids(self.json.get("post_processor")))
        if self.model.get("unk_id") is not None:
            kept.add(int(self.model["unk_id"]))
        if self.kind == "Unigram":
            scores = [score for _, score in self.model["vocab"]]
            kept.add(scores.index(min(scores)))
        kept |= {i for piece, i in self.ids.items() if BYTE_PIECE.fullmatch(piece) or self._is_letter(piece, scripts)}
        return kept | set(range(self.tokenizer.pad_token_id + 1)) if up_to_padding else kept

    def _is_letter(self, piece: str, scripts: frozenset[str]) -> bool:
        prefix = (self.model.get("continuing_subword_prefix") or "") if self.kind == "WordPiece" else "▁"
        character = piece.removeprefix(prefix) if prefix and piece != prefix else piece
        if len(character) != 1:
            return False
        script = script_of(character)
        # The letters of byte-level BPE stand for bytes.
        return script is None or script in scripts or self.kind == "BPE"

    def needed_by(self, piece_id: int) -> set[int]:
        """`piece_id` and, in BPE, every piece that merges pass through on the way to it."""
        if self.kind != "BPE":
            return {piece_id}
        symbols = list(self.tokenizer.convert_ids_to_tokens(piece_id))
        needed = {piece_id}
        while ranked := [(self._ranks[p], i) for i, p in enumerate(pairwise(symbols)) if p in self._ranks]:
            _, i = min(ranked)
            symbols[i : i + 2] = ["".join(symbols[i : i + 2])]
            needed.add(self.ids[symbols[i]])
        return needed

    def without_others(self, kept: Ids) -> Any:
        """The tokenizer with the pieces `kept` (rising ids) alone; the n-th of them gets id n."""
        from tokenizers import Tokenizer
        from transformers import PreTrainedTokenizerFast

        new = {int(old): i for i, old in enumerate(kept)}
        data = json.loads(json.dumps(self.json))
        model = data["model"]
        if self.kind == "Unigram":
            model["vocab"] = [model["vocab"][i] for i in new if i < len(model["vocab"])]
            model["unk_id"] = None if model["unk_id"] is None else new[model["unk_id"]]
        else:
            model["vocab"] = {piece: new[i] for piece, i in self.ids.items() if i in new}
        if self.kind == "BPE":
            stays = model["vocab"]
            model["merges"] = [[a, b] for a, b in self._ranks if a in stays and b in stays and a + b in stays]
        for token in data["added_tokens"]:
            token["id"] = new[token["id"]]
        _renumber_processor(data.get("post_processor"), new)
        data["truncation"] = data["padding"] = None
        old = self.tokenizer
        special = {f"{name}_token": token for name in SPECIAL_NAMES if (token := getattr(old, f"{name}_token"))}
        return PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer.from_str(json.dumps(data)),
            model_max_length=old.model_max_length,
            model_input_names=list(old.model_input_names),
            padding_side=old.padding_side,
            truncation_side=old.truncation_side,
            clean_up_tokenization_spaces=old.clean_up_tokenization_spaces,
            **special,
        )


def _merge(merge: str | Sequence[str]) -> Sequence[str]:
    # Older files write a merge as one string.
    return merge.split(" ", 1) if isinstance(merge, str) else merge


def _processor_ids(processor: dict[str, Any] | None) -> Iterator[int]:
    """Piece ids written out in a post-processor."""
    if processor is None:
        return
    for part in processor.get("processors", []):
        yield from _processor_ids(part)
    for token in processor.get("special_tokens", {}).values():
        yield from token["ids"]
    for side in ("cls", "sep"):
        if side in processor:
            yield int(processor[side][1])


def _renumber_processor(processor: dict[str, Any] | None, new: dict[int, int]) -> None:
    if processor is None:
        return
    for part in processor.get("processors", []):
        _renumber_processor(part, new)
    for token in processor.get("special_tokens", {}).values():
        token["ids"] = [new[i] for i in token["ids"]]
    for side in ("cls", "sep"):
        if side in processor:
            processor[side][1] = new[processor[side][1]]
