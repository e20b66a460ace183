"""An adapter is all that learns; what is saved holds it merged, and alone."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mlkd.errors import MlkdError
from mlkd.models.adapters import Adapters, has_adapter, merged_state
from mlkd.models.sentence_encoder import SentenceEncoder
from mlkd.models.serialization import load_encoder, save_encoder
from mlkd.models.sparse_embedding import use_sparse_embedding
from mlkd.models.students.base import StudentCorpus
from mlkd.models.students.pretrained import PretrainedStudent
from mlkd.models.students.trimming import Trimming


def build(model: Path, corpus: StudentCorpus, *, seed: int = 1, dense_dim: int | None = None, **fields: Any) -> Any:
    adapters = Adapters(enabled=True, **({"rank": 2} | fields))
    student = PretrainedStudent(model=str(model), dense_dim=dense_dim, adapters=adapters)
    student.check_files()
    return student.build(corpus, normalize=False, seed=seed).eval()


def train(encoder: SentenceEncoder, sentences: list[str], steps: int = 3) -> None:
    """Some steps towards nothing in particular."""
    encoder.train()
    optimizer = torch.optim.AdamW([p for p in encoder.parameters() if p.requires_grad], lr=0.05)
    for _ in range(steps):
        vectors = encoder.forward_tokens(encoder.tokenize(sentences[:8]), 10_000)
        (vectors - torch.linspace(-1, 1, vectors.shape[1])).square().mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
    encoder.eval()


def trained_names(encoder: SentenceEncoder) -> set[str]:
    return {name for name, p in encoder.named_parameters() if p.requires_grad}


def test_a_fresh_adapter_changes_nothing(tiny_bert: Path, student_corpus: StudentCorpus, sentences: list[str]) -> None:
    encoder = build(tiny_bert, student_corpus)
    assert has_adapter(encoder.backbone) and not has_adapter(load_encoder(str(tiny_bert)).backbone)
    assert torch.equal(encoder.encode(sentences), load_encoder(str(tiny_bert)).encode(sentences))


def test_only_the_adapter_is_trained(tiny_xlmr: Path, student_corpus: StudentCorpus, sentences: list[str]) -> None:
    encoder = build(tiny_xlmr, student_corpus)
    # 3 layers of 16 dimensions: query, key, value, attention output, and both of the feed-forward block.
    trained = sum(p.numel() for p in encoder.parameters() if p.requires_grad)
    assert trained == 3 * 2 * (4 * (16 + 16) + (16 + 32) + (32 + 16))
    assert all(".lora_" in name for name in trained_names(encoder))
    frozen = {name: p.detach().clone() for name, p in encoder.named_parameters() if not p.requires_grad}
    before = encoder.encode(sentences)
    train(encoder, sentences)
    assert (encoder.encode(sentences) - before).abs().max() > 0.01
    for name, weight in encoder.named_parameters():
        if name in frozen:
            assert torch.equal(weight, frozen[name]) and weight.grad is None


def test_a_fresh_dense_layer_trains_beside_it(tiny_bert: Path, student_corpus: StudentCorpus) -> None:
    names = trained_names(build(tiny_bert, student_corpus, dense_dim=5))
    assert {name for name in names if ".lora_" not in name} == {"denses.0.linear.weight", "denses.0.linear.bias"}


def test_modules_can_be_chosen(tiny_bert: Path, student_corpus: StudentCorpus) -> None:
    names = trained_names(build(tiny_bert, student_corpus, modules=["query", "value"]))
    assert len(names) == 2 * 2 * 2
    assert all(".query." in name or ".value." in name for name in names)
    with pytest.raises(MlkdError) as caught:
        build(tiny_bert, student_corpus, modules=["querry"])
    (problem,) = caught.value.problems
    assert (problem.code, problem.where) == ("E204", "student.adapters.modules")
    assert "it has dense, key, query, value. Did you mean 'query'?" in problem.what


def test_the_seed_decides_the_adapter(tiny_bert: Path, student_corpus: StudentCorpus) -> None:
    states = [build(tiny_bert, student_corpus, seed=seed).state_dict() for seed in (1, 1, 2)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert any(not torch.equal(states[0][name], states[2][name]) for name in states[0])


def test_the_merged_weights_are_the_sum(tiny_bert: Path, student_corpus: StudentCorpus, sentences: list[str]) -> None:
    encoder = build(tiny_bert, student_corpus, alpha=6.0)
    train(encoder, sentences)
    state, merged = encoder.backbone.state_dict(), merged_state(encoder.backbone)
    plain = load_encoder(str(tiny_bert)).backbone.state_dict()
    assert merged.keys() == plain.keys()
    layer = "encoder.layer.1.attention.self.query"
    product = state[f"{layer}.lora_B.default.weight"] @ state[f"{layer}.lora_A.default.weight"]
    assert product.abs().max() > 1e-3
    torch.testing.assert_close(merged[f"{layer}.weight"], plain[f"{layer}.weight"] + 6.0 / 2 * product)
    assert torch.equal(merged["embeddings.word_embeddings.weight"], plain["embeddings.word_embeddings.weight"])


def test_the_folder_loads_like_any_other(
    tiny_xlmr: Path, student_corpus: StudentCorpus, sentences: list[str], tmp_path: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    encoder = build(tiny_xlmr, student_corpus, dense_dim=5, dropout=0.1)
    train(encoder, sentences)
    use_sparse_embedding(encoder)  # as the training loop does
    save_encoder(encoder, tmp_path / "student")
    expected = encoder.encode(sentences)
    ours = load_encoder(str(tmp_path / "student"))
    assert not has_adapter(ours.backbone)
    torch.testing.assert_close(ours.encode(sentences), expected, rtol=0, atol=1e-5)
    peer = SentenceTransformer(str(tmp_path / "student"), device="cpu")
    torch.testing.assert_close(peer.encode(sentences, convert_to_tensor=True), expected, rtol=0, atol=1e-5)
    assert has_adapter(encoder.backbone)  # saving changes nothing


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft reads it
def test_adapters_of_several_languages_switch_on_one_body(
    tiny_bert: Path, student_corpus: StudentCorpus, sentences: list[str], tmp_path: Path
) -> None:
    from peft import PeftModel

    expected: dict[str, torch.Tensor] = {}
    for number, language in enumerate(("de", "ru")):
        encoder = build(tiny_bert, student_corpus, seed=number)
        train(encoder, sentences[8 * number :])
        save_encoder(encoder, tmp_path / language)
        expected[language] = encoder.encode(sentences)
    assert (expected["de"] - expected["ru"]).abs().max() > 0.01
    one = load_encoder(str(tiny_bert))
    backbone = PeftModel.from_pretrained(one.backbone, str(tmp_path / "de" / "adapter"), adapter_name="de")
    backbone.load_adapter(str(tmp_path / "ru" / "adapter"), adapter_name="ru")
    for language in ("ru", "de"):
        backbone.set_adapter(language)
        torch.testing.assert_close(one.encode(sentences), expected[language], rtol=0, atol=1e-6)
    record = json.loads((tmp_path / "de" / "adapter" / "adapter_config.json").read_text())
    assert record["base_model_name_or_path"] == str(tiny_bert)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft reads it
def test_a_trimmed_student_of_a_package_leaves_an_adapter_that_peft_opens(
    tiny_bert: Path, student_corpus: StudentCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft import AutoPeftModelForFeatureExtraction
    from safetensors.torch import load_file

    (tmp_path / "a_model_package").mkdir()
    (tmp_path / "a_model_package" / "__init__.py").touch()
    (tmp_path / "a_model_package" / "model").symlink_to(tiny_bert)
    monkeypatch.syspath_prepend(tmp_path)
    student = PretrainedStudent(
        model="package:a_model_package", trimming=Trimming(enabled=True), adapters=Adapters(enabled=True, rank=2)
    )
    encoder = student.build(student_corpus, normalize=False, seed=1)
    whole: Any = load_encoder(str(tiny_bert)).backbone
    backbone: Any = encoder.backbone
    assert backbone.config.vocab_size < whole.config.vocab_size
    save_encoder(encoder, tmp_path / "student")  # any warning fails a test
    folder = tmp_path / "student" / "adapter"
    assert all(".lora_" in name for name in load_file(folder / "adapter_model.safetensors"))
    record = json.loads((folder / "adapter_config.json").read_text())
    assert record["base_model_name_or_path"] == str(tmp_path / "a_model_package" / "model")
    backbone = AutoPeftModelForFeatureExtraction.from_pretrained(str(folder), add_pooling_layer=False)
    assert backbone.peft_config["default"].r == 2


def test_a_missing_package_is_named(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find: Callable[..., Any] = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "peft" else find(name, *a))
    PretrainedStudent(model=str(tiny_bert)).check_files()
    with pytest.raises(MlkdError, match=r"E502.*peft\n.*mlkd\[adapters\]"):
        PretrainedStudent(model=str(tiny_bert), adapters=Adapters(enabled=True)).check_files()


def test_ranges() -> None:
    with pytest.raises(MlkdError) as caught:
        Adapters(rank=0, alpha=0, dropout=1.0)
    assert [(p.code, p.where) for p in caught.value.problems] == [
        ("E204", "rank"), ("E204", "alpha"), ("E204", "dropout"),
    ]  # fmt: skip
