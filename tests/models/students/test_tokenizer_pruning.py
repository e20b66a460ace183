"""Fewer pieces segment text of the kept pieces as all of them did, whatever the kind of tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlkd.errors import MlkdError
from mlkd.models.students.tokenizer_pruning import PrunableVocabulary

LATIN = frozenset({"Latin"})


@pytest.fixture(scope="session")
def tokenizers(
    tiny_bert: Path, tiny_xlmr: Path, unigram_pieces: list[tuple[str, float]], corpus_texts: list[str]
) -> dict[str, Any]:
    """One trained tokenizer of each kind."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    wordpiece = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    wordpiece.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    wordpiece.train_from_iterator(corpus_texts, trainers.WordPieceTrainer(vocab_size=500, special_tokens=special))
    ids = {token: wordpiece.token_to_id(token) for token in special}
    wordpiece.post_processor = processors.BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    names = dict(zip(["pad_token", "unk_token", "cls_token", "sep_token"], special, strict=True))

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    bpe.decoder = decoders.ByteLevel()
    controls = ["<s>", "<pad>", "</s>", "<unk>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        corpus_texts, trainers.BpeTrainer(vocab_size=600, special_tokens=controls, initial_alphabet=alphabet)
    )
    bpe.post_processor = processors.Sequence(
        [processors.ByteLevel(trim_offsets=False), processors.RobertaProcessing(("</s>", 2), ("<s>", 0))]
    )
    roberta = dict(zip(["bos_token", "pad_token", "eos_token", "unk_token"], controls, strict=True))
    return {
        "WordPiece": PreTrainedTokenizerFast(tokenizer_object=wordpiece, **names),
        "Unigram": AutoTokenizer.from_pretrained(tiny_xlmr),
        "BPE": PreTrainedTokenizerFast(tokenizer_object=bpe, **roberta),
    }


