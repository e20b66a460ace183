"""A trimmed student gives text whose pieces all stayed the vector it had before, and its folder loads anywhere."""

from __future__ import annotations

import dataclasses
import gzip
import logging
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mlkd.data.training_pairs import TrainingPairs
from mlkd.errors import MlkdError
from mlkd.models.sentence_encoder import SentenceEncoder
from mlkd.models.serialization import load_encoder, save_encoder
from mlkd.models.students.base import StudentCorpus
from mlkd.models.students.pretrained import PretrainedStudent
from mlkd.models.students.trimming import Trimming, check_same_tokens, coverage, keep_rows


def corpus_of(texts: list[str], held_out: list[str], folder: Path) -> StudentCorpus:
    index = np.arange(len(texts))
    return StudentCorpus(TrainingPairs(texts, len(texts), index, index, [len(texts)]), folder, held_out)


@pytest.fixture
def corpus(corpus_texts: list[str], sentences: list[str], tmp_path: Path) -> StudentCorpus:
    """A third of the texts; the others are held out."""
    return corpus_of(corpus_texts[:25], [*corpus_texts[25:], *sentences], tmp_path)


def build(model: Path, corpus: StudentCorpus, **fields: Any) -> SentenceEncoder:
    student = PretrainedStudent(model=str(model), trimming=Trimming(enabled=True, **fields))
    student.check_files()
    return student.build(corpus, normalize=False, seed=1).eval()


@pytest.fixture(params=["tiny_bert", "tiny_xlmr"])
def model(request: pytest.FixtureRequest) -> Path:
    return Path(request.getfixturevalue(request.param))


def kept_ids(before: SentenceEncoder, after: SentenceEncoder) -> list[int]:
    pieces = after.tokenizer.convert_ids_to_tokens(range(len(after.tokenizer)))
    return list(before.tokenizer.convert_tokens_to_ids(pieces))


def test_held_out_text_of_kept_pieces_keeps_tokens_and_vectors(model: Path, corpus: StudentCorpus) -> None:
    full, trimmed = load_encoder(str(model)), build(model, corpus)
    kept = kept_ids(full, trimmed)
    assert kept == sorted(set(kept)) and len(kept) < len(full.tokenizer)
    assert torch.equal(
        trimmed.backbone.get_input_embeddings().weight, full.backbone.get_input_embeddings().weight[kept]  # type: ignore[operator]
    )  # fmt: skip
    texts = [*corpus.pairs.texts, *corpus.held_out]
    covered = [set(row.tolist()) <= set(kept) for row in full.tokenize(texts)]
    assert all(covered[: len(corpus.pairs.texts)])
    held_out = [text for text, whole in zip(texts, covered, strict=True) if whole]
    assert len(held_out) > len(corpus.pairs.texts) + 5
    for before, after in zip(full.tokenize(held_out), trimmed.tokenize(held_out), strict=True):
        assert before.tolist() == [kept[i] for i in after]
    assert torch.equal(trimmed.encode(held_out), full.encode(held_out))


def test_the_config_follows(tiny_xlmr: Path, tiny_bert: Path, corpus: StudentCorpus) -> None:
    for folder, pad in ((tiny_xlmr, 1), (tiny_bert, 0)):
        encoder = build(folder, corpus)
        config: Any = encoder.backbone.config
        rows = encoder.backbone.get_input_embeddings()  # type: ignore[operator]
        assert config.vocab_size == len(encoder.tokenizer) == rows.num_embeddings
        assert config.pad_token_id == encoder.tokenizer.pad_token_id == rows.padding_idx == pad
        assert not rows.weight[pad].any()
        for name in ("bos", "eos"):
            number = getattr(config, f"{name}_token_id", None)
            assert number == (None if folder is tiny_bert else getattr(encoder.tokenizer, f"{name}_token_id"))


def test_a_padded_batch_is_encoded_as_alone(tiny_xlmr: Path, corpus: StudentCorpus) -> None:
    encoder = build(tiny_xlmr, corpus)
    texts = sorted(corpus.pairs.texts, key=len)
    alone = torch.cat([encoder.encode([text]) for text in texts])
    torch.testing.assert_close(encoder.encode(texts), alone, rtol=0, atol=2e-6)


