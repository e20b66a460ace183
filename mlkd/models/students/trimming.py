"""Vocabulary trimming: a pretrained student without the pieces that its run never uses; the same vectors.

What stays is what the corpus uses, and always control pieces and the single characters of the corpus' scripts, so that
every word of its languages can still be spelled. Text whose pieces all stay keeps its tokens and so its vector.

Source: vocabulary reduction as in Abdaoui et al. 2020, "Load What You Need: Smaller Versions of Multilingual BERT".

Shapes: V pieces, H hidden dimensions.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import nn

from mlkd.data.formats.compression import find_missing
from mlkd.data.formats.tsv import read_lines
from mlkd.data.languages import script_of
from mlkd.errors import MlkdError, fail, out_of_range
from mlkd.models.students.tokenizer_pruning import POSITIONS_FROM_PADDING, SPECIAL_NAMES, Ids, PrunableVocabulary
from mlkd.models.tokenization import tokenize_texts

log = logging.getLogger("mlkd")
BLOCK_TEXTS = 4096
CHECKED_TEXTS = 500
# A script of fewer than one letter in so many is a stray name or a quotation, not one of the corpus' own.
MIN_SCRIPT_SHARE = 1e-4


@dataclass(kw_only=True, slots=True)
class Trimming:
    """How a pretrained student's vocabulary is cut down to what its corpus uses.

    Args:
        enabled: whether it is.
        min_count: a piece stays where the corpus has it at least so often.
        max_pieces: the most frequent ones stay until there are so many, control pieces and characters included; None
            for no bound.
        texts: more text files (one text a line, plain or compressed) whose pieces count, e.g. of a language or a
            subject that the student will meet later.
    """

    enabled: bool = False
    min_count: int = 1
    max_pieces: int | None = None
    texts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        problems = out_of_range(self, "min_count", "max_pieces", ge=1)
        if problems:
            raise MlkdError(problems)

    def check_files(self) -> None:
        """Raise E301 for each text file that is not there."""
        missing = [problem for path in self.texts if self.enabled and (problem := find_missing(path))]
        if missing:
            raise MlkdError(missing)

    def apply(
        self,
        backbone: Any,
        tokenizer: Any,
        texts: Sequence[str],
        held_out: Sequence[str] = (),
        *,
        lower_case: bool = False,
    ) -> Any:
        """Cut `backbone`'s embedding in place; log what stayed and how much of `held_out` is tokenised as before.

        Args:
            backbone: a transformer whose token embedding has a row for each id of `tokenizer`.
            tokenizer: its fast tokenizer; not changed.
            texts: the corpus.
            held_out: texts to measure coverage on.
            lower_case: whether the model reads its texts lower-cased.

        Returns:
            The tokenizer of the pieces that stayed, numbered anew in their old order.

        Raises:
            MlkdError: E204 where max_pieces is too few, E408 for a tokenizer that cannot be trimmed.
        """
        pieces = PrunableVocabulary(tokenizer)
        counts_V, scripts = self._count(tokenizer, texts, lower_case)
        up_to_padding = backbone.config.model_type in POSITIONS_FROM_PADDING
        kept = self._choose(pieces, counts_V, pieces.always(scripts, up_to_padding=up_to_padding))
        trimmed = pieces.without_others(kept)
        sample = texts[:: max(1, len(texts) // CHECKED_TEXTS)][:CHECKED_TEXTS]
        check_same_tokens(tokenizer, trimmed, kept, sample, lower_case=lower_case)
        log.info("vocabulary trimmed to %s of %s pieces", f"{len(kept):,}", f"{len(tokenizer):,}")
        if held_out:
            share = coverage(tokenizer, trimmed, kept, held_out, lower_case=lower_case)
            log.info("%.1f %% of %s held-out texts are tokenised as before", 100 * share, f"{len(held_out):,}")
        keep_rows(backbone, kept, tokenizer)
        return trimmed

    def _count(self, tokenizer: Any, texts: Sequence[str], lower_case: bool) -> tuple[Ids, frozenset[str]]:
        """How often each piece occurs (V,), and the scripts of the letters."""
        counts_V = np.zeros(len(tokenizer), dtype=np.int64)
        characters: Counter[str] = Counter()
        for block in self._blocks(texts):
            rows = tokenize_texts(tokenizer, block, lower_case=lower_case, special_tokens=False)
            counts_V += np.bincount(np.concatenate(rows), minlength=len(counts_V))
            for text in block:
                characters.update(text)
        letters: Counter[str] = Counter()
        for character, count in characters.items():
            script = script_of(character)
            if script is not None:
                letters[script] += count
        enough = MIN_SCRIPT_SHARE * letters.total()
        return counts_V, frozenset(script for script, count in letters.items() if count >= enough)

    def _blocks(self, texts: Sequence[str]) -> Iterator[list[str]]:
        for source in (texts, *(read_lines(path).lines for path in self.texts)):
            stream = iter(source)
            while block := list(islice(stream, BLOCK_TEXTS)):
                yield block

    def _choose(self, pieces: PrunableVocabulary, counts_V: Ids, kept: set[int]) -> Ids:
        """Ids that stay, rising: `kept` (which grows), then the most frequent."""
        if self.max_pieces is not None and len(kept) > self.max_pieces:
            raise fail(
                "E204",
                f"must be at least {len(kept):,}, the control pieces and single characters that always stay "
                f"(got {self.max_pieces:,})",
                where="student.trimming.max_pieces",
            )
        for piece_id in np.argsort(-counts_V, kind="stable"):
            if counts_V[piece_id] < self.min_count:
                break
            more = pieces.needed_by(int(piece_id)) - kept
            if self.max_pieces is not None and len(kept) + len(more) > self.max_pieces:
                break
            kept |= more
        return np.array(sorted(kept), dtype=np.int64)


def coverage(tokenizer: Any, trimmed: Any, kept: Ids, texts: Sequence[str], *, lower_case: bool = False) -> float:
    """Share of `texts` that `trimmed` gives the same pieces as `tokenizer`, in [0, 1]."""
    return float(np.mean([same for same, _ in _compare(tokenizer, trimmed, kept, texts, lower_case)]))


def check_same_tokens(
    tokenizer: Any, trimmed: Any, kept: Ids, texts: Sequence[str], *, lower_case: bool = False
) -> None:
    """Raise E408 where a text whose pieces all stayed has other tokens now."""
    changed = sum(covered and not same for same, covered in _compare(tokenizer, trimmed, kept, texts, lower_case))
    if changed:
        raise fail(
            "E408",
            f"trimming would change the tokens of {changed} of {len(texts)} texts whose pieces all stay",
            where="student.trimming",
            remedy="set student.trimming.enabled=false: this tokenizer does more than its vocabulary says",
        )


def _compare(
    tokenizer: Any, trimmed: Any, kept: Ids, texts: Sequence[str], lower_case: bool
) -> Iterator[tuple[bool, bool]]:
    """Of each text: whether its tokens are the same, and whether all its pieces stayed."""
    new_V = np.full(len(tokenizer), -1, dtype=np.int64)
    new_V[kept] = np.arange(len(kept))
    before = tokenize_texts(tokenizer, texts, lower_case=lower_case)
    after = tokenize_texts(trimmed, texts, lower_case=lower_case)
    for old, new in zip(before, after, strict=True):
        yield np.array_equal(new_V[old], new), bool((new_V[old] >= 0).all())


def keep_rows(backbone: Any, kept: Ids, tokenizer: Any) -> None:
    """Give `backbone` the embedding rows `kept` alone, and its config the new numbers.

    Args:
        backbone: changed in place.
        kept: rising ids, the padding piece's among them.
        tokenizer: before trimming.
    """
    old = backbone.get_input_embeddings()
    new = {int(piece): i for i, piece in enumerate(kept)}
    rows = torch.from_numpy(kept)
    embedding = nn.Embedding(len(kept), old.embedding_dim, padding_idx=new[tokenizer.pad_token_id])
    embedding.load_state_dict({"weight": old.weight.detach()[rows]})
    backbone.set_input_embeddings(embedding)
    backbone.config.vocab_size = len(kept)
    for name in SPECIAL_NAMES:
        number = getattr(backbone.config, f"{name}_token_id", None)
        if number is not None:
            setattr(backbone.config, f"{name}_token_id", new.get(number))
