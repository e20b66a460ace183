"""Language bias: joint against separate correlations and pools, by hand, by brute force, and for a biased encoder."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from mlkd.errors import MlkdError
from mlkd.tasks import language_bias
from mlkd.tasks.language_bias import AlignedRows, JointStsTask, MixedPoolTask, align, mixed_hits
from mlkd.tasks.parallel import ParallelSet
from mlkd.tasks.sts.reading import StsSet
from mlkd.tasks.sts.task import StsTask

Write = Callable[..., str]
LANGUAGES = ("en", "de", "zh")


class BiasedEncoder:
    """`<language> <concept>`: the concept's vector, and beside it `bias` in the direction of the language."""

    def __init__(self, hash_encoder: Any, bias: float, noise: float = 0.0) -> None:
        self.concepts = hash_encoder(num_dimensions=8, key=lambda text: text.split()[-1], noise=noise)
        self.bias = bias

    def encode(self, texts: Sequence[str]) -> torch.Tensor:
        of_language = torch.tensor([[float(text.split()[0] == language) for language in LANGUAGES] for text in texts])
        return torch.cat([self.concepts.encode(texts), self.bias * of_language], dim=1)


def _sts_sets(seed: int = 3, count: int = 40) -> list[StsSet]:
    generator = random.Random(seed)
    numbers = [(generator.randrange(25), generator.randrange(25)) for _ in range(count)]
    gold = [generator.randrange(26) / 5 for _ in range(count)]
    return [
        StsSet(f"{a}-{b}", [f"{a} {n}" for n, _ in numbers], [f"{b} {n}" for _, n in numbers], gold)
        for a, b in (("en", "en"), ("en", "de"), ("de", "de"))
    ]


def test_joint_and_separate_equal_scipy(hash_encoder: Any) -> None:
    encoder, sets = BiasedEncoder(hash_encoder, bias=1.5, noise=0.2), _sts_sets()
    result = JointStsTask().score(sets, encoder)
    cosines, gold = [], []
    for pairs in sets:
        first, second = encoder.encode(pairs.first).double(), encoder.encode(pairs.second).double()
        cosines.append(torch.nn.functional.cosine_similarity(first, second).numpy())
        gold.append(pairs.gold)
    separate = [100 * spearmanr(own, wanted).statistic for own, wanted in zip(cosines, gold, strict=True)]
    joint = 100 * spearmanr(np.concatenate(cosines), np.concatenate(gold)).statistic
    metrics = result.as_metrics()
    assert [metrics[f"sts_joint/{pairs.pair}/separate"] for pairs in sets] == pytest.approx(separate, abs=1e-3)
    assert metrics["sts_joint/mean/separate"] == pytest.approx(sum(separate) / 3, abs=1e-3)
    assert metrics["sts_joint/mean/joint"] == pytest.approx(joint, abs=1e-3)
    assert metrics["sts_joint/mean/bias"] == metrics["sts_joint/mean/joint"] - metrics["sts_joint/mean/separate"]
    assert result.main == "joint"
    own = StsTask().score(sets, encoder).as_metrics()
    assert metrics["sts_joint/en-de/separate"] == own["sts/en-de/spearman"]


def test_joint_equals_sentence_transformers(hash_encoder: Any, as_sentence_transformer: Any) -> None:
    from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator

    encoder, sets = BiasedEncoder(hash_encoder, bias=1.5, noise=0.2), _sts_sets()
    first, second, gold = (
        [item for pairs in sets for item in getattr(pairs, side)] for side in ("first", "second", "gold")
    )
    evaluator = EmbeddingSimilarityEvaluator(first, second, gold, write_csv=False)
    theirs = evaluator(as_sentence_transformer(encoder))["spearman_cosine"]
    ours = JointStsTask().score(sets, encoder).as_metrics()["sts_joint/mean/joint"]
    assert ours == pytest.approx(100 * theirs, abs=1e-3)


def test_one_set_has_no_bias_and_preferring_a_pair_of_languages_is_one(hash_encoder: Any) -> None:
    numbers = range(20)
    # Gold falls as the concepts differ: identical ones 5, others 0. Both sets are ranked well by themselves.
    gold = [5.0] * 20 + [0.0] * 20
    others = [(n + 7) % 20 for n in numbers]
    sets = [
        StsSet(f"en-{b}", [f"en {n}" for n in numbers] * 2, [f"{b} {n}" for n in [*numbers, *others]], gold)
        for b in ("en", "de")
    ]
    fair = JointStsTask().score(sets, BiasedEncoder(hash_encoder, bias=0.0)).as_metrics()
    assert fair["sts_joint/mean/bias"] == pytest.approx(0.0, abs=2.0)
    biased = JointStsTask().score(sets, BiasedEncoder(hash_encoder, bias=9.0)).as_metrics()
    assert biased["sts_joint/mean/separate"] > 80
    assert biased["sts_joint/mean/bias"] < -20
    alone = JointStsTask().score(sets[:1], BiasedEncoder(hash_encoder, bias=9.0)).as_metrics()
    assert alone["sts_joint/mean/bias"] == 0.0


def test_constant_gold_leaves_the_bias_undefined(hash_encoder: Any) -> None:
    sets = [StsSet("en-de", ["en 1", "en 2"], ["de 1", "de 2"], [3.0, 3.0])]
    result = JointStsTask().score(sets, hash_encoder())
    assert result.as_metrics() == {}
    assert [score.metric for score in result.scores if score.language == "mean"] == ["separate", "joint", "bias"]


