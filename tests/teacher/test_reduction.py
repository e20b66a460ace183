"""The teacher in fewer dimensions: principal directions, a trained dense layer, and their cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mlkd.data.training_pairs import TrainingPairs
from mlkd.errors import MlkdError
from mlkd.losses.similarity_matrices import cosine_matrix
from mlkd.teacher.reduction import ReducedTeacher, ReductionMethod, TaughtPairs, TeacherReduction, principal_directions
from mlkd.teacher.vector_store import VectorStore

PCA = TeacherReduction(method=ReductionMethod.pca)
NUM_SOURCES = 40


def taught(folder: Path, vectors: Tensor, *, num_sources: int = NUM_SOURCES, unknown: int = 0) -> TaughtPairs:
    """Text i has row i of `vectors`; source i stands beside text num_sources + i; the last `unknown` have no vector."""
    texts = [f"text {i}" for i in range(len(vectors))]
    store = VectorStore(folder)
    store.append(texts, vectors)
    store.reload()
    positions = store.positions(texts)
    positions[len(positions) - unknown :] = -1
    num_pairs = len(vectors) - num_sources
    pairs = TrainingPairs(texts, num_sources, np.arange(num_pairs), np.arange(num_pairs) + num_sources, [num_pairs])
    return TaughtPairs(pairs, store, positions)


def cross_lingual(seed: int = 0) -> Tensor:
    """Sources, then their translations: the meaning in 4 of 12 dimensions, louder noise of the language elsewhere."""
    generator = torch.Generator().manual_seed(seed)
    meaning = torch.randn(NUM_SOURCES, 4, generator=generator)
    noise = 3 * torch.randn(2 * NUM_SOURCES, 8, generator=generator)
    return torch.nn.functional.normalize(torch.cat([meaning.repeat(2, 1), noise], dim=1), dim=1)


def top_1(vectors: Tensor) -> float:
    """Share of sources whose translation is the nearest one."""
    source, target = vectors.chunk(2)
    return float((cosine_matrix(source, target).argmax(dim=1) == torch.arange(len(source))).float().mean())


def test_principal_directions_are_those_of_the_covariance(tmp_path: Path) -> None:
    vectors = torch.randn(60, 7, generator=torch.Generator().manual_seed(1)) * torch.arange(1, 8) + 5
    found = principal_directions(taught(tmp_path, vectors, unknown=10), 3)
    known = vectors[:50].double().numpy()
    _, _, directions = np.linalg.svd(known - known.mean(axis=0), full_matrices=False)
    for ours, reference in zip(found.double().numpy(), directions[:3], strict=True):
        sign = np.sign(reference[np.argmax(np.abs(reference))])
        assert np.allclose(ours, sign * reference, atol=1e-6)
    assert torch.allclose(found @ found.T, torch.eye(3), atol=1e-6)


def test_vectors_of_few_dimensions_lose_nothing(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(2)
    flat = torch.randn(60, 3, generator=generator) @ torch.randn(3, 9, generator=generator)
    space = PCA.fit(taught(tmp_path, flat), 3)
    reduced = space(flat)
    assert reduced.shape == (60, 3) and space.dimension == 3
    assert reduced.dtype == torch.float32
    assert torch.allclose(cosine_matrix(reduced, reduced), cosine_matrix(flat, flat), atol=1e-5)
    assert torch.allclose(reduced.norm(dim=1), flat.norm(dim=1), rtol=1e-5)  # not of unit norm, so neither are these


def test_a_trained_dense_keeps_what_translations_share(tmp_path: Path) -> None:
    vectors = cross_lingual()
    material = taught(tmp_path, vectors)
    dense = TeacherReduction(steps=1000, batch_size=32, lr=0.02).fit(material, 4)
    assert top_1(vectors) < 0.5
    assert top_1(PCA.fit(material, 4)(vectors)) < 0.5  # the noise has the larger variance
    assert top_1(dense(vectors)) == 1.0
    assert torch.allclose(dense(vectors).norm(dim=1), torch.ones(len(vectors)))  # as the teacher's own
    assert torch.equal(material.rows(np.arange(len(vectors))), vectors)  # the teacher is frozen


def test_the_same_inputs_give_the_same_bits(tmp_path: Path) -> None:
    material = taught(tmp_path, cross_lingual())
    one, two = (TeacherReduction(steps=20, batch_size=32).fit(material, 4) for _ in range(2))
    assert all(torch.equal(one.tensors[name], two.tensors[name]) for name in one.tensors)
    other = TeacherReduction(steps=20, batch_size=32, seed=2).fit(material, 4)
    assert not torch.equal(one.tensors["weight"], other.tensors["weight"])


def test_the_cache_is_named_by_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    material = taught(tmp_path / "store", cross_lingual())
    reduction = TeacherReduction(steps=3, batch_size=8)
    first = reduction.open_or_fit(tmp_path, material, 4)
    names = {
        reduction.fingerprint(material, 4),
        reduction.fingerprint(material, 5),
        TeacherReduction(steps=4, batch_size=8).fingerprint(material, 4),
        PCA.fingerprint(material, 4),
        reduction.fingerprint(taught(tmp_path / "other", cross_lingual(), unknown=1), 4),
    }
    assert len(names) == 5
    assert PCA.fingerprint(material, 4) == TeacherReduction(method=ReductionMethod.pca, steps=9).fingerprint(
        material, 4
    )  # steps mean nothing to it
    assert [path.name for path in tmp_path.glob("*.reduction")] == [f"{reduction.fingerprint(material, 4)}.reduction"]

    def forbidden(*_: object) -> None:
        raise AssertionError("made again")

    monkeypatch.setattr(TeacherReduction, "fit", forbidden)
    cached = reduction.open_or_fit(tmp_path, material, 4)
    assert all(torch.equal(first.tensors[name], cached.tensors[name]) for name in first.tensors)
    with pytest.raises(AssertionError, match="made again"):
        reduction.open_or_fit(tmp_path, material, 3)


def test_the_reduced_teacher_is_an_encoder(tmp_path: Path) -> None:
    vectors = cross_lingual()
    space = PCA.fit(taught(tmp_path, vectors), 5)

    class Rows:
        def encode(self, texts: list[str]) -> Tensor:
            return vectors[[int(text) for text in texts]]

    assert torch.equal(ReducedTeacher(Rows(), space).encode(["7", "3"]), space(vectors)[[7, 3]])


def test_all_problems_come_together() -> None:
    with pytest.raises(MlkdError) as caught:
        TeacherReduction(dim=0, steps=0, batch_size=1, lr=0.0, scale=-1.0, margin=-0.1)
    assert sorted(p.where for p in caught.value.problems) == ["batch_size", "dim", "lr", "margin", "scale", "steps"]
    assert {p.code for p in caught.value.problems} == {"E204"}
