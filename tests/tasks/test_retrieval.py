"""Large retrieval: hand-counted hits, blocks and half precision, distinct texts, files, a disk that is too small."""

from __future__ import annotations

import gzip
import random
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlkd.errors import MlkdError
from mlkd.knn.neighbours import NeighbourSearch
from mlkd.tasks import memory_mapped as mapped_vectors
from mlkd.tasks.memory_mapped import DistinctTexts, VectorDtype, encode_to_file, nearest_both_ways_on_disk
from mlkd.tasks.parallel import ParallelSet
from mlkd.tasks.retrieval import HitCriterion, RetrievalTask
from mlkd.tasks.tatoeba import TatoebaTask

Write = Callable[..., str]


def _concept(text: str) -> str:
    return text.rsplit(maxsplit=1)[-1]


def _search() -> NeighbourSearch:
    return NeighbourSearch(device="cpu")


def test_three_pairs_counted_by_hand(table_encoder: Any) -> None:
    encoder = table_encoder(
        {"one": [1.0, 0.0], "two": [0.0, 1.0], "eins": [5.0, 1.0], "zwei": [4.0, 1.0], "drei": [0.0, 2.0]}
    )
    sets = [ParallelSet("de", ["one", "two", "one"], ["eins", "zwei", "drei"])]
    # one -> eins, two -> drei (wrong), one -> eins (wrong); eins -> one, zwei -> one (wrong), drei -> two (wrong).
    result = RetrievalTask().score(sets, encoder)
    assert result.protocol == "cosine top-1, identical texts count"
    third = pytest.approx(100 / 3)
    expected = {"en->xx": third, "xx->en": third, "p@1": third}
    assert result.as_metrics() == {f"retrieval/{who}/{m}": v for who in ("de", "mean") for m, v in expected.items()}
    assert result.item_scores["de/p@1"].values_N.tolist() == [1.0, 0.0, 0.0]


def test_equal_texts_count_or_not(table_encoder: Any) -> None:
    encoder = table_encoder({"yes": [1.0, 0.0], "no": [0.0, 1.0], "ja": [1.0, 0.1], "nein": [0.0, 1.0]})
    sets = [ParallelSet("de", ["yes", "no", "yes"], ["ja", "nein", "ja"])]
    assert RetrievalTask().score(sets, encoder).as_metrics()["retrieval/mean/p@1"] == 100
    same_line = RetrievalTask(hit=HitCriterion.same_line).score(sets, encoder)
    assert same_line.protocol == "cosine top-1, only the same line counts"
    # The third line finds the first one's text, which stands on line one.
    assert same_line.as_metrics()["retrieval/mean/p@1"] == pytest.approx(200 / 3)


def test_equals_tatoeba_in_any_blocks(hash_encoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = hash_encoder(num_dimensions=6, key=_concept, noise=0.6)
    numbers = [random.Random(5).randrange(80) for _ in range(5)] + list(range(80))
    sets = [ParallelSet("de", [f"en {n}" for n in numbers], [f"de {n}" for n in numbers])]
    tatoeba = TatoebaTask().score(sets, encoder).as_metrics()
    expected = {
        "retrieval/de/en->xx": tatoeba["tatoeba/de/en->xx"],
        "retrieval/de/xx->en": tatoeba["tatoeba/de/xx->en"],
        "retrieval/de/p@1": pytest.approx(tatoeba["tatoeba/de/accuracy"]),
    }
    assert 20 < tatoeba["tatoeba/de/accuracy"] < 100
    monkeypatch.setattr(mapped_vectors, "_TEXTS_AT_ONCE", 7)
    for storage in VectorDtype:
        metrics = RetrievalTask(vectors=storage).score(sets, encoder).as_metrics()
        assert {key: metrics[key] for key in expected} == expected
    # Every distinct text once for each of the two.
    assert len(encoder.asked) == 3 * 160


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), block=st.integers(1, 9), sizes=st.tuples(st.integers(1, 12), st.integers(1, 12)))
def test_blocks_change_nothing(seed: int, block: int, sizes: tuple[int, int]) -> None:
    generator = np.random.default_rng(seed)
    # Components of +-1/2: cosines are exact and ties are everywhere.
    source, target = (generator.choice([-0.5, 0.5], size=(size, 4)).astype(np.float32) for size in sizes)
    before = source.copy(), target.copy()
    forward, backward = nearest_both_ways_on_disk(_search(), source, target, block)  # type: ignore[arg-type]
    similarity = source.astype(np.float64) @ target.T.astype(np.float64)
    assert forward.tolist() == similarity.argmax(axis=1).tolist()
    assert backward.tolist() == similarity.argmax(axis=0).tolist()
    assert np.array_equal(source, before[0]) and np.array_equal(target, before[1])


