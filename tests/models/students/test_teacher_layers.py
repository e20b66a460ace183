"""Students of the teacher's layers start as the teacher reads, word by aligned word."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mlkd.data.training_pairs import TrainingPairs
from mlkd.errors import MlkdError
from mlkd.models.pooling import Pooling
from mlkd.models.sentence_encoder import SentenceEncoder
from mlkd.models.serialization import load_encoder, load_transformer, save_encoder
from mlkd.models.students.base import StudentCorpus
from mlkd.models.students.teacher_layers import TeacherLayersStudent
from mlkd.models.students.vocabulary import Vocabulary

VOCABULARY = Vocabulary(size=400, character_coverage=1.0)


def build(
    student: TeacherLayersStudent, corpus: StudentCorpus, *, normalize: bool = False, seed: int = 1
) -> SentenceEncoder:
    return student.build(corpus, normalize=normalize, seed=seed)


def layered(tiny_bert: Path, *layers: int, **fields: Any) -> TeacherLayersStudent:
    return TeacherLayersStudent(model=str(tiny_bert), keep_layers=list(layers), vocabulary=VOCABULARY, **fields)


@pytest.mark.parametrize("layers", [[0], [1], [0, 1]])
def test_a_students_layers_are_the_teachers(tiny_bert: Path, student_corpus: StudentCorpus, layers: list[int]) -> None:
    student = layered(tiny_bert, *layers)
    student.check_files()
    encoder = build(student, student_corpus)
    backbone: Any = encoder.backbone
    teacher: Any = load_transformer(tiny_bert)[0]
    assert len(backbone.encoder.layer) == len(layers)
    for mine, number in zip(backbone.encoder.layer, layers, strict=True):
        theirs = teacher.encoder.layer[number].state_dict()
        assert mine.state_dict().keys() == theirs.keys()
        assert all(torch.equal(weight, theirs[name]) for name, weight in mine.state_dict().items())
    for name, weight in teacher.embeddings.state_dict().items():
        if name != "word_embeddings.weight":
            assert torch.equal(backbone.embeddings.state_dict()[name], weight)
    assert (backbone.config.num_hidden_layers, backbone.config.vocab_size, backbone.config.pad_token_id) == (
        len(layers),
        400,
        0,
    )
    assert backbone.get_input_embeddings().weight.shape == (400, 16)
    assert (student.read_hidden_size(), student.read_dimension(), encoder.dimension) == (16, 16, 16)
    assert encoder.text.max_length == 24  # the teacher has positions for no more
    assert all(p.requires_grad for p in encoder.parameters())


def test_its_embeddings_start_at_the_teachers(tiny_bert: Path, student_corpus: StudentCorpus) -> None:
    encoder = build(layered(tiny_bert, 0), student_corpus)
    weight = encoder.backbone.get_input_embeddings().weight  # type: ignore[operator]
    backbone, tokenizer = load_transformer(tiny_bert)
    teacher_WH: Any = backbone.get_input_embeddings().weight
    for mine, theirs in ((0, "[PAD]"), (1, "[CLS]"), (2, "[SEP]"), (3, "[UNK]"), (4, "[MASK]")):
        assert torch.equal(weight[mine], teacher_WH[tokenizer.convert_tokens_to_ids(theirs)])
    assert torch.isfinite(weight).all()
    # An average of the teacher's embeddings, none of them fresh: within their range in each dimension.
    assert bool((weight <= teacher_WH.amax(0) + 1e-5).all() and (weight >= teacher_WH.amin(0) - 1e-5).all())


def test_the_teachers_layers_survive_their_folder(
    tiny_bert: Path, student_corpus: StudentCorpus, sentences: list[str], tmp_path: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    encoder = build(layered(tiny_bert, 1, dense_dim=5, pooling=Pooling.cls), student_corpus, normalize=True)
    save_encoder(encoder, tmp_path / "student")
    expected = encoder.encode(sentences)
    reloaded = load_encoder(str(tmp_path / "student"))
    torch.testing.assert_close(reloaded.encode(sentences), expected, rtol=0, atol=1e-6)
    peer = SentenceTransformer(str(tmp_path / "student"), device="cpu")
    torch.testing.assert_close(peer.encode(sentences, convert_to_tensor=True), expected, rtol=0, atol=1e-5)
    config = json.loads(next((tmp_path / "student").rglob("config.json")).read_text())
    assert (config["num_hidden_layers"], config["vocab_size"]) == (1, 400)


@pytest.mark.parametrize("dropout", [None, 0.2])
def test_the_teachers_layers_drop_nothing_unless_told(
    tiny_bert: Path, student_corpus: StudentCorpus, sentences: list[str], dropout: float | None
) -> None:
    encoder = build(layered(tiny_bert, 0, dropout=dropout), student_corpus).train()
    rows = encoder.tokenize(sentences[:4])
    with torch.no_grad():
        spread = float((encoder.forward_tokens(rows, 1000) - encoder.forward_tokens(rows, 1000)).abs().max())
    assert spread == 0 if dropout is None else spread > 0.01


def test_the_same_corpus_gives_the_same_student(tiny_bert: Path, student_corpus: StudentCorpus, tmp_path: Path) -> None:
    student = layered(tiny_bert, 0, 1, dense_dim=3)
    first = build(student, student_corpus).state_dict()
    again = build(student, StudentCorpus(student_corpus.pairs, tmp_path)).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_alignment_reads_no_control_tokens(tiny_bert: Path, student_corpus: StudentCorpus) -> None:
    tokenizer = VOCABULARY.open_or_train(student_corpus.cache_dir, student_corpus.pairs.texts, max_length=24)
    texts = ["bei </s> sta", "bei <mask> sta <pad> <unk>", "bei " * 100, "sta"]
    pairs = TrainingPairs(texts, 2, np.array([0, 2]), np.array([1, 3]), [2])
    found = layered(tiny_bert, 0, max_length=9).token_pairs(pairs, tokenizer)
    controls = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    assert len(found[1][0]) == 9
    assert not controls & {int(i) for pair in found for side in pair for i in side}
    assert tokenizer.convert_ids_to_tokens(found[1][1].tolist()) == tokenizer.tokenize("sta")


def test_alignment_takes_evenly_spaced_pairs(tiny_bert: Path, student_corpus: StudentCorpus) -> None:
    tokenizer = VOCABULARY.open_or_train(student_corpus.cache_dir, student_corpus.pairs.texts, max_length=24)
    pairs = student_corpus.pairs
    chosen = layered(tiny_bert, 0, alignment_pairs=10).token_pairs(pairs, tokenizer)
    step = -(-len(pairs.source) // 10)
    assert len(chosen) <= 10
    for (source, target), i in zip(chosen, range(0, len(pairs.source), step), strict=True):
        for side, text in ((source, pairs.texts[pairs.source[i]]), (target, pairs.texts[pairs.target[i]])):
            assert side.tolist() == tokenizer(text, add_special_tokens=False)["input_ids"][:128]


def refusal(student: TeacherLayersStudent) -> tuple[str, str, str]:
    with pytest.raises(MlkdError) as caught:
        student.check_files()
    (problem,) = caught.value.problems
    return problem.code, problem.where, problem.what


def test_layers_the_teacher_does_not_have(tiny_bert: Path) -> None:
    code, where, message = refusal(layered(tiny_bert, 0, 2))
    assert (code, where) == ("E204", "student.keep_layers")
    assert re.search(r"below 2\b.*\[0, 2\]", message)


def test_a_teacher_that_is_no_bert(tiny_bert: Path, tmp_path: Path) -> None:
    folder = tmp_path / "roberta"
    shutil.copytree(tiny_bert, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "xlm-roberta"}))
    code, _, message = refusal(layered(folder, 0))
    assert code == "E407" and "'xlm-roberta'" in message


@pytest.mark.parametrize("layers", [[], [1, 0], [0, 0], [-1, 0]])
def test_layers_must_rise(layers: list[int]) -> None:
    with pytest.raises(MlkdError) as caught:
        TeacherLayersStudent(keep_layers=layers, alignment_pairs=0)
    assert [(p.code, p.where) for p in caught.value.problems] == [("E204", "keep_layers"), ("E204", "alignment_pairs")]
