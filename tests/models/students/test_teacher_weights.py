"""A fresh student starts at what fits of the teacher, and at nothing else of it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from mlkd.errors import MlkdError
from mlkd.models.serialization import load_encoder, load_transformer
from mlkd.models.students.base import StudentCorpus
from mlkd.models.students.teacher_weights import start_at_teacher
from mlkd.models.students.thin_deep import ThinDeepStudent
from mlkd.models.students.vocabulary import Vocabulary

VOCABULARY = Vocabulary(size=400, character_coverage=1.0)
SAME: dict[str, Any] = {
    "hidden_size": 16,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_length": 24,
    "vocabulary": VOCABULARY,
}


def build(model: Path, corpus: StudentCorpus, **fields: Any) -> Any:
    student = ThinDeepStudent(**SAME | {"from_teacher": True, "teacher_model": str(model)} | fields)
    student.check_files()
    return student.build(corpus, normalize=False, seed=1).eval()


def test_the_same_shape_and_vocabulary_give_a_copy(
    tiny_bert: Path, student_corpus: StudentCorpus, sentences: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mlkd")
    encoder = build(tiny_bert, student_corpus, num_layers=2, tokenizer=str(tiny_bert))
    torch.testing.assert_close(encoder.encode(sentences), load_encoder(str(tiny_bert)).encode(sentences))
    total = sum(p.numel() for p in encoder.backbone.parameters())
    assert f"100.0 % of the student's {total:,} parameters start at the teacher's" in caplog.messages


@pytest.mark.parametrize(("depth", "sources"), [(1, [0]), (3, [0, 1, 2]), (2, [0, 1]), (6, [0, 0, 1, 1, 2, 2])])
def test_layers_are_spread_over_the_teachers(
    tiny_xlmr: Path, student_corpus: StudentCorpus, depth: int, sources: list[int]
) -> None:
    encoder = build(tiny_xlmr, student_corpus, num_layers=depth)
    teacher: Any = load_transformer(tiny_xlmr)[0]
    for layer, number in zip(encoder.backbone.encoder.layer, sources, strict=True):
        theirs = teacher.encoder.layer[number].state_dict()
        assert all(torch.equal(weight, theirs[name]) for name, weight in layer.state_dict().items())


def test_embeddings_are_the_teachers_of_the_same_spelling(tiny_xlmr: Path, student_corpus: StudentCorpus) -> None:
    encoder = build(tiny_xlmr, student_corpus, num_layers=1)
    teacher, theirs = load_transformer(tiny_xlmr)
    mine = encoder.backbone.embeddings
    assert torch.equal(mine.position_embeddings.weight, teacher.embeddings.position_embeddings.weight[2:26])
    assert torch.equal(mine.token_type_embeddings.weight, teacher.embeddings.token_type_embeddings.weight)
    rows, teacher_rows = mine.word_embeddings.weight, teacher.embeddings.word_embeddings.weight
    vocabulary = encoder.tokenizer.get_vocab()
    shared = [p for p in vocabulary if p in theirs.get_vocab() and theirs.tokenize(p.replace("▁", "")) == [p]]
    assert len(shared) > 50
    for piece in shared:
        assert torch.equal(rows[vocabulary[piece]], teacher_rows[theirs.get_vocab()[piece]])
    assert torch.equal(rows[vocabulary["</s>"]], teacher_rows[2])


def test_what_does_not_fit_stays_fresh(tiny_bert: Path, student_corpus: StudentCorpus) -> None:
    fields = {"num_layers": 2, "tokenizer": str(tiny_bert)}
    teacher = load_transformer(tiny_bert)[0].state_dict()
    wide = build(tiny_bert, student_corpus, **fields, intermediate_size=20).backbone.state_dict()
    heads = build(tiny_bert, student_corpus, **fields, num_attention_heads=4).backbone.state_dict()
    inner, query = "encoder.layer.0.intermediate.dense.weight", "encoder.layer.0.attention.self.query.weight"
    norm = "encoder.layer.0.attention.output.LayerNorm.weight"
    assert wide[inner].shape == (20, 16) and torch.equal(wide[query], teacher[query])
    assert torch.equal(heads[inner], teacher[inner]) and torch.equal(heads[norm], teacher[norm])
    # The same shape in other heads is another function.
    assert heads[query].shape == teacher[query].shape and not torch.equal(heads[query], teacher[query])


def test_a_teacher_of_which_nothing_fits(tiny_bert: Path, student_corpus: StudentCorpus) -> None:
    with pytest.raises(MlkdError) as caught:
        build(tiny_bert, student_corpus, num_layers=2, hidden_size=12, intermediate_size=20)
    (problem,) = caught.value.problems
    assert (problem.code, problem.where) == ("E407", "student.from_teacher")
    assert "hidden size 16 there, 12 here" in problem.what
    assert problem.remedy == "set student.hidden_size=16 student.num_attention_heads=2 student.intermediate_size=32"


def test_a_teacher_of_another_kind(tiny_bert: Path) -> None:
    from transformers import DistilBertConfig, DistilBertModel

    backbone, tokenizer = load_transformer(tiny_bert)
    other = DistilBertModel(DistilBertConfig(vocab_size=50, dim=16, n_layers=1, n_heads=2, hidden_dim=32))
    with pytest.raises(MlkdError, match=r"E407.*got 'distilbert'"):
        start_at_teacher(backbone, tokenizer, other, tokenizer)


def test_the_runs_teacher_is_taken_where_none_is_named() -> None:
    student = ThinDeepStudent(from_teacher=True)
    student.take_teacher("teacher", "v1")
    assert (student.teacher_model, student.teacher_revision) == ("teacher", "v1")
    student.take_teacher("other", None)
    assert student.teacher_model == "teacher"
    fresh = ThinDeepStudent()
    fresh.take_teacher("teacher", "v1")
    assert fresh.teacher_model == ""


def test_two_starts_contradict() -> None:
    with pytest.raises(MlkdError, match=r"E209.*identity_start and from_teacher"):
        ThinDeepStudent(from_teacher=True, identity_start=True)
