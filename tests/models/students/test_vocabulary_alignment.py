"""New vocabularies start at the teacher's embeddings of what their pieces spell or translate."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mlkd.errors import MlkdError
from mlkd.models.serialization import load_transformer
from mlkd.models.students.vocabulary import SPECIAL_TOKENS
from mlkd.models.students.vocabulary_alignment import aligned_embeddings, spelled_embeddings, translation_table

Pair = tuple[list[int], list[int]]
NUM_PIECES = 9
WORDPIECES = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "house", "dog", "red", "sun", "un", "##un", "##s", "##set", "s", "e",
    "##e", "##t", "t", "!", "7", "##7",
]  # fmt: skip
ENGLISH = {"haus": "house", "hund": "dog", "rot": "red", "sonne": "sun"}


def ids(*values: int) -> Any:
    return np.array(values, dtype=np.int32)


def as_arrays(pairs: Sequence[Pair]) -> list[tuple[Any, Any]]:
    return [(ids(*source), ids(*target)) for source, target in pairs]


def model_one(pairs: Sequence[Pair], iterations: int) -> dict[tuple[int, int], float]:
    """t(source | target) by IBM Model 1 as Brown et al. write it: word by word, starting from equal probabilities."""
    links = {(t, s) for source, target in pairs for s in source for t in [*target, 0]}
    table = dict.fromkeys(links, 1.0)
    for _ in range(iterations):
        count: dict[tuple[int, int], float] = defaultdict(float)
        total: dict[int, float] = defaultdict(float)
        for source, target in pairs:
            words = [*target, 0]
            for s in source:
                sum_over_words = sum(table[t, s] for t in words)
                for t in words:
                    count[t, s] += table[t, s] / sum_over_words
                    total[t] += table[t, s] / sum_over_words
        table = {link: count[link] / total[link[0]] for link in links}
    return table


side = st.lists(st.integers(1, NUM_PIECES - 1), max_size=5)


@given(st.lists(st.tuples(side, side), max_size=6), st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_the_table_is_that_of_model_one(pairs: list[Pair], iterations: int) -> None:
    expected = np.zeros((NUM_PIECES, NUM_PIECES))
    for (t, s), probability in model_one(pairs, iterations).items():
        expected[t, s] = probability
    table = translation_table(as_arrays(pairs), NUM_PIECES, iterations)
    np.testing.assert_allclose(table.toarray(), expected, rtol=0, atol=1e-9)
    row_sums = np.asarray(table.sum(axis=1)).ravel()
    occurring = {t for source, target in pairs if source for t in [*target, 0]}
    np.testing.assert_allclose(row_sums, [float(t in occurring) for t in range(NUM_PIECES)], rtol=0, atol=1e-9)


def test_two_sentences_by_hand() -> None:
    # "the house" - "das haus", "the" - "das": 2 the, 4 house, 3 das, 5 haus.
    pairs: list[Pair] = [([2, 4], [3, 5]), ([2], [3])]
    first = translation_table(as_arrays(pairs), 6, iterations=1).toarray()
    # Each source word is shared by its sentence's words and the empty one: thirds in the first, halves in the second.
    assert first[3, 2] == pytest.approx((1 / 3 + 1 / 2) / (2 / 3 + 1 / 2))
    assert first[5].tolist() == pytest.approx([0, 0, 0.5, 0, 0.5, 0])
    later = translation_table(as_arrays(pairs), 6, iterations=50).toarray()
    assert later[3, 2] > 0.95 and later[5, 4] > 0.95


def test_the_empty_word_takes_what_translates_nothing() -> None:
    # Piece 8 stands in every source sentence, whatever the translation.
    pairs: list[Pair] = [([8, s], [s + 4]) for s in (1, 2, 3)] * 3
    table = translation_table(as_arrays(pairs), NUM_PIECES, iterations=30).toarray()
    assert table[0].argmax() == 8 and table[0, 8] > 0.95
    assert all(table[s + 4].argmax() == s and table[s + 4, s] > 0.8 for s in (1, 2, 3))


def test_an_empty_corpus_has_an_empty_table() -> None:
    for pairs in ([], as_arrays([([], [3, 4])])):
        table = translation_table(pairs, 6)
        assert table.shape == (6, 6) and table.nnz == 0
    only_empty_word = translation_table(as_arrays([([3, 4], [])]), 6).toarray()
    assert only_empty_word[0].tolist() == pytest.approx([0, 0, 0, 0.5, 0.5, 0])
    assert only_empty_word[1:].max() == 0


@pytest.fixture(scope="module")
def wordpiece() -> Any:
    """The teacher's tokenizer, with pieces that begin words and pieces that go on."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordPiece({p: i for i, p in enumerate(WORDPIECES)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]",
    )  # fmt: skip