def test_three_rows_in_two_languages_by_hand() -> None:
    english = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.8, 0.6]], dtype=torch.float64)
    german = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.6, 0.8], [0.0, 0.0, 1.0]], dtype=torch.float64)
    # en 1 - de 1: right .6, best other German 0: found alone; among all, en 2 (.8) is nearer. en 2 - de 2: right .6,
    # de 1 has .96: missed. en 0: nothing else is near.
    separate, mixed = mixed_hits(torch.stack([english, german]), 0)
    assert separate.tolist() == [1.0, 1.0, 0.0] and mixed.tolist() == [1.0, 0.0, 0.0]
    # de 1 - en 1: right .6, en 2 has .96. de 2 - en 2: right .6, alone found; among all, de 1 (.8) is nearer.
    separate, mixed = mixed_hits(torch.stack([english, german]), 1)
    assert separate.tolist() == [1.0, 0.0, 1.0] and mixed.tolist() == [1.0, 0.0, 0.0]


def _rows(count: int) -> AlignedRows:
    return AlignedRows({language: [f"{language} {n}" for n in range(count)] for language in LANGUAGES}, 0)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), block=st.sampled_from([1, 200, 2**26]))
def test_equals_brute_force(seed: int, block: int) -> None:
    # Components of +-1: every comparison is exact, and ties are everywhere.
    pool = np.random.default_rng(seed).choice([-1.0, 1.0], size=(3, 6, 4)) / 2
    before = pool.copy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(language_bias, "_BLOCK_BYTES", block)
        for place in range(3):
            separate, mixed = mixed_hits(torch.from_numpy(pool), place)
            for n in range(6):
                query, expected = pool[place, n], []
                for other in set(range(3)) - {place}:
                    right = query @ pool[other, n]
                    own = all(right > query @ pool[other, m] for m in range(6) if m != n)
                    everywhere = all(right > query @ pool[lang, m] for lang in range(3) for m in range(6) if m != n)
                    expected.append((own, everywhere))
                assert (separate[n], mixed[n]) == tuple(np.mean(expected, axis=0))
    assert np.array_equal(pool, before)


def test_a_fair_encoder_loses_nothing_and_a_biased_one_much(hash_encoder: Any) -> None:
    rows = _rows(40)
    fair = MixedPoolTask().score(rows, BiasedEncoder(hash_encoder, bias=0.0))
    assert fair.as_metrics()["mixed_pool/mean/mixed"] == fair.as_metrics()["mixed_pool/mean/separate"] == 100
    biased = MixedPoolTask().score(rows, BiasedEncoder(hash_encoder, bias=9.0)).as_metrics()
    assert biased["mixed_pool/mean/separate"] > 70 and biased["mixed_pool/mean/mixed"] < 10
    difference = biased["mixed_pool/mean/mixed"] - biased["mixed_pool/mean/separate"]
    assert biased["mixed_pool/mean/bias"] == pytest.approx(difference)
    languages = [biased[f"mixed_pool/{language}/mixed"] for language in LANGUAGES]
    assert biased["mixed_pool/mean/mixed"] == pytest.approx(sum(languages) / 3)
    assert fair.protocol == "cosine top-1, pool of 3 languages"
    assert fair.item_scores["mean/mixed"].count == 40


def test_a_collapsed_encoder_finds_nothing() -> None:
    class Constant:
        def encode(self, texts: Sequence[str]) -> torch.Tensor:
            return torch.tensor([[0.1, 0.7, -0.3]]).repeat(len(texts), 1)

    metrics = MixedPoolTask().score(_rows(50), Constant()).as_metrics()
    assert metrics["mixed_pool/mean/mixed"] == metrics["mixed_pool/mean/separate"] == 0


@settings(max_examples=10, deadline=None)
@given(order=st.permutations(list(range(15))))
def test_order_of_rows_changes_nothing(order: list[int], request: pytest.FixtureRequest) -> None:
    encoder = BiasedEncoder(request.getfixturevalue("hash_encoder"), bias=1.0, noise=0.5)
    rows = _rows(15)
    permuted = AlignedRows({language: [texts[n] for n in order] for language, texts in rows.texts.items()}, 0)
    expected = MixedPoolTask().score(rows, encoder).as_metrics()
    assert MixedPoolTask().score(permuted, encoder).as_metrics() == pytest.approx(expected)
    assert 0 < expected["mixed_pool/mean/mixed"] < 100


def test_rows_are_aligned_by_english_and_repetitions_left_out() -> None:
    german = ParallelSet("de", ["a", "b", "c", "d"], ["A", "B", "C", "A"])
    chinese = ParallelSet("zh", ["b", "a", "d"], ["2", "1", "4"])
    # c has no Chinese; the German of d repeats a's.
    assert align([german, chinese]) == AlignedRows({"en": ["a", "b"], "de": ["A", "B"], "zh": ["1", "2"]}, 2)


def test_sets_without_common_english_are_refused(write: Write) -> None:
    write("en-de.tsv", ["en", "de"], ["one", "eins"], ["two", "zwei"])
    path = write("en-fr.tsv", ["en", "fr"], ["one", "un"], ["three", "trois"])
    with pytest.raises(MlkdError, match=r"E316.*de, fr have fewer than two English sentences in common"):
        MixedPoolTask(path=path.replace("-fr", "-{language}"), languages=["de", "fr"]).load()


def test_embedded_sets_load_and_score(hash_encoder: Any) -> None:
    task = MixedPoolTask()
    rows = task.load()
    assert list(rows.texts) == ["en", "de", "es", "ru", "zh"]
    assert len(rows.texts["en"]) > 300 and rows.num_left_out < 20
    assert len(list(task.texts(rows))) == 5 * len(rows.texts["zh"])
    assert task.score(rows, hash_encoder()).as_metrics()["mixed_pool/mean/mixed"] < 5
    joint = JointStsTask()
    assert -30 < joint.score(joint.load(), hash_encoder()).as_metrics()["sts_joint/mean/joint"] < 30
