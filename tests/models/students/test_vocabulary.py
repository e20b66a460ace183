"""A vocabulary trained on a small corpus segments like SentencePiece and keeps control tokens out of text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlkd.errors import MlkdError
from mlkd.models.students.vocabulary import SPECIAL_TOKENS, Vocabulary, check_same_segmentation, to_fast_tokenizer

SMALL = Vocabulary(size=400, character_coverage=1.0)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def tokenizer(cache: Path, corpus_texts: list[str]) -> Any:
    return SMALL.open_or_train(cache, corpus_texts, max_length=32)


@pytest.fixture(scope="module")
def proto(tokenizer: Any, cache: Path) -> bytes:
    (path,) = (cache / "vocabularies").iterdir()
    return path.read_bytes()


def ids(tokenizer: Any, text: str, **options: Any) -> list[int]:
    return tokenizer(text, split_special_tokens=True, **options)["input_ids"]


def test_the_tokenizer_frames_texts_and_has_the_size_asked_for(tokenizer: Any, corpus_texts: list[str]) -> None:
    assert len(tokenizer) == 400
    assert tokenizer.model_max_length == 32
    assert tokenizer.convert_ids_to_tokens([0, 1, 2, 3]) == ["<pad>", "<s>", "</s>", "<unk>"]
    assert sorted(tokenizer.all_special_ids) == sorted(tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)))
    row = ids(tokenizer, corpus_texts[0])
    assert (row[0], row[-1]) == (1, 2)
    assert tokenizer.decode(row[1:-1]) == corpus_texts[0]


def test_held_out_text_is_segmented_as_sentencepiece_does(tokenizer: Any, proto: bytes, sentences: list[str]) -> None:
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_proto=proto)
    texts = [
        *sentences,
        *(s.upper() for s in sentences[:10]),
        "  two  spaces\tand a tab ",
        "ｆｕｌｌ ｗｉｄｔｈ ½ ﬁ",
        "never seen: ζωή 日本 🙂",
        "a\u00a0b\u200bc",
        "",
        "▁ literal",
    ]
    for text in texts:
        assert ids(tokenizer, text, add_special_tokens=False) == processor.encode(text), repr(text)


@pytest.mark.parametrize("control", SPECIAL_TOKENS)
def test_a_control_token_in_a_text_is_text(tokenizer: Any, control: str) -> None:
    forbidden = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    for text in (f"bei {control} sta", control, f"{control}{control}", f"b{control}b"):
        row = ids(tokenizer, text, add_special_tokens=False)
        assert row and not set(row) & forbidden, text


def test_a_control_token_in_the_corpus_does_not_enter_the_vocabulary_twice(
    tmp_path: Path, corpus_texts: list[str]
) -> None:
    texts = [*corpus_texts, *(f"{text} </s> <mask> <s>" for text in corpus_texts[:5])]
    tokenizer = SMALL.open_or_train(tmp_path, texts, max_length=32)
    assert len(set(tokenizer.get_vocab())) == 400
    assert not set(ids(tokenizer, texts[-1], add_special_tokens=False)) & {0, 1, 2, tokenizer.mask_token_id}


def test_case_is_folded_on_request(tokenizer: Any, tmp_path: Path, corpus_texts: list[str]) -> None:
    folding = Vocabulary(size=300, character_coverage=1.0, fold_case=True)
    folded = folding.open_or_train(tmp_path, corpus_texts, max_length=32)
    text = "Schei Kran DÜST ДУ"
    assert ids(folded, text) == ids(folded, text.lower())
    assert ids(tokenizer, text) != ids(tokenizer, text.lower())


def test_a_vocabulary_in_the_cache_is_not_trained_again(
    cache: Path, tokenizer: Any, corpus_texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object) -> bytes:
        raise AssertionError("trained again")

    monkeypatch.setattr(Vocabulary, "_train_sentencepiece", forbidden)
    again = SMALL.open_or_train(cache, [*reversed(corpus_texts), corpus_texts[0]], max_length=32)
    assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()
    for texts, vocabulary in [
        (corpus_texts[1:], SMALL),
        (corpus_texts, Vocabulary(size=401, character_coverage=1.0)),
        (corpus_texts, Vocabulary(size=400, character_coverage=1.0, fold_case=True)),
    ]:
        with pytest.raises(AssertionError, match="trained again"):
            vocabulary.open_or_train(cache, texts, max_length=32)


def test_training_is_deterministic(tmp_path: Path, proto: bytes, corpus_texts: list[str]) -> None:
    SMALL.open_or_train(tmp_path, corpus_texts[::-1], max_length=32)
    (path,) = (tmp_path / "vocabularies").iterdir()
    assert path.read_bytes() == proto


def test_a_sample_is_spread_over_the_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples: list[list[str]] = []

    def keep(self: Vocabulary, sample: list[str]) -> bytes:
        samples.append(list(sample))
        raise KeyboardInterrupt

    monkeypatch.setattr(Vocabulary, "_train_sentencepiece", keep)
    texts = [f"{i:03}" for i in range(100)]
    with pytest.raises(KeyboardInterrupt):
        Vocabulary(max_sentences=10).open_or_train(tmp_path, texts, max_length=32)
    assert samples == [texts[::10]]
    assert not list(tmp_path.rglob("*.model"))


def refusal(vocabulary: Vocabulary, texts: list[str], folder: Path) -> Any:
    with pytest.raises(MlkdError) as caught:
        vocabulary.open_or_train(folder, texts, max_length=32)
    (problem,) = caught.value.problems
    assert (problem.code, problem.where) == ("E405", "student.vocabulary.size")
    return problem


def test_a_size_too_large_names_the_largest_that_works(tmp_path: Path, corpus_texts: list[str]) -> None:
    problem = refusal(Vocabulary(size=50_000, character_coverage=1.0), corpus_texts, tmp_path)
    largest = int(problem.what.rsplit(" ", 1)[1])
    assert "50000" in problem.what and f"student.vocabulary.size={largest}" in problem.remedy
    assert len(Vocabulary(size=largest, character_coverage=1.0).open_or_train(tmp_path, corpus_texts, max_length=9))
    assert str(largest) in refusal(Vocabulary(size=largest + 1, character_coverage=1.0), corpus_texts, tmp_path).what


def test_a_corpus_too_small_for_any_vocabulary(tmp_path: Path) -> None:
    problem = refusal(Vocabulary(size=300), ["ein kleiner satz", "und noch einer"], tmp_path)
    assert problem.remedy == "train on more text"


def test_a_size_below_the_number_of_characters_names_the_smallest_that_works(tmp_path: Path) -> None:
    texts = ["".join(chr(0x4E00 + (7 * i + j * j) % 500) for j in range(20)) for i in range(400)]
    problem = refusal(Vocabulary(size=300, character_coverage=1.0), texts, tmp_path)
    smallest = int(problem.what.rsplit(" ", 1)[1])
    assert smallest > 300 and "less than this corpus has characters" in problem.what
    assert (
        len(Vocabulary(size=smallest, character_coverage=1.0).open_or_train(tmp_path, texts, max_length=9)) == smallest
    )


def test_another_segmentation_is_refused(tokenizer: Any, proto: bytes, corpus_texts: list[str]) -> None:
    check_same_segmentation(proto, tokenizer, corpus_texts)
    from tokenizers import normalizers

    wrong = to_fast_tokenizer(proto, max_length=32)
    wrong.backend_tokenizer.normalizer = normalizers.Lowercase()
    with pytest.raises(MlkdError, match="changed the segmentation"):
        check_same_segmentation(proto, wrong, corpus_texts)


def test_a_corpus_unknown_to_its_own_vocabulary_is_refused(tokenizer: Any, proto: bytes) -> None:
    with pytest.raises(MlkdError, match="unknown to its own vocabulary") as caught:
        check_same_segmentation(proto, tokenizer, ["日本語 です", "ζωή"])
    assert caught.value.problems[0].code == "E405"


def test_ranges() -> None:
    with pytest.raises(MlkdError) as caught:
        Vocabulary(size=299, character_coverage=0.0, max_sentences=0)
    assert [p.where for p in caught.value.problems] == ["size", "character_coverage", "max_sentences"]
    assert {p.code for p in caught.value.problems} == {"E204"}
    with pytest.raises(MlkdError, match=r"in \(0, 1\]"):
        Vocabulary(character_coverage=1.1)
