"""STS: parity with sentence-transformers and scipy, undefined correlations, files and their faults."""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlkd.errors import MlkdError
from mlkd.tasks.sts import StsSet, StsTask

Write = Callable[..., str]
HEADER = ["score", "en1", "en2", "de1", "de2"]


def _sets(seed: int = 1, count: int = 60) -> list[StsSet]:
    generator = random.Random(seed)
    first = [f"s{generator.randrange(40)}" for _ in range(count)]
    second = [f"s{generator.randrange(40)}" for _ in range(count)]
    gold = [generator.randrange(0, 26) / 5 for _ in range(count)]
    return [StsSet("en-de", first, second, gold), StsSet("de-de", second, second[::-1], gold)]


def test_equals_sentence_transformers(hash_encoder: Any, as_sentence_transformer: Any) -> None:
    from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator

    encoder = hash_encoder()
    metrics = StsTask().score(_sets(), encoder).as_metrics()
    for pairs in _sets():
        evaluator = EmbeddingSimilarityEvaluator(
            pairs.first,
            pairs.second,
            pairs.gold,
            similarity_fn_names=["cosine", "dot", "euclidean", "manhattan"],
            write_csv=False,
        )
        theirs = evaluator(as_sentence_transformer(encoder))
        for ours, name in {
            "spearman": "spearman_cosine",
            "pearson": "pearson_cosine",
            "spearman_dot": "spearman_dot",
            "spearman_euclidean": "spearman_euclidean",
            "spearman_manhattan": "spearman_manhattan",
        }.items():
            assert metrics[f"sts/{pairs.pair}/{ours}"] == pytest.approx(100 * theirs[name], abs=1e-6)
    pair_scores = [metrics["sts/en-de/spearman"], metrics["sts/de-de/spearman"]]
    assert metrics["sts/mean/spearman"] == pytest.approx(sum(pair_scores) / 2)


def test_hand_computed(table_encoder: Any) -> None:
    # Cosines 1, 0.6, 0 against gold 5, 1, 2: ranks 3 2 1 and 3 1 2, Spearman 1 - 6 * 2 / (3 * 8) = 0.5.
    encoder = table_encoder({"a": [1.0, 0.0], "b": [0.6, 0.8], "c": [0.0, 2.0]})
    result = StsTask().score([StsSet("en-en", ["a", "a", "a"], ["a", "b", "c"], [5.0, 1.0, 2.0])], encoder)
    assert result.as_metrics()["sts/en-en/spearman"] == pytest.approx(50.0)
    assert [(s.language, s.metric) for s in result.scores][:2] == [("en-en", "spearman"), ("en-en", "pearson")]


@pytest.mark.parametrize("is_gold_constant", [True, False])
def test_constant_scores_are_undefined_and_never_nan(is_gold_constant: bool, table_encoder: Any) -> None:
    encoder = table_encoder({"a": [1.0, 0.0], "b": [1.0, 0.0] if not is_gold_constant else [0.0, 1.0]})
    gold = [3.0, 3.0] if is_gold_constant else [1.0, 2.0]
    result = StsTask().score([StsSet("en-en", ["a", "a"], ["a", "b"], gold)], encoder)
    assert all(score.value is None for score in result.scores)
    assert "en-en/spearman" in result.details["undefined"]
    assert result.as_metrics() == {}


def test_each_text_is_encoded_once(hash_encoder: Any) -> None:
    encoder = hash_encoder()
    sets = _sets()
    StsTask().score(sets, encoder)
    assert sorted(encoder.asked) == sorted(set(StsTask().texts(sets)))


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(list(range(60))))
def test_order_of_rows_changes_nothing_but_the_hash(order: list[int], request: pytest.FixtureRequest) -> None:
    encoder = request.getfixturevalue("hash_encoder")()
    before = _sets()[0]
    permuted = StsSet(
        "en-de", [before.first[i] for i in order], [before.second[i] for i in order], [before.gold[i] for i in order]
    )
    expected, found = (StsTask().score([pairs], encoder) for pairs in (before, permuted))
    assert found.as_metrics() == pytest.approx(expected.as_metrics(), abs=1e-9)
    assert (found.data_sha256 == expected.data_sha256) == (order == sorted(order))


