"""What a batch holds: the right texts, the right teacher vectors, and the same ones after a restart."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mlkd.data.batches import Batches
from mlkd.data.pairs import LanguagePair
from mlkd.data.training_pairs import TrainingPairs
from mlkd.losses.feature import FeatureTarget, FeatureTerm
from mlkd.losses.mix import LossMix
from mlkd.losses.ranking.info_nce import InfoNceRanking
from mlkd.losses.ranking.negatives import Candidates, NegativePool
from mlkd.training.dataloader import TrainingData

NUM_PAIRS, BATCH = 24, 4
SOURCES = [f"source {n}" for n in range(NUM_PAIRS - 4)] + [f"source {n}" for n in range(4)]  # four come twice
TARGETS = [f"target {n}" for n in range(NUM_PAIRS)]
PAIRS = TrainingPairs.from_corpus([LanguagePair("en", "de", SOURCES, TARGETS)])
NEGATIVES = np.stack([(np.arange(NUM_PAIRS) + 1) % NUM_PAIRS, np.where(np.arange(NUM_PAIRS) % 2, 7, -1)], axis=1)


def data(seed: int = 3) -> TrainingData:
    tokens: Any = [np.array([n], dtype=np.int32) for n in range(len(PAIRS.texts))]
    targets: Any = SimpleNamespace(rows=lambda positions: torch.from_numpy(positions).float()[:, None] * 10)
    positions = np.arange(len(PAIRS.texts)) + 100
    return TrainingData(PAIRS, tokens, targets, positions, Batches([NUM_PAIRS], BATCH, seed=seed), NEGATIVES)


def mix(candidates: Candidates = Candidates.both, **settings: Any) -> LossMix:
    return LossMix(alpha=1.0, beta=0.0, ranking=InfoNceRanking(candidates=candidates, **settings))


def vectors_of(training: TrainingData, number: int, wanted: LossMix) -> Any:
    """PairVectors of a student whose vector of a text is the text's number."""
    batch = training.batch(number, wanted)
    return training.pair_vectors(batch, torch.tensor([[float(row[0])] for row in batch.tokens]))


def test_two_sides_and_nothing_else_by_default() -> None:
    training = data()
    rows = training.rows(2)
    batch = training.batch(2, LossMix())
    assert list(batch.student) == ["student_source_BD", "student_target_BD"]
    assert list(batch.teacher) == ["teacher_source_BE"]
    found = vectors_of(training, 2, LossMix())
    assert found.student_source_BD[:, 0].tolist() == PAIRS.source[rows].tolist()
    assert found.student_target_BD[:, 0].tolist() == PAIRS.target[rows].tolist()
    assert found.teacher_source_BE[:, 0].tolist() == (10 * (PAIRS.source[rows] + 100)).tolist()
    assert found.source_ids_B.tolist() == PAIRS.source[rows].tolist()
    assert found.teacher_target_BE is None
    assert (batch.num_tokens, batch.num_sentences) == (2 * BATCH, 2 * BATCH)


def test_teacher_on_the_translations() -> None:
    found = vectors_of(data(), 0, LossMix(feature=FeatureTerm(target=FeatureTarget.own)))
    assert found.teacher_target_BE is not None
    assert found.teacher_target_BE[:, 0].tolist() == (10 * (PAIRS.target[data().rows(0)] + 100)).tolist()


def test_second_pass_and_vectors_before_the_last_layer() -> None:
    training = data()
    batch = training.batch(1, mix(Candidates.dropout, hard_negatives=2))
    assert list(batch.student) == [
        "student_source_BD", "student_target_BD", "student_source_second_pass_BD", "student_negatives_KD",
    ]  # fmt: skip
    student = torch.tensor([[float(row[0])] for row in batch.tokens])
    found = training.pair_vectors(batch, student, -student)
    assert torch.equal(found.student_source_second_pass_BD, found.student_source_BD)
    assert torch.equal(found.student_source_pre_projection_BW, -found.student_source_BD)
    assert torch.equal(found.student_target_pre_projection_BW, -found.student_target_BD)
    # Sources alone are ranked, so their negatives are sources.
    assert found.student_negatives_KD[:, 0].tolist() == found.student_negative_ids_K.tolist()
    assert batch.num_sentences == 2 * BATCH


def test_mined_negatives_each_once_for_student_and_teacher() -> None:
    training = data()
    rows = training.rows(5)
    expected = sorted({int(n) for row in rows for n in NEGATIVES[row]} - {-1})
    found = vectors_of(training, 5, mix(hard_negatives=2))
    assert found.student_negatives_KD[:, 0].tolist() == PAIRS.target[expected].tolist()
    assert found.student_negative_ids_K.tolist() == PAIRS.source[expected].tolist()
    assert found.teacher_negatives_QE[:, 0].tolist() == (10 * (PAIRS.source[expected] + 100)).tolist()
    assert found.teacher_negative_ids_Q.tolist() == PAIRS.source[expected].tolist()
    student_only = vectors_of(training, 5, mix(Candidates.student, hard_negatives=2))
    assert student_only.teacher_negatives_QE is None
    teacher_only = vectors_of(training, 5, mix(Candidates.teacher, hard_negatives=2))
    assert teacher_only.student_negatives_KD is None
    assert torch.equal(teacher_only.teacher_negatives_QE, found.teacher_negatives_QE)


def test_the_queue_is_the_sources_of_the_batches_before() -> None:
    training = data()
    queue = mix(Candidates.teacher, teacher_negatives=6)
    assert vectors_of(training, 0, queue).teacher_negatives_QE.shape == (0, 1)
    for number in (1, 3, 6, 7, 20):  # 6 batches an epoch: the seventh reaches back into the epoch before
        recent: list[int] = []
        for before in range(number - 1, -1, -1):
            recent += [int(s) for s in PAIRS.source[training.rows(before)][::-1]]
        expected = list(dict.fromkeys(recent))[:6]
        found = vectors_of(data(), number, queue)
        assert found.teacher_negative_ids_Q.tolist() == expected
        assert found.teacher_negatives_QE[:, 0].tolist() == [10 * (s + 100) for s in expected]


def test_a_draw_from_the_cache_depends_on_seed_and_batch_alone() -> None:
    cache = mix(Candidates.teacher, teacher_negatives=8, teacher_negatives_from=NegativePool.cache)

    def drawn(seed: int, number: int) -> list[int]:
        ids: list[int] = vectors_of(data(seed), number, cache).teacher_negative_ids_Q.tolist()
        return ids

    assert drawn(3, 4) == drawn(3, 4)
    assert drawn(3, 4) != drawn(3, 5)
    assert drawn(3, 4) != drawn(4, 4)
    for number in range(20):
        ids = drawn(3, number)
        assert len(set(ids)) == 8
        assert max(ids) < PAIRS.num_sources
    assert {i for number in range(20) for i in drawn(3, number)} == set(range(PAIRS.num_sources))
    ranking = dataclasses.replace(cache.ranking, teacher_negatives=1000)  # type: ignore[type-var]
    everything = vectors_of(data(), 0, dataclasses.replace(cache, ranking=ranking))
    assert sorted(everything.teacher_negative_ids_Q.tolist()) == list(range(PAIRS.num_sources))


@pytest.mark.parametrize("number", [0, 5, 6, 13, 5, 0])
def test_batches_in_any_order(number: int) -> None:
    training = data()
    for other in (7, 0, 25, number):
        rows = training.rows(other)
    assert np.array_equal(rows, data().batches.epoch(number // 6)[number % 6])
    assert len(training._epochs) <= 2