def ids_of(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    return list(tokenizer(texts, verbose=False)["input_ids"])


def choose(
    tokenizer: Any, texts: list[str], scripts: frozenset[str] = LATIN
) -> tuple[PrunableVocabulary, Any, list[int]]:
    pieces = PrunableVocabulary(tokenizer)
    kept = pieces.always(scripts, up_to_padding=False)
    for row in ids_of(tokenizer, texts):
        for piece in row:
            kept |= pieces.needed_by(piece)
    ids = sorted(kept)
    return pieces, pieces.without_others(np.array(ids)), ids


@pytest.mark.parametrize("kind", ["WordPiece", "Unigram", "BPE"])
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_text_of_kept_pieces_is_segmented_as_before(
    tokenizers: dict[str, Any], corpus_texts: list[str], sentences: list[str], kind: str, data: st.DataObject
) -> None:
    seen = data.draw(st.lists(st.sampled_from(corpus_texts), min_size=1, max_size=40, unique=True))
    tokenizer = tokenizers[kind]
    pieces, trimmed, kept = choose(tokenizer, seen)
    assert pieces.kind == kind
    assert len(trimmed) == len(kept) < len(tokenizer)
    assert trimmed.convert_ids_to_tokens(range(len(kept))) == tokenizer.convert_ids_to_tokens(kept)
    new = {old: i for i, old in enumerate(kept)}
    texts = [*seen, *corpus_texts[::4], *sentences]
    for text, before, after in zip(texts, ids_of(tokenizer, texts), ids_of(trimmed, texts), strict=True):
        if text in seen or all(piece in new for piece in before):
            assert after == [new[piece] for piece in before], text


@pytest.mark.parametrize("kind", ["WordPiece", "Unigram", "BPE"])
def test_words_of_pieces_that_went_are_still_spelled(
    tokenizers: dict[str, Any], corpus_texts: list[str], sentences: list[str], kind: str
) -> None:
    tokenizer = tokenizers[kind]
    _, trimmed, _ = choose(tokenizer, corpus_texts[:5], frozenset({"Latin", "Cyrillic"}))
    rows = ids_of(trimmed, sentences)
    assert sum(map(len, rows)) > sum(map(len, ids_of(tokenizer, sentences)))  # in smaller pieces
    assert not any(trimmed.unk_token_id in row for row in rows)


def test_letters_of_other_scripts_go_and_other_characters_stay(tokenizers: dict[str, Any]) -> None:
    for kind, words in (("WordPiece", ["a", "##a", "д", "##д", "7", "##2"]), ("Unigram", ["a", "ü", "д", "7", "."])):
        pieces, _, kept = choose(tokenizers[kind], ["la"])
        stayed = {word for word in words if pieces.ids[word] in kept}
        assert stayed == {word for word in words if "д" not in word}


def test_an_unknown_character_costs_what_it_did() -> None:
    """It costs the lowest score and 10 more; were it cheaper, op + unknown + qr would win once ж is gone."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    scores = {"<unk>": 0.0, "<pad>": 0.0, "ж": -100.0, "ы": -50.0, "op": -0.1, "qr": -0.1, "pжq": -10.0}
    scores |= dict.fromkeys("opqr", -10.0)
    backend = Tokenizer(models.Unigram(list(scores.items()), unk_id=0))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", pad_token="<pad>")
    assert tokenizer.tokenize("opжqr") == ["o", "pжq", "r"]
    _, trimmed, _ = choose(tokenizer, ["opжqr", "op", "qr"])
    assert "ы" not in trimmed.get_vocab()
    assert trimmed.tokenize("opжqr") == ["o", "pжq", "r"]


def test_control_pieces_keep_their_meaning(tokenizers: dict[str, Any], sentences: list[str]) -> None:
    for tokenizer in tokenizers.values():
        _, trimmed, _ = choose(tokenizer, ["la"])
        assert trimmed.special_tokens_map == tokenizer.special_tokens_map
        for pair in (("la", None), ("la", "la la")):
            before, after = tokenizer(*pair)["input_ids"], trimmed(*pair)["input_ids"]
            assert trimmed.convert_ids_to_tokens(after) == tokenizer.convert_ids_to_tokens(before)
        assert trimmed.model_max_length == tokenizer.model_max_length
        assert trimmed.model_input_names == tokenizer.model_input_names


def test_ids_up_to_paddings_stay_where_positions_count_from_it(tokenizers: dict[str, Any]) -> None:
    tokenizer = tokenizers["BPE"]
    tokenizer.pad_token, before = "Ġb", tokenizer.pad_token
    try:
        kept = PrunableVocabulary(tokenizer).always(LATIN, up_to_padding=True)
        assert tokenizer.pad_token_id > 200
        assert set(range(tokenizer.pad_token_id + 1)) <= kept
    finally:
        tokenizer.pad_token = before


def test_every_merge_on_the_way_to_a_kept_piece_stays(tokenizers: dict[str, Any]) -> None:
    pieces = PrunableVocabulary(tokenizers["BPE"])
    longest = max(pieces.ids, key=len)
    needed = tokenizers["BPE"].convert_ids_to_tokens(sorted(pieces.needed_by(pieces.ids[longest])))
    assert longest in needed and len(needed) > 1
    assert all(len(piece) == 1 or piece in longest for piece in needed)
    pairs = {a + b for a, b in (tuple(m) for m in pieces.model["merges"])}
    assert all(piece in pairs for piece in needed)


@pytest.mark.parametrize("kind", ["template", "bert", "roberta", "sequence"])
def test_whole_words_under_control_pieces_with_high_ids(kind: str) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["cat", "dog", "sun", "<pad>", "<unk>", "<s>", "</s>"]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    template = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 5), ("</s>", 6)])
    backend.post_processor = {
        "template": template,
        "bert": processors.BertProcessing(("</s>", 6), ("<s>", 5)),
        "roberta": processors.RobertaProcessing(("</s>", 6), ("<s>", 5)),
        "sequence": processors.Sequence([processors.ByteLevel(), template]),
    }[kind]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", unk_token="<unk>")
    assert ids_of(tokenizer, ["cat dog sun"]) == [[5, 0, 1, 2, 6]]
    _, trimmed, kept = choose(tokenizer, ["sun cat"])
    assert kept == [0, 2, 3, 4, 5, 6]
    assert ids_of(trimmed, ["cat dog sun"]) == [[4, 0, 3, 1, 5]]


def test_a_tokenizer_of_another_kind_is_refused() -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE({"a": 0, "b": 1, "ab</w>": 2}, [], end_of_word_suffix="</w>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="a")
    with pytest.raises(MlkdError) as caught:
        PrunableVocabulary(tokenizer)
    (problem,) = caught.value.problems
    assert (problem.code, problem.where) == ("E408", "student.trimming")
    assert "BPE with end_of_word_suffix" in problem.what
