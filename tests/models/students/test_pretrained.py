"""Pretrained students start as the model they name, or as the teacher, and every option of `student` builds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mlkd.config.composition import build_config, compose_config
from mlkd.config.paths import CONFIG_DIR
from mlkd.config.train_schema import TrainConfig
from mlkd.errors import MlkdError
from mlkd.models.pooling import Pooling
from mlkd.models.sentence_encoder import SentenceEncoder
from mlkd.models.serialization import load_encoder, save_encoder
from mlkd.models.students.base import Student, StudentCorpus
from mlkd.models.students.pretrained import PretrainedStudent
from mlkd.models.students.teacher_layers import TeacherLayersStudent
from mlkd.models.students.thin_deep import ThinDeepStudent
from mlkd.models.students.trimming import Trimming

OPTIONS = sorted(path.stem for path in (CONFIG_DIR / "student").glob("*.yaml"))


def build(student: Student, corpus: StudentCorpus, *, normalize: bool = False, seed: int = 1) -> SentenceEncoder:
    return student.build(corpus, normalize=normalize, seed=seed)


def test_a_pretrained_student_starts_as_the_model(
    tiny_bert: Path, student_corpus: StudentCorpus, sentences: list[str]
) -> None:
    student = PretrainedStudent(model=str(tiny_bert), pooling=Pooling.max)
    student.check_files()
    encoder = build(student, student_corpus)
    expected = load_encoder(str(tiny_bert), pooling=Pooling.max)
    assert torch.equal(encoder.encode(sentences), expected.encode(sentences))
    assert (student.read_hidden_size(), student.read_dimension()) == (16, 16)
    assert encoder.text.max_length == 24  # the model has positions for no more, whatever the default of 128
    assert build(PretrainedStudent(model=str(tiny_bert), max_length=8), student_corpus).text.max_length == 8
    prompted = build(PretrainedStudent(model=str(tiny_bert), prompt="schei "), student_corpus)
    assert torch.equal(
        prompted.encode(sentences[:2]), load_encoder(str(tiny_bert), prompt="schei ").encode(sentences[:2])
    )
    with_dense = PretrainedStudent(model=str(tiny_bert), dense_dim=3)
    assert with_dense.read_dimension() == 3 == build(with_dense, student_corpus).dimension


def test_a_pretrained_student_gets_fresh_dense_weights_by_seed(tiny_bert: Path, student_corpus: StudentCorpus) -> None:
    student = PretrainedStudent(model=str(tiny_bert), dense_dim=3)
    name = "denses.0.linear.weight"
    weights = [build(student, student_corpus, seed=seed).state_dict()[name] for seed in (1, 1, 2)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_dropout_is_kept_or_set(tiny_bert: Path, student_corpus: StudentCorpus, sentences: list[str]) -> None:
    def spread(dropout: float | None) -> float:
        encoder = build(PretrainedStudent(model=str(tiny_bert), dropout=dropout), student_corpus).train()
        rows = encoder.tokenize(sentences[:4])
        with torch.no_grad():
            return (encoder.forward_tokens(rows, 1000) - encoder.forward_tokens(rows, 1000)).abs().max().item()

    assert spread(0.0) == 0
    assert spread(None) > 0.01  # the folder's own 0.1


@pytest.fixture
def with_heads(make_encoder: Any, tmp_path: Path) -> Path:
    """A sentence-transformers folder: CLS pooling, a dense layer with Tanh, unit norm."""
    encoder = make_encoder(Pooling.cls, dense={"out_features": 5, "activation": "Tanh"}, normalize=True)
    save_encoder(encoder, tmp_path / "with-heads")
    return tmp_path / "with-heads"


def test_a_copy_of_the_teacher_gives_the_teachers_vectors(
    with_heads: Path, student_corpus: StudentCorpus, sentences: list[str]
) -> None:
    student = PretrainedStudent()
    student.take_teacher(str(with_heads), None)
    student.check_files()
    encoder, teacher = build(student, student_corpus, normalize=True), load_encoder(str(with_heads))
    assert torch.equal(encoder.encode(sentences), teacher.encode(sentences))
    assert (student.read_dimension(), encoder.dimension, encoder.pooling) == (5, 5, Pooling.cls)
    assert all(p.requires_grad for p in encoder.parameters())


def test_what_is_configured_replaces_a_folders_own(with_heads: Path, student_corpus: StudentCorpus) -> None:
    student = PretrainedStudent(model=str(with_heads), pooling=Pooling.max, dense_dim=7)
    encoder = build(student, student_corpus)
    assert encoder.pooling is Pooling.max
    (dense,) = encoder.denses
    assert (student.read_dimension(), encoder.dimension, dense.activation_name) == (7, 7, "Identity")
    assert not encoder.normalize


def student_of(*overrides: str) -> Student:
    return build_config(compose_config("train", overrides), TrainConfig).student


def test_the_run_fills_in_its_teacher() -> None:
    teacher = ["teacher=folder", "teacher.model=some/folder", "teacher.revision=v2"]
    copied = student_of("student=teacher_copy", *teacher)
    assert isinstance(copied, PretrainedStudent) and (copied.model, copied.revision) == ("some/folder", "v2")
    named = student_of("student=pretrained", "student.model=other", *teacher)
    assert isinstance(named, PretrainedStudent) and (named.model, named.revision) == ("other", None)
    layers = student_of("student=teacher_layers", *teacher)
    assert isinstance(layers, TeacherLayersStudent) and (layers.model, layers.revision) == ("some/folder", "v2")
    thin = student_of("student=thin_deep", "student.from_teacher=true", *teacher)
    assert isinstance(thin, ThinDeepStudent) and (thin.teacher_model, thin.teacher_revision) == ("some/folder", "v2")


def test_a_pretrained_student_must_be_named() -> None:
    with pytest.raises(MlkdError) as caught:
        student_of("student=pretrained")
    assert [(p.code, p.where) for p in caught.value.problems] == [("E205", "student.model")]


@pytest.fixture(scope="session")
def deep_xlmr(tiny_xlmr: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny XLM-R with twelve layers."""
    from transformers import XLMRobertaConfig, XLMRobertaModel

    encoder = load_encoder(str(tiny_xlmr))
    config = XLMRobertaConfig.from_pretrained(tiny_xlmr)
    config.num_hidden_layers = 12
    encoder.backbone = XLMRobertaModel(config, add_pooling_layer=False)
    folder = tmp_path_factory.mktemp("models") / "deep-xlmr"
    save_encoder(encoder, folder)
    return folder


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_builds(
    option: str, deep_xlmr: Path, tiny_bert: Path, student_corpus: StudentCorpus, sentences: list[str]
) -> None:
    """Pretrained ones of tiny models, those from scratch in their own size on the meta device."""
    teacher = ["teacher=folder", f"teacher.model='{tiny_bert}'"]
    named = [f"student.model='{deep_xlmr}'"] if option == "pretrained" else []
    student = student_of(f"student={option}", "loss=lealla", *teacher, *named)
    if isinstance(student, ThinDeepStudent):
        with torch.device("meta"):
            backbone = student.build_body(1000, 0)
        assert (len(backbone.encoder.layer), backbone.config.hidden_size) == (student.num_layers, student.hidden_size)
        return
    if isinstance(student, PretrainedStudent):
        student.model = student.model if option == "teacher_copy" else str(deep_xlmr)
    else:
        assert isinstance(student, TeacherLayersStudent)
        student.keep_layers, student.vocabulary.size = [0, 1], 300
    student.check_files()
    encoder = build(student, student_corpus, normalize=True)
    assert encoder.dimension == student.read_dimension()
    assert torch.isfinite(encoder.encode(sentences)).all()


def test_problems_of_model_and_vocabulary_come_together(tmp_path: Path) -> None:
    trimming = Trimming(enabled=True, texts=[str(tmp_path / "a"), str(tmp_path / "b")])
    with pytest.raises(MlkdError) as caught:
        PretrainedStudent(model=str(tmp_path / "nothing"), trimming=trimming).check_files()
    assert [p.code for p in caught.value.problems] == ["E401", "E301", "E301"]


def test_ranges() -> None:
    with pytest.raises(MlkdError) as caught:
        PretrainedStudent(dropout=-0.1, keep_layers=[1, 0])
    assert [(p.code, p.where) for p in caught.value.problems] == [("E204", "dropout"), ("E204", "keep_layers")]
