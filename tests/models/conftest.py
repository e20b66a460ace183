"""A corpus to build students from, and a tiny XLM-R with a real SentencePiece vocabulary."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mlkd.data.training_pairs import TrainingPairs
from mlkd.models.students.base import StudentCorpus


@pytest.fixture(scope="session")
def student_corpus(corpus_texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> StudentCorpus:
    half = len(corpus_texts) // 2
    index = np.arange(half)
    pairs = TrainingPairs(corpus_texts[: 2 * half], half, index, half + index, [half])
    return StudentCorpus(pairs, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def unigram_pieces(corpus_texts: list[str]) -> list[tuple[str, float]]:
    """Pieces and scores that SentencePiece finds in the corpus, in XLM-R's order: four control pieces first."""
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2

    stream = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus_texts), model_writer=stream, model_type="unigram", vocab_size=400,
        character_coverage=1.0, num_threads=1, minloglevel=2,
    )  # fmt: skip
    model = sentencepiece_model_pb2.ModelProto.FromString(stream.getvalue())
    found = [(p.piece, p.score) for p in model.pieces if p.piece not in ("<unk>", "<s>", "</s>")]
    return [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *found, ("<mask>", 0.0)]


@pytest.fixture(scope="session")
def tiny_xlmr(unigram_pieces: list[tuple[str, float]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain transformers folder: XLM-R of three layers, with files of its old tokenizer beside the fast one."""
    from transformers import XLMRobertaConfig, XLMRobertaModel, XLMRobertaTokenizer

    tokenizer: Any = XLMRobertaTokenizer(vocab=unigram_pieces, model_max_length=24)
    torch.manual_seed(11)
    backbone = XLMRobertaModel(
        XLMRobertaConfig(
            vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=3, num_attention_heads=2,
            intermediate_size=32, max_position_embeddings=26, type_vocab_size=1, initializer_range=0.3,
        )
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("models") / "tiny-xlmr"
    backbone.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "sentencepiece.bpe.model").write_bytes(b"the old model, which no reader of the student may find")
    return folder