def test_vectors_lie_in_the_file(tmp_path: Path, hash_encoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped_vectors, "_TEXTS_AT_ONCE", 3)
    texts = [f"text {n}" for n in range(8)]
    expected = torch.nn.functional.normalize(hash_encoder().encode(texts), dim=1).numpy()
    for storage, size in ((VectorDtype.fp32, 4), (VectorDtype.fp16, 2)):
        path = tmp_path / storage.value
        vectors = encode_to_file(hash_encoder(), texts, path, storage)
        assert path.stat().st_size == 8 * 24 * size
        assert np.abs(vectors - expected).max() < (1e-6 if storage is VectorDtype.fp32 else 1e-3)


def test_files_are_removed(hash_encoder: Any, tmp_path: Path) -> None:
    seen: list[list[str]] = []

    class Spy:
        def encode(self, texts: Sequence[str]) -> torch.Tensor:
            seen.append([str(path) for path in tmp_path.rglob("*") if path.is_file()])
            return torch.as_tensor(hash_encoder().encode(texts))

    task = RetrievalTask(vectors_dir=str(tmp_path))
    task.score([ParallelSet("de", ["a", "b"], ["c", "d"])], Spy())
    assert len(seen[1]) == 1, "the first side's vectors are in vectors_dir while the second side is encoded"
    assert list(tmp_path.iterdir()) == []


def test_nan_and_a_full_disk(hash_encoder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def encode(self, texts: Sequence[str]) -> torch.Tensor:
            return torch.tensor([[1.0, float("nan") if text == "bad" else 0.0] for text in texts])

    with pytest.raises(MlkdError, match=r"E601.*1 of 2 vectors.*'bad'"):
        encode_to_file(Broken(), ["good", "bad"], tmp_path / "v")
    monkeypatch.setattr(mapped_vectors.shutil, "disk_usage", lambda path: SimpleNamespace(free=10))
    with pytest.raises(MlkdError, match=r"E503.*GiB do not fit"):
        encode_to_file(hash_encoder(), ["a"], tmp_path / "v")
    with pytest.raises(MlkdError, match=r"E204.*vectors_dir.*is no folder"):
        RetrievalTask(vectors_dir=str(tmp_path / "absent"))


def test_distinct_texts() -> None:
    found = DistinctTexts(["b", "a", "b", "c", "a"])
    assert found.texts == ["b", "a", "c"]
    assert found.row_of_line.tolist() == [0, 1, 0, 2, 1]
    assert found.first_line.tolist() == [0, 1, 3]


def test_un_layout_compressed_and_repeated_pairs(tmp_path: Path) -> None:
    for side, lines in {"en": ["one", "two", "one", "one"], "fr": ["un", "deux", "un", "une"]}.items():
        with gzip.open(tmp_path / f"UNv1.0.testset.{side}.gz", "wb") as file:
            file.write("".join(f"{line}\n" for line in lines).encode())
    task = RetrievalTask(path=str(tmp_path / "UNv1.0.testset.{side}.gz"), languages=["fr"], distinct_pairs=True)
    assert task.load() == [ParallelSet("fr", ["one", "two", "one"], ["un", "deux", "une"])]
    assert len(list(task.texts(task.load()))) == 6
    assert RetrievalTask(path=task.path, languages=["fr"]).load()[0].source == ["one", "two", "one", "one"]
    protocol = task.score(task.load(), _AnyEncoder()).protocol
    assert protocol == "cosine top-1, identical texts count, distinct pairs"


def test_lines_that_do_not_align(write: Write) -> None:
    write("t.en", ["one"], ["two"])
    path = write("t.fr", ["un"])
    with pytest.raises(MlkdError, match=r"E316.*en 2, .*fr 1"):
        RetrievalTask(path=path.replace(".fr", ".{side}"), languages=["fr"]).load()


@settings(max_examples=10, deadline=None)
@given(order=st.permutations(list(range(30))))
def test_order_of_lines_changes_nothing(order: list[int], request: pytest.FixtureRequest) -> None:
    encoder = request.getfixturevalue("hash_encoder")(num_dimensions=6, key=_concept, noise=0.6)
    english, foreign = [f"en {n}" for n in range(30)], [f"de {n}" for n in range(30)]
    expected = RetrievalTask().score([ParallelSet("de", english, foreign)], encoder).as_metrics()
    permuted = [ParallelSet("de", [english[n] for n in order], [foreign[n] for n in order])]
    assert RetrievalTask().score(permuted, encoder).as_metrics() == pytest.approx(expected)


class _AnyEncoder:
    def encode(self, texts: Sequence[str]) -> torch.Tensor:
        return torch.randn(len(texts), 4, generator=torch.Generator().manual_seed(1))


def test_the_default_folder_is_the_systems(hash_encoder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    task = RetrievalTask(languages=["de"])
    result = task.score(task.load(), hash_encoder())
    assert 0 <= result.as_metrics()["retrieval/mean/p@1"] < 20
    assert list(tmp_path.iterdir()) == []