def test_a_trimmed_student_exports_and_loads_like_any_other(
    model: Path, corpus: StudentCorpus, sentences: list[str], tmp_path: Path
) -> None:
    from sentence_transformers import SentenceTransformer
    from transformers import AutoModel, AutoTokenizer

    encoder = build(model, corpus)
    save_encoder(encoder, tmp_path / "student")
    expected = encoder.encode(sentences)
    ours = load_encoder(str(tmp_path / "student"))
    assert torch.equal(ours.encode(sentences), expected)
    peer = SentenceTransformer(str(tmp_path / "student"), device="cpu")
    torch.testing.assert_close(peer.encode(sentences, convert_to_tensor=True), expected, rtol=0, atol=1e-5)
    ids = AutoTokenizer.from_pretrained(tmp_path / "student")(sentences, truncation=True, max_length=24)["input_ids"]
    assert ids == [row.tolist() for row in encoder.tokenize(sentences)]
    root = AutoModel.from_pretrained(tmp_path / "student", add_pooling_layer=False)
    assert root.config.vocab_size == len(encoder.tokenizer)
    # No reader may convert the old vocabulary.
    names = {path.name for path in (tmp_path / "student").iterdir()}
    assert not names & {"sentencepiece.bpe.model", "vocab.txt"} and "tokenizer.json" in names


