"""xsim and xsim++: the reference algorithm in float64, kinds of error counted by hand, published layouts, faults."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlkd.errors import MlkdError
from mlkd.knn.margins import Margin
from mlkd.knn.neighbours import NeighbourSearch
from mlkd.tasks.parallel import ParallelSet
from mlkd.tasks.xsim.reading import Augmented, read_augmented
from mlkd.tasks.xsim.task import XsimData, XsimTask

Write = Callable[..., str]


def _concept(text: str) -> str:
    return text.rsplit(maxsplit=1)[-1]


def _cpu() -> NeighbourSearch:
    return NeighbourSearch(device="cpu")


def reference_error(x: np.ndarray, y: np.ndarray, texts: list[str], margin: str, k: int) -> float:
    """LASER's xsim with whole similarity rows: `texts` belong to y, the first len(x) of them to x's translations."""
    x, y = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (x, y))
    similarity = x @ y.T
    near_x = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    near_y = np.argsort(-similarity.T, axis=1, kind="stable")[:, :k]
    mean_x = np.take_along_axis(similarity, near_x, 1).mean(axis=1)
    mean_y = np.take_along_axis(similarity.T, near_y, 1).mean(axis=1)
    wrong = 0
    for row, near in enumerate(near_x):
        scores = []
        for column in near:
            a, b = similarity[row, column], (mean_x[row] + mean_y[column]) / 2
            scores.append({"ratio": a / b, "distance": a - b, "absolute": a}[margin])
        wrong += texts[near[int(np.argmax(scores))]] != texts[row]
    return 100 * wrong / len(x)


@pytest.mark.parametrize("margin", list(Margin))
@pytest.mark.parametrize("num_augmented", [0, 40])
@pytest.mark.parametrize("k", [1, 4])
def test_equals_the_reference_algorithm(hash_encoder: Any, margin: Margin, num_augmented: int, k: int) -> None:
    encoder = hash_encoder(num_dimensions=8, key=_concept, noise=0.7)
    numbers = [random.Random(3).randrange(60) for _ in range(4)] + list(range(60))
    english, foreign = [f"en {n}" for n in numbers], [f"de {n}" for n in numbers]
    extra = [f"near {n}" for n in range(num_augmented)]
    kinds = {(f"en {n}", f"near {n}"): "number" for n in range(num_augmented)}
    data = XsimData([ParallelSet("de", english, foreign)], Augmented(extra, kinds) if extra else None)
    task = XsimTask(margin=margin, num_neighbours=k, search=_cpu())
    result = task.score(data, encoder)
    x, y = (encoder.encode(texts).double().numpy() for texts in (foreign, english + extra))
    error = result.as_metrics()["xsim/de/error"]
    assert error == pytest.approx(reference_error(x, y, english + extra, margin.value, k))
    assert 5 < error < 95
    variant = "xsim++" if extra else "xsim"
    assert result.protocol == f"{variant}, xx->en, k={k}, {margin.value}, identical texts count"
    assert result.main == "error" and not result.higher_is_better
    if extra:
        metrics = result.as_metrics()
        assert metrics["xsim/de/error_number"] > 0 and metrics["xsim/de/error_misaligned"] > 0
        parts = metrics["xsim/de/error_number"] + metrics["xsim/de/error_misaligned"]
        assert parts == pytest.approx(error)


def test_kinds_of_error_counted_by_hand(table_encoder: Any) -> None:
    table = {
        "I have 2 cats": [1.0, 0.0, 0.0, 0.1], "ich": [1.0, 0.1, 0.0, 0.0], "I have 3 cats": [1.0, 0.1, 0.0, 0.0],
        "he is in Rome": [0.0, 1.0, 0.0, 0.1], "er": [0.0, 1.0, 0.0, 0.1], "he is in Oslo": [0.0, 1.0, 0.3, 0.0],
        "it rains": [0.0, 0.0, 1.0, 0.0], "es": [1.0, 0.0, 0.0, 0.1], "it does not rain": [0.0, 0.0, 1.0, 1.0],
    }  # fmt: skip
    kinds = {
        ("I have 2 cats", "I have 3 cats"): "number_replacement",
        ("he is in Rome", "he is in Oslo"): "entity_replacement",
        ("it rains", "it does not rain"): "causality_alternation",
    }
    augmented = Augmented(["I have 3 cats", "he is in Oslo", "it does not rain"], kinds)
    pairs = ParallelSet("de", ["I have 2 cats", "he is in Rome", "it rains"], ["ich", "er", "es"])
    task = XsimTask(margin=Margin.absolute, num_neighbours=1, search=_cpu())
    # ich -> I have 3 cats (its own number); er -> right; es -> I have 2 cats (another sentence).
    metrics = task.score(XsimData([pairs], augmented), table_encoder(table)).as_metrics()
    third = pytest.approx(100 / 3)
    assert {key.split("/")[2]: value for key, value in metrics.items() if "/de/" in key} == {
        "error": pytest.approx(200 / 3),
        "error_causality_alternation": 0.0,
        "error_entity_replacement": 0.0,
        "error_number_replacement": third,
        "error_misaligned": third,
    }
    # A near copy of another sentence is a misalignment: the kind belongs to the original.
    assert augmented.kind_of("it rains", "I have 3 cats") == "misaligned"
    plain = task.score(XsimData([pairs], None), table_encoder(table)).as_metrics()
    assert plain == {"xsim/de/error": third, "xsim/mean/error": third}


def test_flores_layout(write: Write, hash_encoder: Any) -> None:
    source_path = write("devtest/eng_Latn.devtest", ["one 1"], ["two 2"])
    write("devtest/fra_Latn.devtest", ["un 1"], ["deux 2"])
    augmented_path = write("devtest_augmented/eng_Latn_augmented.devtest", ["one 7"], ["two 9"], ["no entry 5"])
    kinds = {
        "one 7": {"src": "one 1", "errtype": "Number Replacement"},
        "two 9": {"src": "two 2 ", "errtype": "entity"},
    }
    types_path = Path(augmented_path).with_name("eng_Latn_errtype.devtest.json")
    types_path.write_text(json.dumps(kinds), encoding="utf-8")
    task = XsimTask(
        path=source_path.replace("eng_Latn", "{language}"),
        source_path=source_path,
        languages=["fra_Latn"],
        augmented_path=augmented_path,
        error_types_path=str(types_path),
    )
    data = task.load()
    assert data.sets == [ParallelSet("fra_Latn", ["one 1", "two 2"], ["un 1", "deux 2"])]
    assert data.augmented.sentences == ["one 7", "two 9", "no entry 5"]
    assert data.augmented.all_kinds == ["entity", "number_replacement", "misaligned"]
    assert data.augmented.kind_of("two 2", "two 9") == "entity"
    assert list(task.texts(data))[-1] == "no entry 5"
    result = task.score(data, hash_encoder(key=_concept))
    assert result.as_metrics()["xsim/mean/error"] == 0
    plain = XsimData(data.sets, None)
    assert task.score(plain, hash_encoder()).data_sha256 != result.data_sha256


def test_faults_of_augmented_files(write: Write) -> None:
    path = write("augmented", ["one 7"])
    types = Path(path).with_name("types.json")
    for content, message in {
        '{"one 7": {"src": "one 1"': r"E309.*types\.json:1: not JSON \(.* col \d+\)",
        "[]": r"E309.*must be an object",
        '{"one 7": {"source": "one 1", "errtype": "x"}}': r"E309.*missing key 'src'; keys found: source, errtype",
        '{"one 7": "number"}': r"E309.*must have an object",
        '{"other": {"src": "one 1", "errtype": "x"}}': r"E316.*no sentence of .*augmented is named there",
    }.items():
        types.write_text(content, encoding="utf-8")
        with pytest.raises(MlkdError, match=message):
            read_augmented(path, str(types))
    types.write_bytes(b'{"\xff": 1}')
    with pytest.raises(MlkdError, match=r"E304.*0xff"):
        read_augmented(path, str(types))
    types.write_text('{"one 7": {"src": "elsewhere", "errtype": "x"}}', encoding="utf-8")
    english = write("all.tsv", ["en", "de"], ["one 1", "eins"])
    task = XsimTask(path=english, languages=["de"], augmented_path=path, error_types_path=str(types))
    with pytest.raises(MlkdError, match=r"E316.*no original sentence .* of 'de'"):
        task.load()


def test_missing_files_come_together(tmp_path: Path) -> None:
    task = XsimTask(
        path=str(tmp_path / "{language}"),
        source_path=str(tmp_path / "en"),
        languages=["de", "fr"],
        augmented_path=str(tmp_path / "a"),
        error_types_path=str(tmp_path / "b"),
    )
    with pytest.raises(MlkdError) as caught:
        task.load()
    # The English file, which both languages lack, is named once.
    names = [problem.what.split("'")[1] for problem in caught.value.problems]
    assert names == [str(tmp_path / name) for name in ("en", "de", "fr", "a", "b")]
    assert {problem.code for problem in caught.value.problems} == {"E301"}


def test_lines_that_do_not_align_and_empty_ones(write: Write) -> None:
    source_path = write("x.en", ["one"], ["two"], ["three"])
    write("x.de", ["eins"], [""], ["drei"])
    path = write("x.fr", ["un"])
    template = path.replace(".fr", ".{language}")
    task = XsimTask(path=template, source_path=source_path, languages=["de"])
    assert task.load().sets == [ParallelSet("de", ["one", "three"], ["eins", "drei"], num_empty=1)]
    with pytest.raises(MlkdError, match=r"E316.*x\.en 3, .*x\.fr 1"):
        XsimTask(path=template, source_path=source_path, languages=["fr"]).load()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_neighbours": 0}, r"E204.*num_neighbours.*>= 1 \(got 0\)"),
        ({"augmented_path": "x"}, r"E209.*need each other"),
        ({"source_path": "x"}, r"E209.*source_path.*needs path"),
        ({"languages": []}, r"E204.*languages"),
    ],
)
def test_bad_fields(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(MlkdError, match=message):
        XsimTask(**fields)


@settings(max_examples=10, deadline=None)
@given(order=st.permutations(list(range(30))))
def test_order_of_lines_changes_nothing(order: list[int], request: pytest.FixtureRequest) -> None:
    encoder = request.getfixturevalue("hash_encoder")(num_dimensions=6, key=_concept, noise=0.6)
    english, foreign = [f"en {n}" for n in range(30)], [f"de {n}" for n in range(30)]
    pairs = ParallelSet("de", english, foreign)
    before = repr(pairs)
    task = XsimTask(search=_cpu())
    expected = task.score(XsimData([pairs], None), encoder).as_metrics()
    permuted = ParallelSet("de", [english[n] for n in order], [foreign[n] for n in order])
    assert task.score(XsimData([permuted], None), encoder).as_metrics() == pytest.approx(expected)
    assert repr(pairs) == before


def test_more_neighbours_than_sentences(hash_encoder: Any) -> None:
    pairs = ParallelSet("de", ["en 1", "en 2"], ["de 1", "de 2"])
    task = XsimTask(num_neighbours=9, margin=Margin.distance, search=_cpu())
    assert task.score(XsimData([pairs], None), hash_encoder(key=_concept)).as_metrics()["xsim/de/error"] == 0


def test_embedded_sets_load_and_score(hash_encoder: Any) -> None:
    task = XsimTask(search=_cpu())
    data = task.load()
    assert [pairs.language for pairs in data.sets] == ["de", "es", "ru", "zh"] and data.augmented is None
    result = task.score(data, hash_encoder())
    assert result.as_metrics()["xsim/mean/error"] > 80
    assert result.item_scores["de/error"].count == len(data.sets[0].source)
