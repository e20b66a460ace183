"""Students have the shape, the start and the vocabulary that their configuration says."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mlkd.data.training import TrainingPairs
from mlkd.errors import MlkdError
from mlkd.models.folder import load_encoder, load_transformer, save_encoder
from mlkd.models.pooling import Pooling
from mlkd.models.sentence_encoder import SentenceEncoder
from mlkd.models.students import (
    PretrainedStudent,
    Student,
    StudentCorpus,
    TeacherLayersStudent,
    ThinDeepStudent,
    set_dropout,
)
from mlkd.models.vocabulary import Vocabulary

VOCABULARY = Vocabulary(size=400, character_coverage=1.0)
TINY: dict[str, Any] = {"layers": 3, "hidden": 12, "heads": 3, "ffn": 20, "max_length": 24, "vocabulary": VOCABULARY}


@pytest.fixture(scope="session")
def student_corpus(corpus_texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> StudentCorpus:
    half = len(corpus_texts) // 2
    index = np.arange(half)
    pairs = TrainingPairs(corpus_texts[: 2 * half], half, index, half + index, [half])
    return StudentCorpus(pairs, tmp_path_factory.mktemp("cache"))


def build(student: Student, corpus: StudentCorpus, *, normalize: bool = False, seed: int = 1) -> SentenceEncoder:
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
    config: Any = encoder.body.config
    shape = (config.num_hidden_layers, config.hidden_size, config.num_attention_heads, config.intermediate_size)
    assert shape == (3, 12, 3, 20)
    assert num_parameters(encoder.body) == expected_parameters(400, 3, 12, 20, 24)
    assert (student.hidden_size, student.dimension, encoder.dimension) == (12, 7, 7)
    assert encoder.encode(["bei sta", ""]).shape == (2, 7)
    assert encoder.pooling is Pooling.cls
    assert all(p.requires_grad and p.dtype is torch.float32 for p in encoder.parameters())
    long_row = encoder.tokenize(["bei " * 100])[0]
    assert len(long_row) == 24


@pytest.mark.parametrize(
    ("hidden", "ffn", "heads", "millions"), [(128, 512, 8, 69), (192, 768, 12, 107), (256, 1024, 8, 147)]
)
def test_leallas_sizes(hidden: int, ffn: int, heads: int, millions: int) -> None:
    with torch.device("meta"):
        body = ThinDeepStudent(layers=24, hidden=hidden, ffn=ffn, heads=heads).build_body(501_153, 0)
    assert num_parameters(body) == expected_parameters(501_153, 24, hidden, ffn, 128)
    assert round(num_parameters(body) / 1e6) == millions


def test_without_layers_a_student_averages_its_embeddings(student_corpus: StudentCorpus) -> None:
    encoder = build(ThinDeepStudent(**TINY | {"layers": 0}), student_corpus)
    (row,) = encoder.tokenize(["bei sta"])
    embeddings = encoder.body.embeddings(input_ids=torch.tensor([row.tolist()]))  # type: ignore[operator]
    torch.testing.assert_close(encoder.encode(["bei sta"])[0], embeddings[0].mean(0).detach())


def test_an_identity_start_gives_out_the_embeddings(student_corpus: StudentCorpus, sentences: list[str]) -> None:
    for identity_start in (True, False):
        encoder = build(ThinDeepStudent(**TINY, identity_start=identity_start), student_corpus).eval()
        (row,) = encoder.tokenize(sentences[:1])
        ids = torch.tensor([row.tolist()])
        body: Any = encoder.body
        with torch.no_grad():
            embeddings, output = body.embeddings(input_ids=ids), body(input_ids=ids)[0]
        difference = (output - embeddings).abs().max().item()
        assert difference < 1e-3 if identity_start else difference > 0.01


def test_an_identity_start_still_learns_in_every_layer(student_corpus: StudentCorpus, sentences: list[str]) -> None:
    encoder = build(ThinDeepStudent(**TINY, identity_start=True), student_corpus)
    vectors = encoder.forward_tokens(encoder.tokenize(sentences[:8]), 10_000)
    (vectors - torch.linspace(-1, 1, 12)).square().mean().backward()
    for layer in encoder.body.encoder.layer:  # type: ignore[union-attr]
        for weight in (layer.attention.output.dense.weight, layer.output.dense.weight):  # type: ignore[union-attr]
            assert weight.grad.abs().max() > 0


def test_the_seed_decides_the_weights(student_corpus: StudentCorpus) -> None:
    student = ThinDeepStudent(**TINY, dense_dim=5)
    first, again, other = (build(student, student_corpus, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    word = "body.embeddings.word_embeddings.weight"
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
    assert len(encoder.tokenizer) == len(bert.tokenizer) == encoder.body.get_input_embeddings().num_embeddings
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


def test_a_pretrained_student_starts_as_the_model(
    tiny_bert: Path, student_corpus: StudentCorpus, sentences: list[str]
) -> None:
    student = PretrainedStudent(model=str(tiny_bert), pooling=Pooling.max)
    student.check_files()
    encoder = build(student, student_corpus)
    expected = load_encoder(str(tiny_bert), pooling=Pooling.max)
    assert torch.equal(encoder.encode(sentences), expected.encode(sentences))
    assert (student.hidden_size, student.dimension) == (16, 16)
    assert encoder.text.max_length == 24  # the model has positions for no more, whatever the default of 128
    assert build(PretrainedStudent(model=str(tiny_bert), max_length=8), student_corpus).text.max_length == 8
    with_dense = PretrainedStudent(model=str(tiny_bert), dense_dim=3)
    assert with_dense.dimension == 3 == build(with_dense, student_corpus).dimension


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


def test_set_dropout_reaches_what_attention_reads_at_run_time() -> None:
    class Attention(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention_dropout = 0.3
            self.dropout_prob = 0  # an integer in some configurations
            self.inner = torch.nn.Dropout(0.2)

    attention = Attention()
    set_dropout(torch.nn.Sequential(attention, torch.nn.Dropout(0.5)), 0.1)
    assert (attention.attention_dropout, attention.dropout_prob, attention.inner.p) == (0.1, 0.1, 0.1)


def layered(tiny_bert: Path, *layers: int, **fields: Any) -> TeacherLayersStudent:
    return TeacherLayersStudent(model=str(tiny_bert), layers=list(layers), vocabulary=VOCABULARY, **fields)


@pytest.mark.parametrize("layers", [[0], [1], [0, 1]])
def test_a_students_layers_are_the_teachers(tiny_bert: Path, student_corpus: StudentCorpus, layers: list[int]) -> None:
    student = layered(tiny_bert, *layers)
    student.check_files()
    encoder = build(student, student_corpus)
    body: Any = encoder.body
    teacher: Any = load_transformer(tiny_bert)[0]
    assert len(body.encoder.layer) == len(layers)
    for mine, number in zip(body.encoder.layer, layers, strict=True):
        theirs = teacher.encoder.layer[number].state_dict()
        assert mine.state_dict().keys() == theirs.keys()
        assert all(torch.equal(weight, theirs[name]) for name, weight in mine.state_dict().items())
    for name, weight in teacher.embeddings.state_dict().items():
        if name != "word_embeddings.weight":
            assert torch.equal(body.embeddings.state_dict()[name], weight)
    assert (body.config.num_hidden_layers, body.config.vocab_size, body.config.pad_token_id) == (len(layers), 400, 0)
    assert body.get_input_embeddings().weight.shape == (400, 16)
    assert (student.hidden_size, student.dimension, encoder.dimension) == (16, 16, 16)
    assert encoder.text.max_length == 24  # the teacher has positions for no more
    assert all(p.requires_grad for p in encoder.parameters())


def test_its_embeddings_start_at_the_teachers(tiny_bert: Path, student_corpus: StudentCorpus) -> None:
    encoder = build(layered(tiny_bert, 0), student_corpus)
    weight = encoder.body.get_input_embeddings().weight  # type: ignore[operator]
    body, tokenizer = load_transformer(tiny_bert)
    teacher_WH: Any = body.get_input_embeddings().weight
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
    texts = ["bei </s> sta", "bei <mask> sta <pad>", "bei " * 100, "sta"]
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
    assert (code, where) == ("E204", "student.layers")
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
    assert problems(TeacherLayersStudent, layers=layers) == [("E204", "layers")]
    assert problems(TeacherLayersStudent, alignment_pairs=0) == [("E204", "alignment_pairs")]


def problems(student: type[Student], **fields: Any) -> list[tuple[str, str]]:
    with pytest.raises(MlkdError) as caught:
        student(**fields)
    return [(p.code, p.where) for p in caught.value.problems]


def test_ranges() -> None:
    wrong = {"layers": -1, "hidden": 0, "heads": 0, "ffn": 0, "max_length": 3, "dense_dim": 0, "dropout": 1.0}
    assert {where for _, where in problems(ThinDeepStudent, **wrong)} == wrong.keys()
    assert {code for code, _ in problems(ThinDeepStudent, **wrong)} == {"E204"}
    assert problems(PretrainedStudent, dropout=-0.1) == [("E204", "dropout"), ("E205", "model")]


@pytest.mark.parametrize(("heads", "nearest"), [(7, 6), (5, 4), (100, 96), (11, 12)])
def test_heads_must_divide_the_hidden_size(heads: int, nearest: int) -> None:
    with pytest.raises(MlkdError, match=f"must divide hidden=96 \\(got {heads}\\); nearest: {nearest}$"):
        ThinDeepStudent(hidden=96, heads=heads)


def test_missing_files_are_found_without_building(tmp_path: Path) -> None:
    for student in (
        PretrainedStudent(model=str(tmp_path / "nothing")),
        ThinDeepStudent(tokenizer=str(tmp_path / "nothing")),
    ):
        with pytest.raises(MlkdError) as caught:
            student.check_files()
        assert caught.value.problems[0].code == "E401"
    ThinDeepStudent().check_files()
