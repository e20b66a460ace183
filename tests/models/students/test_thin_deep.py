"""Students from scratch have the shape, the start and the vocabulary that their configuration says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mlkd.config.composition import build_config, compose_config
from mlkd.config.train_schema import TrainConfig
from mlkd.errors import MlkdError
from mlkd.models.pooling import Pooling
from mlkd.models.sentence_encoder import SentenceEncoder
from mlkd.models.serialization import load_encoder, save_encoder
from mlkd.models.students.base import StudentCorpus
from mlkd.models.students.thin_deep import ThinDeepStudent
from mlkd.models.students.vocabulary import Vocabulary

VOCABULARY = Vocabulary(size=400, character_coverage=1.0)
TINY: dict[str, Any] = {
    "num_layers": 3,
    "hidden_size": 12,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "max_length": 24,
    "vocabulary": VOCABULARY,
}


def build(
    student: ThinDeepStudent, corpus: StudentCorpus, *, normalize: bool = False, seed: int = 1
) -> SentenceEncoder:
    return student.build(corpus, normalize=normalize, seed=seed)


def num_parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def expected_parameters(vocabulary: int, layers: int, hidden: int, ffn: int, positions: int) -> int:
    """Of a BERT encoder with one segment type: embeddings, then per layer attention, feed-forward, two norms."""
    norm = 2 * hidden
    layer = 4 * (hidden * hidden + hidden) + (hidden * ffn + ffn) + (ffn * hidden + hidden) + 2 * norm
    return (vocabulary + positions + 1) * hidden + norm + layers * layer


def test_the_shape_of_a_thin_deep_student(student_corpus: StudentCorpus) -> None:
    student = ThinDeepStudent(**TINY, pooling=Pooling.cls, dense_dim=7)
    encoder = build(student, student_corpus)
    config: Any = encoder.backbone.config
    shape = (config.num_hidden_layers, config.hidden_size, config.num_attention_heads, config.intermediate_size)
    assert shape == (3, 12, 3, 20)
    assert num_parameters(encoder.backbone) == expected_parameters(400, 3, 12, 20, 24)
    assert (student.read_hidden_size(), student.read_dimension(), encoder.dimension) == (12, 7, 7)
    assert encoder.encode(["bei sta", ""]).shape == (2, 7)
    assert encoder.pooling is Pooling.cls
    assert all(p.requires_grad and p.dtype is torch.float32 for p in encoder.parameters())
    long_row = encoder.tokenize(["bei " * 100])[0]
    assert len(long_row) == 24


@pytest.mark.parametrize(
    ("option", "shape", "millions"),
    [
        # Published for the three students that have names: 69M, 107M and 147M.
        ("lealla_small", (24, 128, 512, 8), 69),
        ("lealla_base", (24, 192, 768, 12), 107),
        ("lealla_large", (24, 256, 1024, 8), 147),
        ("lealla_table1_6x768", (6, 768, 3072, 12), 428),
        ("lealla_table1_3x768", (3, 768, 3072, 12), 406),
        ("lealla_table1_12x384", (12, 384, 1536, 12), 214),
        ("lealla_table1_12x192", (12, 192, 768, 12), 102),
        ("lealla_table1_24x384", (24, 384, 1536, 12), 235),
        ("lealla_table7_24x64", (24, 64, 256, 8), 33),
        ("lealla_table7_mobilebert", (24, 128, 128, 4), 67),
    ],
)
def test_leallas_architectures(option: str, shape: tuple[int, int, int, int], millions: int) -> None:
    """Shapes as layers, hidden size, ffn and heads."""
    student = build_config(compose_config("train", [f"student={option}", "loss=lealla"]), TrainConfig).student
    assert isinstance(student, ThinDeepStudent)
    assert (student.pooling, student.normalize, student.tokenizer) == (Pooling.cls, True, "sentence-transformers/LaBSE")
    assert (student.num_layers, student.hidden_size, student.intermediate_size, student.num_attention_heads) == shape
    with torch.device("meta"):
        backbone = student.build_body(501_153, 0)
    assert num_parameters(backbone) == expected_parameters(501_153, *shape[:3], 128)
    assert round(num_parameters(backbone) / 1e6) == millions


def test_laser3s_architecture() -> None:
    """12 layers of 1024 dimensions with 4 heads and ffn 2048 over 8,000 pieces."""
    student = build_config(compose_config("train", ["+experiment=laser3_en_de"]), TrainConfig).student
    assert isinstance(student, ThinDeepStudent)
    assert (student.vocabulary.size, student.tokenizer, student.num_attention_heads) == (8000, "", 4)
    assert (student.pooling, student.dropout) == (Pooling.cls, 0.3)
    with torch.device("meta"):
        backbone = student.build_body(8000, 0)
    assert num_parameters(backbone) == expected_parameters(8000, 12, 1024, 2048, 128)
    assert round(num_parameters(backbone) / 1e6) == 109


def test_without_layers_a_student_averages_its_embeddings(student_corpus: StudentCorpus) -> None:
    encoder = build(ThinDeepStudent(**TINY | {"num_layers": 0}), student_corpus)
    (row,) = encoder.tokenize(["bei sta"])
    embeddings = encoder.backbone.embeddings(input_ids=torch.tensor([row.tolist()]))  # type: ignore[operator]
    torch.testing.assert_close(encoder.encode(["bei sta"])[0], embeddings[0].mean(0).detach())


def test_an_identity_start_gives_out_the_embeddings(student_corpus: StudentCorpus, sentences: list[str]) -> None:
    for identity_start in (True, False):
        encoder = build(ThinDeepStudent(**TINY, identity_start=identity_start), student_corpus).eval()
        (row,) = encoder.tokenize(sentences[:1])
        ids = torch.tensor([row.tolist()])
        backbone: Any = encoder.backbone
        with torch.no_grad():
            embeddings, output = backbone.embeddings(input_ids=ids), backbone(input_ids=ids)[0]
        difference = (output - embeddings).abs().max().item()
        assert difference < 1e-3 if identity_start else difference > 0.01


def test_an_identity_start_still_learns_in_every_layer(student_corpus: StudentCorpus, sentences: list[str]) -> None:
    encoder = build(ThinDeepStudent(**TINY, identity_start=True), student_corpus)
    vectors = encoder.forward_tokens(encoder.tokenize(sentences[:8]), 10_000)
    (vectors - torch.linspace(-1, 1, 12)).square().mean().backward()
    for layer in encoder.backbone.encoder.layer:  # type: ignore[union-attr]
        for weight in (layer.attention.output.dense.weight, layer.output.dense.weight):  # type: ignore[union-attr]
            assert weight.grad.abs().max() > 0


def test_the_seed_decides_the_weights(student_corpus: StudentCorpus) -> None:
    student = ThinDeepStudent(**TINY, dense_dim=5)
    first, again, other = (build(student, student_corpus, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    word = "backbone.embeddings.word_embeddings.weight"
    assert not torch.equal(first[word], other[word])
    assert not torch.equal(first["denses.0.linear.weight"], other["denses.0.linear.weight"])


@pytest.mark.parametrize(
    ("field", "teacher", "expected"),
    [(None, True, True), (None, False, False), (False, True, False), (True, False, True)],
)
def test_normalising_follows_the_teacher_unless_told(
    student_corpus: StudentCorpus, field: bool | None, teacher: bool, expected: bool
) -> None:
    encoder = build(ThinDeepStudent(**TINY, normalize=field), student_corpus, normalize=teacher)
    norm = encoder.encode(["bei sta"]).norm().item()
    assert encoder.normalize is expected
    assert (abs(norm - 1) < 1e-5) is expected


def test_a_thin_deep_student_takes_another_models_tokenizer(
    tiny_bert: Path, student_corpus: StudentCorpus, sentences: list[str]
) -> None:
    student = ThinDeepStudent(**TINY, tokenizer=str(tiny_bert))
    student.check_files()
    encoder, bert = build(student, student_corpus), load_encoder(str(tiny_bert))
    assert len(encoder.tokenizer) == len(bert.tokenizer) == encoder.backbone.get_input_embeddings().num_embeddings
    for ours, theirs in zip(encoder.tokenize(sentences), bert.tokenize(sentences), strict=True):
        assert ours.tolist() == theirs.tolist()
    assert encoder.encode(sentences).shape == (len(sentences), 12)


def test_a_thin_deep_student_survives_its_folder(
    student_corpus: StudentCorpus, sentences: list[str], tmp_path: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    encoder = build(ThinDeepStudent(**TINY, dense_dim=5, dropout=0.1), student_corpus, normalize=True)
    save_encoder(encoder, tmp_path / "student")
    expected = encoder.encode(sentences)
    torch.testing.assert_close(load_encoder(str(tmp_path / "student")).encode(sentences), expected, rtol=0, atol=1e-6)
    peer = SentenceTransformer(str(tmp_path / "student"), device="cpu")
    torch.testing.assert_close(peer.encode(sentences, convert_to_tensor=True), expected, rtol=0, atol=1e-5)


def problems(**fields: Any) -> list[tuple[str, str]]:
    with pytest.raises(MlkdError) as caught:
        ThinDeepStudent(**fields)
    return [(p.code, p.where) for p in caught.value.problems]


def test_ranges() -> None:
    wrong = {
        "num_layers": -1,
        "hidden_size": 0,
        "num_attention_heads": 0,
        "intermediate_size": 0,
        "max_length": 3,
        "dense_dim": 0,
        "dropout": 1.0,
    }
    assert {where for _, where in problems(**wrong)} == wrong.keys()
    assert {code for code, _ in problems(**wrong)} == {"E204"}


@pytest.mark.parametrize(("heads", "nearest"), [(7, 6), (5, 4), (100, 96), (11, 12)])
def test_heads_must_divide_the_hidden_size(heads: int, nearest: int) -> None:
    with pytest.raises(MlkdError, match=f"must divide hidden_size=96 \\(got {heads}\\); nearest: {nearest}$"):
        ThinDeepStudent(hidden_size=96, num_attention_heads=heads)


def test_missing_files_are_found_without_building(tmp_path: Path) -> None:
    nothing = str(tmp_path / "nothing")
    for student in (ThinDeepStudent(tokenizer=nothing), ThinDeepStudent(from_teacher=True, teacher_model=nothing)):
        with pytest.raises(MlkdError) as caught:
            student.check_files()
        assert caught.value.problems[0].code == "E401"
    ThinDeepStudent().check_files()