@pytest.fixture(scope="module")
def make_vocabulary() -> Callable[..., Any]:
    """A student's tokenizer of given pieces behind the special ones."""

    def make(*pieces: str) -> Any:
        from tokenizers import Tokenizer, models, pre_tokenizers
        from transformers import PreTrainedTokenizerFast

        scored = [(piece, -float(i)) for i, piece in enumerate([*SPECIAL_TOKENS, *pieces])]
        tokenizer = Tokenizer(models.Unigram(scored, unk_id=SPECIAL_TOKENS.index("<unk>"), byte_fallback=False))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
        return PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, pad_token="<pad>", cls_token="<s>", sep_token="</s>", unk_token="<unk>",
            mask_token="<mask>",
        )  # fmt: skip

    return make


@pytest.fixture(scope="module")
def teacher_WH() -> Tensor:  # noqa: N802
    return torch.randn(len(WORDPIECES), 6, generator=torch.Generator().manual_seed(0))


def mean_of(teacher_WH: Tensor, *pieces: str) -> Tensor:
    return teacher_WH[[WORDPIECES.index(piece) for piece in pieces]].mean(dim=0)


@pytest.mark.parametrize(
    ("piece", "spelling"),
    [
        ("▁house", ["house"]),
        ("▁HOUSE", ["house"]),  # the teacher lower-cases
        ("▁sunset", ["sun", "##set"]),  # the mean of what the teacher splits it into
        ("un", ["##un"]),  # inside a word, the piece that goes on
        ("▁un", ["un"]),
        ("se", ["##s", "##e"]),  # the teacher has no ##se; the first of its parts does not begin a word either
        ("dog", ["dog"]),  # no piece goes on so
        ("!", ["!"]),
        ("▁!", ["!"]),
        ("7", ["##7"]),
        ("▁7", ["7"]),
    ],
)
def test_pieces_start_as_their_spelling(
    wordpiece: Any, make_vocabulary: Callable[..., Any], teacher_WH: Tensor, piece: str, spelling: list[str]
) -> None:
    vectors, known = spelled_embeddings(make_vocabulary(piece), wordpiece, teacher_WH)
    assert bool(known[-1])
    torch.testing.assert_close(vectors[-1], mean_of(teacher_WH, *spelling), rtol=0, atol=1e-6)


@pytest.mark.parametrize("piece", ["▁", "▁жук", "ж"])
def test_unknown_spellings_are_zero(
    wordpiece: Any, make_vocabulary: Callable[..., Any], teacher_WH: Tensor, piece: str
) -> None:
    vectors, known = spelled_embeddings(make_vocabulary(piece), wordpiece, teacher_WH)
    assert not known[-1] and vectors[-1].abs().max() == 0


def test_special_tokens_start_as_the_teachers(
    wordpiece: Any, make_vocabulary: Callable[..., Any], teacher_WH: Tensor
) -> None:
    vectors, known = spelled_embeddings(make_vocabulary("▁dog"), wordpiece, teacher_WH)
    roles = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]  # in the order of <pad> <s> </s> <unk> <mask>
    assert torch.equal(vectors[:5], teacher_WH[[WORDPIECES.index(role) for role in roles]])
    assert known.all()


def lexicon_corpus(tokenizer: Any, count: int = 60) -> list[tuple[Any, Any]]:
    """Pairs of two or three English words with their translations in another order, and a full stop."""
    rng = random.Random(0)

    def piece_ids(words: Sequence[str]) -> Any:
        return ids(*(tokenizer.convert_tokens_to_ids(f"▁{word}") for word in words))

    pairs = []
    for _ in range(count):
        foreign = rng.sample(sorted(ENGLISH), rng.choice([1, 2, 3]))
        pairs.append((piece_ids([ENGLISH[word] for word in foreign] + ["!"]), piece_ids([*foreign[::-1], "!"])))
    return pairs


@pytest.fixture
def lexicon(make_vocabulary: Callable[..., Any]) -> Any:
    words = [*ENGLISH, *ENGLISH.values(), "!", "жук", "taxi"]
    return make_vocabulary(*(f"▁{word}" for word in words))


def start_of(vectors: Tensor, tokenizer: Any, word: str) -> Tensor:
    return vectors[tokenizer.convert_tokens_to_ids(f"▁{word}")]


def test_a_translation_starts_as_the_only_word_it_is_aligned_with(
    lexicon: Any, wordpiece: Any, teacher_WH: Tensor
) -> None:
    pairs = [tuple(ids(lexicon.convert_tokens_to_ids(f"▁{word}")) for word in pair[::-1]) for pair in ENGLISH.items()]
    vectors = aligned_embeddings(pairs, lexicon, wordpiece, teacher_WH)
    assert vectors.shape == (len(lexicon), 6) and vectors.dtype == torch.float32
    for foreign, english in ENGLISH.items():
        torch.testing.assert_close(start_of(vectors, lexicon, foreign), mean_of(teacher_WH, english), rtol=0, atol=1e-6)


def test_sentences_in_another_order_align_their_words(lexicon: Any, wordpiece: Any, teacher_WH: Tensor) -> None:
    vectors = aligned_embeddings(lexicon_corpus(lexicon), lexicon, wordpiece, teacher_WH)
    for foreign, english in ENGLISH.items():
        likeness = torch.cosine_similarity(start_of(vectors, lexicon, foreign)[None], teacher_WH)
        assert WORDPIECES[int(likeness.argmax())] == english
        assert likeness.max() > 0.95