def test_rare_pieces_go_and_the_bound_holds(
    tiny_xlmr: Path, corpus: StudentCorpus, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mlkd")
    all_used = build(tiny_xlmr, corpus)
    often = build(tiny_xlmr, corpus, min_count=4)
    assert set(often.tokenizer.get_vocab()) < set(all_used.tokenizer.get_vocab())
    bound = len(often.tokenizer) - 5
    bounded = build(tiny_xlmr, corpus, max_pieces=bound)
    assert len(bounded.tokenizer) == bound
    total = len(load_encoder(str(tiny_xlmr)).tokenizer)
    lines = [r.message for r in caplog.records if r.name == "mlkd"]
    assert f"vocabulary trimmed to {bound} of {total} pieces" in lines
    full = load_encoder(str(tiny_xlmr))
    kept = np.array(kept_ids(full, bounded))
    same = [
        full.tokenizer.convert_ids_to_tokens(a.tolist()) == bounded.tokenizer.convert_ids_to_tokens(b.tolist())
        for a, b in zip(full.tokenize(corpus.held_out), bounded.tokenize(corpus.held_out), strict=True)
    ]
    share = coverage(full.tokenizer, bounded.tokenizer, kept, corpus.held_out)
    assert 0 < share < 1
    assert share == pytest.approx(np.mean(same), abs=0.02)  # texts longer than the model reads are compared whole
    assert lines[-1] == f"{100 * share:.1f} % of {len(corpus.held_out)} held-out texts are tokenised as before"


def test_the_most_frequent_pieces_stay(tiny_xlmr: Path, corpus: StudentCorpus) -> None:
    full = load_encoder(str(tiny_xlmr))
    counts = Counter(
        piece
        for row in full.tokenizer(corpus.pairs.texts, add_special_tokens=False, verbose=False)["input_ids"]
        for piece in full.tokenizer.convert_ids_to_tokens(row)
    )
    total = len(build(tiny_xlmr, corpus).tokenizer)
    kept = build(tiny_xlmr, corpus, max_pieces=total - 20).tokenizer.get_vocab().keys()
    words = {piece: count for piece, count in counts.items() if len(piece.strip("▁")) > 1}
    gone = [count for piece, count in words.items() if piece not in kept]
    assert len(gone) == 20
    assert max(gone) <= min(count for piece, count in words.items() if piece in kept)


def test_a_bound_below_what_always_stays(tiny_xlmr: Path, corpus: StudentCorpus) -> None:
    with pytest.raises(MlkdError) as caught:
        build(tiny_xlmr, corpus, max_pieces=10)
    (problem,) = caught.value.problems
    assert (problem.code, problem.where) == ("E204", "student.trimming.max_pieces")
    least = int(problem.what.split("at least ")[1].split(",")[0])
    assert len(build(tiny_xlmr, corpus, max_pieces=least).tokenizer) == least


def test_a_stray_letter_does_not_keep_its_script(tiny_xlmr: Path, tmp_path: Path) -> None:
    full = load_encoder(str(tiny_xlmr)).tokenizer.get_vocab()
    letters = {"д", "ж", "м", "у"} & full.keys()
    assert letters
    plain = ["la bei krü " * 100] * 20
    stray = build(tiny_xlmr, corpus_of([*plain, "laж"], [], tmp_path)).tokenizer.get_vocab()
    own = build(tiny_xlmr, corpus_of([*plain, "laж" * 300], [], tmp_path)).tokenizer.get_vocab()
    assert letters & stray.keys() == {"ж"} and letters <= own.keys()


def test_more_texts_count_too(tiny_xlmr: Path, corpus: StudentCorpus, tmp_path: Path) -> None:
    path = tmp_path / "more.txt.gz"
    path.write_bytes(gzip.compress("\n".join(corpus.held_out).encode()))
    full, more = load_encoder(str(tiny_xlmr)), build(tiny_xlmr, corpus, texts=[str(path)])
    assert coverage(full.tokenizer, more.tokenizer, np.array(kept_ids(full, more)), corpus.held_out) == 1
    with pytest.raises(MlkdError, match="E301"):
        PretrainedStudent(
            model=str(tiny_xlmr), trimming=Trimming(enabled=True, texts=[str(tmp_path / "none")])
        ).check_files()


def test_a_tokenizer_that_would_segment_anew_is_refused(tiny_xlmr: Path, sentences: list[str]) -> None:
    tokenizer, other = load_encoder(str(tiny_xlmr)).tokenizer, load_encoder(str(tiny_xlmr)).tokenizer
    every = np.arange(len(tokenizer))
    check_same_tokens(tokenizer, other, every, sentences)
    from tokenizers import normalizers

    other.backend_tokenizer.normalizer = normalizers.Lowercase()
    with pytest.raises(MlkdError, match=r"E408.*would change the tokens of"):
        check_same_tokens(tokenizer, other, every, sentences)


def test_lower_cased_texts_are_counted_as_the_model_reads_them(
    tiny_xlmr: Path, corpus: StudentCorpus, tmp_path: Path
) -> None:
    encoder = load_encoder(str(tiny_xlmr))
    encoder.text = dataclasses.replace(encoder.text, lower_case=True)
    save_encoder(encoder, tmp_path / "lower")
    trimmed = build(tmp_path / "lower", corpus)
    assert trimmed.text.lower_case
    texts = corpus.pairs.texts
    assert torch.equal(trimmed.encode(texts), encoder.encode(texts))


def test_the_prompt_counts_with_every_text(tiny_xlmr: Path, corpus: StudentCorpus, tmp_path: Path) -> None:
    encoder = load_encoder(str(tiny_xlmr), prompt="schusterb: ")
    save_encoder(encoder, tmp_path / "prompted")
    trimmed = build(tmp_path / "prompted", corpus)
    assert trimmed.text.prompt == "schusterb: "
    assert torch.equal(trimmed.encode(corpus.pairs.texts), encoder.encode(corpus.pairs.texts))


def test_layers_and_vocabulary_are_cut_together(tiny_xlmr: Path, corpus: StudentCorpus) -> None:
    student = PretrainedStudent(model=str(tiny_xlmr), keep_layers=[0, 2], trimming=Trimming(enabled=True))
    encoder = student.build(corpus, normalize=True, seed=1).eval()
    whole = PretrainedStudent(model=str(tiny_xlmr), keep_layers=[0, 2]).build(corpus, normalize=True, seed=1).eval()
    assert sum(p.numel() for p in encoder.parameters()) < sum(p.numel() for p in whole.parameters())
    assert torch.equal(encoder.encode(corpus.pairs.texts), whole.encode(corpus.pairs.texts))


@pytest.mark.parametrize(("pieces", "millions"), [(250_002, 277.5), (50_000, 123.9), (58_000, 130.0)])
def test_the_size_of_xlmr_base(pieces: int, millions: float) -> None:
    """Parameters without a pooler: 192M of 277M are embeddings, so 50,000 pieces leave 124M."""
    from transformers import XLMRobertaConfig, XLMRobertaModel

    config = XLMRobertaConfig(vocab_size=250_002, max_position_embeddings=514, type_vocab_size=1)
    with torch.device("meta"):
        backbone = XLMRobertaModel(config, add_pooling_layer=False)
        keep_rows(backbone, np.arange(pieces), SimpleNamespace(pad_token_id=1))
    assert backbone.config.vocab_size == pieces
    assert round(sum(p.numel() for p in backbone.parameters()) / 1e6, 1) == millions


def test_ranges() -> None:
    with pytest.raises(MlkdError) as caught:
        Trimming(min_count=0, max_pieces=0)
    assert [(p.code, p.where) for p in caught.value.problems] == [("E204", "min_count"), ("E204", "max_pieces")]
