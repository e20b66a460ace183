"""STS: parity with sentence-transformers and scipy, undefined correlations, files and their faults."""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlkd.errors import MlkdError
from mlkd.tasks.sts.reading import StsSet
from mlkd.tasks.sts.task import StsTask, similarities

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
        names = [n for n in theirs if n.split("_")[0] in ("spearman", "pearson") and not n.endswith("_max")]
        assert len(names) == 8
        for name in names:
            key = f"sts/{pairs.pair}/{name.removesuffix('_cosine')}"
            # Theirs sums Pearson in float32; ranks are exact.
            tolerance = 1e-6 if name.startswith("spearman") else 1e-4
            assert metrics[key] == pytest.approx(100 * theirs[name], abs=tolerance)
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


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), order=st.permutations(list(range(12))))
def test_similarities_are_of_each_row_and_leave_the_vectors_as_they_are(seed: int, order: list[int]) -> None:
    generator = torch.Generator().manual_seed(seed)
    first, second = torch.randn(12, 5, generator=generator), torch.randn(12, 5, generator=generator)
    copies = first.clone(), second.clone()
    expected, found = similarities(first, second), similarities(first[order], second[order])
    u, v = first.double().numpy(), second.double().numpy()
    reference = {
        "cosine": (u * v).sum(1) / np.sqrt((u**2).sum(1) * (v**2).sum(1)),
        "dot": (u * v).sum(1),
        "euclidean": -np.linalg.norm(u - v, axis=1),
        "manhattan": -np.abs(u - v).sum(1),
    }
    for name, values in reference.items():
        np.testing.assert_allclose(expected[name].numpy(), values, atol=2e-6)
        np.testing.assert_allclose(found[name].numpy(), values[order], atol=2e-6)
    assert torch.equal(first, copies[0]) and torch.equal(second, copies[1])


def test_item_scores_are_what_the_scores_were_computed_from(hash_encoder: Any) -> None:
    result = StsTask().score(_sets(), hash_encoder())
    assert list(result.item_scores) == ["en-de/spearman", "de-de/spearman", "mean/spearman"]
    values = {f"{score.language}/{score.metric}": score.value for score in result.scores}
    assert {key: items.value() for key, items in result.item_scores.items()} == {
        k: values[k] for k in result.item_scores
    }
    assert result.item_scores["en-de/spearman"].count == 60


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


def test_the_extension_has_no_header_and_its_scores_inline(write: Write) -> None:
    path = write("STS.en-tr.txt", ["a", "b", "2.5"], ["c", '"d', "5"], ["e", "f", "0.0"])
    template = path.replace("en-tr", "{pair}")
    task = StsTask(path=template, pairs=["en-tr"], first_column="0", second_column="1", score_column="2")
    assert task.load() == [StsSet("en-tr", ["a", "c", "e"], ["b", '"d', "f"], [2.5, 5.0, 0.0])]


def test_rows_after_the_last_score_are_left_out_and_counted(
    write: Write, hash_encoder: Any, caplog: pytest.LogCaptureFixture
) -> None:
    path = write("track6.tr-en.txt", ["a", "b", "2.5"], ["c", "d", "1"], ["e", "f", ""], ["g", "h", ""])
    task = StsTask(path=path, pairs=["en-tr"], first_column="0", second_column="1", score_column="2")
    (pairs,) = task.load()
    assert pairs == StsSet("en-tr", ["a", "c"], ["b", "d"], [2.5, 1.0], num_unscored=2)
    assert f"warning[W314]: {path}:3: the last 2 of 4 rows have no score" in caplog.text
    assert task.score([pairs], hash_encoder()).details["num_unscored"] == {"en-tr": 2}
    path = write("hole.txt", ["a", "b", "2.5"], ["c", "d", ""], ["e", "f", "1"])
    with pytest.raises(MlkdError, match=r"E314.*hole.txt:2: score ''"):
        StsTask(path=path, pairs=["en-tr"], first_column="0", second_column="1", score_column="2").load()
    path = write("none.txt", ["a", "b", ""])
    with pytest.raises(MlkdError, match=r"E314.*none.txt: no row has a score"):
        StsTask(path=path, pairs=["en-tr"], first_column="0", second_column="1", score_column="2").load()