def test_source_words_and_punctuation_keep_their_spelling(lexicon: Any, wordpiece: Any, teacher_WH: Tensor) -> None:
    vectors = aligned_embeddings(lexicon_corpus(lexicon), lexicon, wordpiece, teacher_WH)
    for word in [*ENGLISH.values(), "!"]:
        torch.testing.assert_close(start_of(vectors, lexicon, word), mean_of(teacher_WH, word), rtol=0, atol=1e-6)


def test_a_shared_word_keeps_its_spelling_although_it_is_aligned(
    make_vocabulary: Callable[..., Any], wordpiece: Any, teacher_WH: Tensor
) -> None:
    tokenizer = make_vocabulary("▁sun", "▁dog")
    sun, dog = (tokenizer.convert_tokens_to_ids(p) for p in ("▁sun", "▁dog"))
    both_sides = [(ids(sun), ids(dog)), (ids(dog), ids(sun))] * 5  # each word on both sides, always aligned wrongly
    vectors = aligned_embeddings(both_sides, tokenizer, wordpiece, teacher_WH)
    torch.testing.assert_close(vectors[sun], mean_of(teacher_WH, "sun"), rtol=0, atol=1e-6)
    # A false friend, never in a source sentence: the alignment wins over the spelling.
    vectors = aligned_embeddings([(ids(sun), ids(dog))] * 5, tokenizer, wordpiece, teacher_WH)
    torch.testing.assert_close(vectors[dog], mean_of(teacher_WH, "sun"), rtol=0, atol=1e-6)
    # Mostly a translation, sometimes a source word: in between, by how often.
    mixed = [(ids(sun), ids(dog))] * 3 + [(ids(dog), ids(sun))]
    vectors = aligned_embeddings(mixed, tokenizer, wordpiece, teacher_WH)
    expected = 0.25 * mean_of(teacher_WH, "dog") + 0.75 * mean_of(teacher_WH, "sun")
    torch.testing.assert_close(vectors[dog], expected, rtol=0, atol=1e-6)


def test_what_has_no_letters_keeps_its_spelling_although_only_translations_hold_it(
    make_vocabulary: Callable[..., Any], wordpiece: Any, teacher_WH: Tensor
) -> None:
    tokenizer = make_vocabulary("▁sun", "!", "▁7")
    sun, mark, seven = (tokenizer.convert_tokens_to_ids(p) for p in ("▁sun", "!", "▁7"))
    vectors = aligned_embeddings([(ids(sun), ids(mark, seven))] * 5, tokenizer, wordpiece, teacher_WH)
    for piece, spelling in ((mark, "!"), (seven, "7")):
        torch.testing.assert_close(vectors[piece], mean_of(teacher_WH, spelling), rtol=0, atol=1e-6)


def test_a_piece_aligned_with_two_words_starts_between_them(
    make_vocabulary: Callable[..., Any], wordpiece: Any, teacher_WH: Tensor
) -> None:
    tokenizer = make_vocabulary("▁sun", "▁dog", "▁жук")
    sun, dog, beetle = (tokenizer.convert_tokens_to_ids(p) for p in ("▁sun", "▁dog", "▁жук"))
    pairs = [(ids(sun), ids(beetle))] * 3 + [(ids(dog), ids(beetle))]
    vectors = aligned_embeddings(pairs, tokenizer, wordpiece, teacher_WH)
    expected = 0.75 * mean_of(teacher_WH, "sun") + 0.25 * mean_of(teacher_WH, "dog")
    torch.testing.assert_close(vectors[beetle], expected, rtol=0, atol=1e-6)


def test_what_nothing_explains_starts_at_the_average_word(lexicon: Any, wordpiece: Any, teacher_WH: Tensor) -> None:
    vectors = aligned_embeddings(lexicon_corpus(lexicon), lexicon, wordpiece, teacher_WH)
    torch.testing.assert_close(start_of(vectors, lexicon, "жук"), teacher_WH.mean(dim=0), rtol=0, atol=1e-6)
    assert torch.isfinite(vectors).all()


def test_inputs_are_left_alone_and_the_result_is_the_same_again(
    lexicon: Any, wordpiece: Any, teacher_WH: Tensor
) -> None:
    pairs, before = lexicon_corpus(lexicon), teacher_WH.clone()
    first = aligned_embeddings(pairs, lexicon, wordpiece, teacher_WH)
    assert torch.equal(aligned_embeddings(pairs, lexicon, wordpiece, teacher_WH), first)
    assert torch.equal(teacher_WH, before)
    for (source, target), (source_again, target_again) in zip(pairs, lexicon_corpus(lexicon), strict=True):
        assert source.tolist() == source_again.tolist() and target.tolist() == target_again.tolist()


def test_a_corpus_without_pairs_says_so(tiny_bert: Path) -> None:
    backbone, tokenizer = load_transformer(tiny_bert)
    with pytest.raises(MlkdError) as caught:
        aligned_embeddings([], tokenizer, tokenizer, backbone.get_input_embeddings().weight)
    (problem,) = caught.value.problems
    assert problem.code == "E303" and "no sentence pairs" in problem.what and problem.remedy