def test_wide_file(write: Write) -> None:
    path = write("sts.tsv", HEADER, ["5.000", "a", "b", "A", "B"], ["0", "NA", '"c', "C", "D"])
    english_german, german = StsTask(path=path, pairs=["en-de", "de-de"]).load()
    assert english_german == StsSet("en-de", ["a", "NA"], ["B", "D"], [5.0, 0.0])
    assert german == StsSet("de-de", ["A", "C"], ["B", "D"], [5.0, 0.0])


def test_one_compressed_file_for_each_pair(tmp_path: Path) -> None:
    for pair in ("en-de", "fr-en"):
        with gzip.open(tmp_path / f"{pair}.tsv.gz", "wb") as file:
            file.write(f"sentence1\tsentence2\tscore\nx {pair}\ty\t2.5\n".encode())
    sets = StsTask(path=str(tmp_path / "{pair}.tsv.gz"), pairs=["en-de", "fr-en"]).load()
    assert [pairs.first for pairs in sets] == [["x en-de"], ["x fr-en"]]


def test_all_bad_scores_and_pairs_are_named_together(write: Write) -> None:
    path = write(
        "sts.tsv",
        HEADER,
        ["x", "a", "b", "A", "B"],
        ["nan", "a", "b", "A", "B"],
        ["5.1", "a", "b", "A", "B"],
        ["-1", "a", "b", "A", "B"],
    )
    with pytest.raises(MlkdError) as caught:
        StsTask(path=path, pairs=["en-de", "en-fr"]).load()
    text = str(caught.value)
    assert f"error[E314]: {path}:2: score 'x' is no number in [0, 5]" in text
    assert f"{path}:3: score 'nan'" in text and f"{path}:4: score '5.1'" in text and "; 1 more" in text
    assert "error[E307]" in text and "fr2" in text
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pairs": ["en-de", "en-False"]}, r"E206.*pairs\[1\].*boolean False"),
        ({"pairs": ["ende"]}, r"E207.*'ende' is no pair"),
        ({"pairs": ["en-de", "en-de"]}, r"E204.*listed twice"),
        ({"pairs": []}, r"E204.*pairs"),
        ({"path": "a", "dataset": "b"}, r"E209.*set only one of path \(a\) and dataset \(b\)"),
        ({"name": "a/b"}, r"E204.*name"),
    ],
)
def test_bad_fields(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(MlkdError, match=message):
        StsTask(**fields)


def test_unknown_placeholder_is_named() -> None:
    with pytest.raises(MlkdError, match=r"E204.*\{language\}.*known here: \{pair\}, \{first\}, \{second\}"):
        StsTask(path="sts/{language}.tsv").load()


def test_nan_vectors_are_refused(table_encoder: Any) -> None:
    encoder = table_encoder({"a": [1.0, 0.0], "b": [float("nan"), 0.0]})
    with pytest.raises(MlkdError, match=r"E601.*1 of 2 vectors.*'b'"):
        StsTask().score([StsSet("en-en", ["a"], ["b"], [1.0])], encoder)


def test_embedded_sets_load_and_score(hash_encoder: Any) -> None:
    sets = StsTask().load()
    assert [pairs.pair for pairs in sets] == StsTask().pairs
    assert all(len(pairs.gold) >= 50 and len(set(pairs.gold)) > 3 for pairs in sets)
    assert torch.isfinite(torch.tensor(list(StsTask().score(sets, hash_encoder()).as_metrics().values()))).all()
    with pytest.raises(MlkdError, match=r"E207.*the embedded set has no 'fr'"):
        StsTask(pairs=["en-fr"]).load()