def test_semeval_files_with_scores_of_their_own(write: Write) -> None:
    write("STS.input.track4a.es-en.txt", ["uno", "one"], ["dos", "two"])
    write("STS.gs.track4a.es-en.txt", ["3.2"], ["0.4"])
    write("STS.input.track6.tr-en.txt", ["bir", "one"], ["iki", "two"], ["son", "end"])
    path = write("STS.gs.track6.tr-en.txt", ["3"], ["1"])
    gold, template = path.replace("track6.tr-en", "{track}"), path.replace("gs.track6.tr-en", "input.{track}")
    spanish, turkish = StsTask(path=template, gold_path=gold, pairs=["es-en", "en-tr"]).load()
    assert spanish == StsSet("es-en", ["uno", "dos"], ["one", "two"], [3.2, 0.4])
    assert turkish == StsSet("en-tr", ["bir", "iki"], ["one", "two"], [3.0, 1.0], num_unscored=1)
    with pytest.raises(MlkdError, match=r"E207.*SemEval 2017 has no 'en-de'"):
        StsTask(path=template, gold_path=gold, pairs=["en-de"]).load()
    write("STS.gs.track6.tr-en.txt", ["3"], ["1"], ["x"], ["2"])
    with pytest.raises(MlkdError, match=r"E316.*track6.tr-en.txt 3, .*track6.tr-en.txt 4"):
        StsTask(path=template, gold_path=gold, pairs=["en-tr"]).load()
    write("STS.gs.track6.tr-en.txt", ["3"], ["x"], ["1"])
    with pytest.raises(MlkdError, match=r"E314.*STS.gs.track6.tr-en.txt:2: score 'x'"):
        StsTask(path=template, gold_path=gold, pairs=["en-tr"]).load()


def test_row_aligned_files_of_one_language_each(tmp_path: Path) -> None:
    (tmp_path / "stsb-en.csv").write_text('"one, two",three,2.5\nfour,five,1.0\n', encoding="utf-8")
    (tmp_path / "stsb-de.csv").write_text('eins,"drei ""3""",2.5\nvier,fünf,1.0\n', encoding="utf-8")
    settings = {"first_column": "0", "second_column": "1", "score_column": "2"}
    path = str(tmp_path / "stsb-{language}.csv")
    mixed, german = StsTask(path=path, pairs=["en-de", "de-de"], **settings).load()
    assert mixed == StsSet("en-de", ["one, two", "four"], ['drei "3"', "fünf"], [2.5, 1.0])
    assert german == StsSet("de-de", ["eins", "vier"], ['drei "3"', "fünf"], [2.5, 1.0])
    (tmp_path / "stsb-de.csv").write_text("eins,drei,2.5\nvier,fünf,1.5\n", encoding="utf-8")
    with pytest.raises(MlkdError, match=r"E316.*en-de.*scores of row 2 of 'en' and 'de' differ"):
        StsTask(path=path, pairs=["en-de"], **settings).load()
    (tmp_path / "stsb-de.csv").write_text("eins,drei,2.5\n", encoding="utf-8")
    with pytest.raises(MlkdError, match=r"E316.*numbers of rows \(2, 1\)"):
        StsTask(path=path, pairs=["en-de"], **settings).load()


def test_csv_with_a_header_and_its_faults(tmp_path: Path) -> None:
    path = tmp_path / "sts.csv"
    path.write_text('score,en1,en2\n2.5,"a, b",c\n', encoding="utf-8")
    assert StsTask(path=str(path), pairs=["en-en"]).load() == [StsSet("en-en", ["a, b"], ["c"], [2.5])]
    path.write_text('score,en1,en2\n2.5,a, b,c\n1,"a"b,c\n', encoding="utf-8")
    with pytest.raises(MlkdError, match=r"E307.*sts.csv:2: expected 3 columns \(comma\), got 4") as caught:
        StsTask(path=str(path), pairs=["en-en"]).load()
    assert "sts.csv:3: not CSV" in str(caught.value)
    path.write_text("score,en1,en3\n2.5,a,b\n", encoding="utf-8")
    with pytest.raises(MlkdError, match=r"E307.*no column 'en2'.*Did you mean 'en3'"):
        StsTask(path=str(path), pairs=["en-en"]).load()


def test_the_benchmarks_own_files_are_tab_separated_whatever_their_suffix(write: Write) -> None:
    path = write(
        "sts-test.csv", ["news", "f", "2012", "1", "2.5", "a", "b"], ["n", "f", "2012", "2", "5", "c", "d", "url"]
    )
    task = StsTask(path=path, pairs=["en-en"], first_column="5", second_column="6", score_column="4")
    assert task.load() == [StsSet("en-en", ["a", "c"], ["b", "d"], [2.5, 5.0])]


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
        ({"pairs": ["en-jp"]}, r"E207.*'jp'.*Did you mean 'ja'"),
        ({"gold_path": "a"}, r"E209.*gold_path: needs path"),
        ({"name": "a/b"}, r"E204.*name"),
    ],
)
def test_bad_fields(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(MlkdError, match=message):
        StsTask(**fields)


def test_unknown_placeholder_is_named() -> None:
    with pytest.raises(MlkdError, match=r"E204.*\{lang\}.*known: \{pair\}, \{first\}, \{second\}"):
        StsTask(path="sts/{lang}.tsv").load()


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
