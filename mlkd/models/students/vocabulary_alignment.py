"""Vocabulary alignment: new embeddings start at the teacher's, by the aligned words of the parallel corpus.

A piece of the new vocabulary that occurs in source sentences starts as the teacher's embedding of its spelling. A piece
that occurs in translations starts as the average of the source pieces it is aligned with. The teacher's transformer
then reads a translation much as a word-by-word gloss of it.

Source: IBM Model 1 (Brown et al. 1993, section 4); embeddings by alignment as in trans-tokenization (Remy et al. 2024).

Shapes: V pieces, W pieces of the teacher, H hidden dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlkd.errors import fail

Ids = np.ndarray[Any, np.dtype[np.int32]]
Floats = np.ndarray[Any, np.dtype[np.float64]]
NO_WORD = 0  # the padding piece stands in for IBM Model 1's empty word
ITERATIONS = 6
MIN_PROBABILITY = 0.05
# A piece at least this often in source sentences is a source word, whatever it is aligned with.
SOURCE_SHARE = 0.35


def translation_table(pairs: Sequence[tuple[Ids, Ids]], num_pieces: int, iterations: int = ITERATIONS) -> Any:
    """t(source piece | target piece) by expectation maximisation over all links inside each sentence pair.

    Args:
        pairs: (source ids, target ids) of each sentence pair, without control pieces.
        num_pieces: V.
        iterations: of expectation and maximisation.

    Returns:
        scipy CSR matrix (V, V): row = target piece, column = source piece; each row that occurs sums to 1.

    >>> pairs = [(np.array([2]), np.array([3])), (np.array([2, 4]), np.array([3, 5]))] * 9
    >>> bool(translation_table(pairs, 6, iterations=20)[5, 4] > 0.8)
    True
    """
    from scipy.sparse import csr_matrix

    link_parts, word_parts, num_words = [], [], 0
    for source, target in pairs:
        with_empty = np.append(target.astype(np.int64), NO_WORD)
        link_parts.append((with_empty[None, :] * num_pieces + source.astype(np.int64)[:, None]).ravel())
        word_parts.append(np.repeat(np.arange(num_words, num_words + len(source), dtype=np.int32), len(with_empty)))
        num_words += len(source)
    if not num_words:
        return csr_matrix((num_pieces, num_pieces))
    word = np.concatenate(word_parts)
    distinct, link = np.unique(np.concatenate(link_parts), return_inverse=True)
    target_piece, source_piece = distinct // num_pieces, distinct % num_pieces
    probability = np.ones(len(distinct))
    for _ in range(iterations):
        # Each source word distributes one count over the words it may stand for.
        weight = probability[link]
        weight /= np.bincount(word, weight, num_words)[word]
        count = np.bincount(link, weight, len(distinct))
        probability = count / np.bincount(target_piece, count, num_pieces)[target_piece]
    return csr_matrix((probability, (target_piece, source_piece)), shape=(num_pieces, num_pieces))


def spelled_embeddings(tokenizer: Any, teacher_tokenizer: Any, teacher_WH: Tensor) -> tuple[Tensor, Tensor]:
    """The teacher's embedding of each piece's spelling, the mean where the teacher splits it.

    Returns:
        (V, H), zero where the teacher does not know the spelling, and bool (V,), True where it does.
    """
    pieces = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    vocabulary = teacher_tokenizer.get_vocab()
    unknown = teacher_tokenizer.unk_token_id
    result = torch.zeros(len(pieces), teacher_WH.shape[1])
    known = torch.zeros(len(pieces), dtype=torch.bool)
    spelled = teacher_tokenizer([p.replace("▁", "") for p in pieces], add_special_tokens=False)["input_ids"]
    for i, (piece, start) in enumerate(zip(pieces, spelled, strict=True)):
        ids = [j for j in _inside_word(piece, start, teacher_tokenizer, vocabulary) if j != unknown]
        if ids:
            result[i] = teacher_WH[ids].mean(dim=0)
            known[i] = True
    for name in ("pad", "cls", "sep", "unk", "mask"):
        mine, theirs = getattr(tokenizer, f"{name}_token_id"), getattr(teacher_tokenizer, f"{name}_token_id")
        if mine is not None and theirs is not None:
            result[mine], known[mine] = teacher_WH[theirs], True
    return result, known


def _inside_word(piece: str, ids: list[int], teacher_tokenizer: Any, vocabulary: dict[str, int]) -> list[int]:
    """The teacher's ids of a piece; WordPiece marks what does not begin a word with ##."""
    if not ids or piece.startswith("▁") or not piece[0].isalnum():
        return ids
    if "##" + piece in vocabulary:
        return [vocabulary["##" + piece]]
    first = "##" + teacher_tokenizer.convert_ids_to_tokens(ids[0])
    return [vocabulary.get(first, ids[0]), *ids[1:]]


def aligned_embeddings(
    pairs: Sequence[tuple[Ids, Ids]], tokenizer: Any, teacher_tokenizer: Any, teacher_WH: Tensor
) -> Tensor:
    """Embeddings (V, H) for the pieces of `tokenizer`.

    Args:
        pairs: (source ids, target ids) of the corpus, without control pieces.
        tokenizer: of the new vocabulary.
        teacher_tokenizer: of the teacher.
        teacher_WH: the teacher's token embeddings.

    Raises:
        MlkdError: E303 for no pairs.
    """
    from scipy.sparse import csr_matrix

    if not pairs:
        raise fail(
            "E303",
            "there are no sentence pairs to align the student's vocabulary on",
            remedy="check data.languages and the filters of data, or take student=thin_deep",
        )
    num_pieces = len(tokenizer)
    spelled_VH, known_V = spelled_embeddings(tokenizer, teacher_tokenizer, teacher_WH)
    known = known_V.numpy()
    table = translation_table(pairs, num_pieces).tocoo()
    kept = (table.data >= MIN_PROBABILITY) & known[table.col] & (table.row != NO_WORD)
    weights = csr_matrix((table.data[kept], (table.row[kept], table.col[kept])), shape=table.shape)
    mass_V = torch.from_numpy(np.asarray(weights.sum(axis=1)).ravel()).float()
    glossed_VH = torch.from_numpy(weights @ spelled_VH.numpy()).float() / mass_V.clamp(min=1e-9)[:, None]
    share_V = _source_shares(pairs, tokenizer, known_V, mass_V > 0)
    result: Tensor = share_V[:, None] * spelled_VH + (1 - share_V)[:, None] * glossed_VH
    # What neither spelling nor alignment explains starts at the average word.
    result[~known_V & ~(mass_V > 0)] = teacher_WH.mean(dim=0)
    return result


def _source_shares(pairs: Sequence[tuple[Ids, Ids]], tokenizer: Any, known_V: Tensor, aligned_V: Tensor) -> Tensor:
    """How far each piece is a source word, (V,) in [0, 1]; pieces without letters mean the same everywhere."""
    num_pieces = len(tokenizer)
    in_source = np.bincount(np.concatenate([s for s, _ in pairs]), minlength=num_pieces)
    in_target = np.bincount(np.concatenate([t for _, t in pairs]), minlength=num_pieces)
    share_V = torch.from_numpy(in_source / np.maximum(in_source + in_target, 1)).float()
    pieces = tokenizer.convert_ids_to_tokens(list(range(num_pieces)))
    no_letters_V = torch.tensor([not any(c.isalpha() for c in p) for p in pieces])
    spelled_V = known_V & ((share_V > SOURCE_SHARE) | no_letters_V | ~aligned_V)
    share_V[spelled_V] = 1.0
    share_V[~known_V] = 0.0
    return share_V
