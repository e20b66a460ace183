"""Mined negatives: the nearest other sources of the same language, but nothing that may be a translation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mlkd.data.pairs import LanguagePair
from mlkd.data.training_pairs import Indices, TrainingPairs
from mlkd.errors import MlkdError
from mlkd.teacher.hard_negatives import NegativeMining, NegativeMiningPairs


def at_degrees(angles: Sequence[float]) -> Tensor:
    """Unit vectors of the plane."""
    radians = torch.deg2rad(torch.tensor(angles, dtype=torch.float64))
    return torch.stack([radians.cos(), radians.sin()], dim=1).float()


def knowledge(pairs: TrainingPairs, vectors: Tensor, *, reads_target: bool = False) -> NegativeMiningPairs:
    return NegativeMiningPairs(pairs, lambda texts: vectors[texts], reads_target=reads_target, key="teacher")


# Sources a to e at 0, 10, 30, 60 and 75 degrees; cosines: 10 -> 0.985, 20 -> 0.940, 30 -> 0.866, 45 -> 0.707.
ANGLES = [0, 10, 30, 60, 75]
PAIRS = TrainingPairs.from_corpus([LanguagePair("en", "de", list("abcde"), list("ABCDE"))])
VECTORS = torch.cat([at_degrees(ANGLES), at_degrees([0, 10, 30, 60, 60])])


def test_the_nearest_below_the_limit() -> None:
    mined = NegativeMining(max_similarity=0.95, margin=0.0).mine(knowledge(PAIRS, VECTORS), 2)
    # a: b is too near; b: a is; d and e are 15 degrees apart, too near as well (0.966).
    assert mined.tolist() == [[2, 3], [2, 3], [1, 0], [2, 1], [2, 1]]


def test_margin_counts_from_the_source_itself_without_translations() -> None:
    by_margin = NegativeMining(max_similarity=1.0, margin=0.05).mine(knowledge(PAIRS, VECTORS), 2)
    by_limit = NegativeMining(max_similarity=0.95, margin=0.0).mine(knowledge(PAIRS, VECTORS), 2)
    assert np.array_equal(by_margin, by_limit)


def test_margin_counts_from_the_translation_where_the_teacher_reads_it() -> None:
    known = knowledge(PAIRS, VECTORS, reads_target=True)
    assert known.similarity() == pytest.approx([1, 1, 1, 1, np.cos(np.deg2rad(15))], abs=1e-6)
    mined = NegativeMining(max_similarity=1.0, margin=0.02).mine(known, 1)
    # Limit 0.98 but for e, whose own translation is at 0.966: its limit is 0.946, and d at 0.966 is out.
    assert mined[:, 0].tolist() == [2, 2, 1, 4, 2]


def test_few_candidates_leave_places_empty() -> None:
    mined = NegativeMining(max_similarity=0.95, margin=0.0, candidates=1).mine(knowledge(PAIRS, VECTORS), 2)
    assert mined.tolist() == [[-1, -1], [-1, -1], [1, -1], [-1, -1], [-1, -1]]
    more = NegativeMining(max_similarity=1.0, margin=0.0).mine(knowledge(PAIRS, VECTORS), 6)
    assert more.shape == (5, 6)
    assert (more == -1).sum(axis=1).tolist() == [2] * 5  # there are only four other sources


def test_each_language_by_itself_and_no_translation_as_negative() -> None:
    pairs = TrainingPairs.from_corpus(
        [
            # c is also translated as A: c is no negative of a's pair then, whatever its similarity.
            LanguagePair("en", "de", list("abcc"), ["A", "B", "C", "A"]),
            LanguagePair("en", "es", list("da"), list("XY")),
            LanguagePair("en", "fr", ["e"], ["Z"]),
            LanguagePair("en", "it", [], []),
        ]
    )
    vectors = at_degrees([{"a": 0, "b": 40, "c": 20, "d": 90, "e": 21}.get(text, 0) for text in pairs.texts])
    mined = NegativeMining(max_similarity=0.99).mine(knowledge(pairs, vectors), 2)
    assert pairs.source[:4].tolist() == [0, 1, 2, 2]
    # a's nearest, c (pair 2, its first), is translated "C" there, which never stands beside a: allowed.
    assert mined[0].tolist() == [2, 1]
    assert mined[1].tolist() == [2, 0]
    # c's nearest is b or a at 20 degrees each; a's pair is translated "A", which stands beside c.
    assert mined[2].tolist() == mined[3].tolist() == [1, -1]
    assert mined[4].tolist() == [5, -1]  # Spanish pairs see each other alone
    assert mined[5].tolist() == [4, -1]
    assert mined[6].tolist() == [-1, -1]


def test_repeated_sources_stand_for_one_candidate() -> None:
    pairs = TrainingPairs.from_corpus([LanguagePair("en", "de", list("abbbc"), list("ABDEC"))])
    vectors = at_degrees([{"a": 0, "b": 30, "c": 60}.get(text, 0) for text in pairs.texts])
    mined = NegativeMining(candidates=2).mine(knowledge(pairs, vectors), 2)
    assert mined.tolist() == [[1, 4], [0, 4], [0, 4], [0, 4], [1, 0]]


def brute_force(pairs: TrainingPairs, vectors: Tensor, limit: float, number: int) -> list[list[int]]:
    unit = torch.nn.functional.normalize(vectors, dim=1)
    beside = set(zip(pairs.source.tolist(), pairs.target.tolist(), strict=True))
    rows = []
    start = 0
    for size in pairs.language_sizes:
        language = range(start, start + size)
        firsts = {int(pairs.source[p]): p for p in reversed(language)}
        for pair in language:
            own = int(pairs.source[pair])
            near = sorted((-float(unit[own] @ unit[s]), s) for s in firsts if s != own)
            kept = [
                firsts[s] for minus, s in near if -minus <= limit and (own, int(pairs.target[firsts[s]])) not in beside
            ]
            rows.append((kept + [-1] * number)[:number])
        start += size
    return rows


def test_it_is_the_brute_force_answer() -> None:
    generator = np.random.default_rng(0)
    texts = [f"s{n}" for n in range(40)]
    languages = [
        LanguagePair("en", name, [texts[i] for i in chosen], [f"{name}{i % 7}" for i in chosen])
        for name, chosen in (("de", generator.integers(0, 40, 60)), ("es", generator.integers(0, 40, 25)))
    ]
    pairs = TrainingPairs.from_corpus(languages)
    vectors = torch.from_numpy(generator.normal(size=(len(pairs.texts), 4))).float()
    mined = NegativeMining(max_similarity=0.8, margin=0.0, candidates=40).mine(knowledge(pairs, vectors), 3)
    assert mined.tolist() == brute_force(pairs, vectors, 0.8, 3)


def test_it_is_kept_and_found_again(tmp_path: Path) -> None:
    asked: list[Indices] = []

    def vectors(texts: Indices) -> Tensor:
        asked.append(texts)
        return VECTORS[texts]

    known = NegativeMiningPairs(PAIRS, vectors, reads_target=False, key="teacher")
    mining = NegativeMining(max_similarity=0.95)
    first = mining.open_or_mine(tmp_path, known, 2)
    num_asked = len(asked)
    assert num_asked > 0
    assert np.array_equal(mining.open_or_mine(tmp_path, known, 2), first)
    assert len(asked) == num_asked
    assert np.array_equal(first, mining.mine(known, 2))
    # Other settings, numbers, teachers and texts have files of their own.
    mining.open_or_mine(tmp_path, known, 1)
    NegativeMining(max_similarity=0.8).open_or_mine(tmp_path, known, 2)
    mining.open_or_mine(tmp_path, NegativeMiningPairs(PAIRS, vectors, reads_target=False, key="other"), 2)
    mining.open_or_mine(tmp_path, NegativeMiningPairs(PAIRS, vectors, reads_target=True, key="teacher"), 2)
    other = TrainingPairs.from_corpus([LanguagePair("en", "de", list("abcde"), list("ABCEF"))])
    mining.open_or_mine(tmp_path, knowledge(other, VECTORS), 2)
    assert len(list((tmp_path / "negatives").iterdir())) == 6


def test_ranges() -> None:
    with pytest.raises(MlkdError) as caught:
        NegativeMining(max_similarity=1.5, margin=-0.1, candidates=0)
    assert [problem.where for problem in caught.value.problems] == ["max_similarity", "margin", "candidates"]
