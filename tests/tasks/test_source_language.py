"""Another source language than English: files, hub layouts and embedded sets of each task."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlkd.demo_data import everyday_texts
from mlkd.errors import MlkdError
from mlkd.report.tables import unit_of
from mlkd.tasks.agreement import AgreementTask
from mlkd.tasks.bucc.task import BuccTask
from mlkd.tasks.language_bias import MixedPoolTask
from mlkd.tasks.mse import MseTask
from mlkd.tasks.parallel import NearestTask, ParallelSet, ParallelTask, SourceEncoder
from mlkd.tasks.retrieval import RetrievalTask
from mlkd.tasks.tatoeba import TatoebaProtocol, TatoebaTask
from mlkd.tasks.translation import TranslationTask
from mlkd.tasks.xnli.task import XnliTask
from mlkd.tasks.xsim.task import XsimData, XsimTask

Write = Callable[..., str]
PARALLEL_TASKS = [TatoebaTask, TranslationTask, MseTask, RetrievalTask, XsimTask]
ROWS = [["eins", "uno", "one"], ["zwei", "dos", "two"], ["drei", "tres", "three"]]
EXPECTED = [ParallelSet("es", ["eins", "zwei", "drei"], ["uno", "dos", "tres"])]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_rows(name: str, *rows: list[str]) -> str:
        path = tmp_path / name
        path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
        return str(path)

    return write_rows


def _sets(task: ParallelTask) -> list[ParallelSet]:
    data: Any = task.load()
    return data.sets if isinstance(data, XsimData) else data


@pytest.mark.parametrize("kind", PARALLEL_TASKS)
def test_columns_of_a_wide_file_are_named_by_language(kind: type[ParallelTask], write: Write) -> None:
    path = write("all.tsv", ["de", "es", "en"], *ROWS)
    assert _sets(kind(path=path, source_language="de", languages=["es"])) == EXPECTED
    # English is then a target like any other.
    assert _sets(kind(path=path, source_language="es", languages=["en"]))[0].target == ["one", "two", "three"]


@pytest.mark.parametrize("kind", PARALLEL_TASKS)
def test_line_files_and_placeholders(kind: type[ParallelTask], write: Write) -> None:
    for column, (code, code3) in enumerate((("de", "deu"), ("es", "spa"))):
        write(f"de-es.{code}", *([row[column]] for row in ROWS))
        folder = write(f"deu-spa.{code3}", *([row[column]] for row in ROWS)).removesuffix(f"deu-spa.{code3}")
    for name in ("{source_language}-{language}.{side}", "{source_language3}-{language3}.{side3}"):
        assert _sets(kind(path=folder + name, source_language="de", languages=["es"])) == EXPECTED


@pytest.mark.parametrize("kind", PARALLEL_TASKS)
def test_embedded_rows_are_aligned_in_every_language(kind: type[ParallelTask]) -> None:
    german_spanish, german_english = _sets(kind(source_language="de", languages=["es", "en"]))
    assert (german_spanish.source, german_spanish.target) == (everyday_texts("de"), everyday_texts("es"))
    assert (german_english.source, german_english.target) == (everyday_texts("de"), everyday_texts("en"))


@pytest.mark.parametrize("kind", PARALLEL_TASKS)
def test_the_source_language_is_checked(kind: type[ParallelTask]) -> None:
    with pytest.raises(MlkdError, match=r"E204.*'de' is always one side"):
        kind(source_language="de")
    with pytest.raises(MlkdError, match=r"E207\]: source_language.*Did you mean 'ja'"):
        kind(source_language="jp")
    with pytest.raises(MlkdError, match=r"E207.*the embedded set has no 'fr', only en, de, es, ru, zh"):
        kind(source_language="fr").load()


def test_directions_are_named_by_the_source_language(hash_encoder: Any) -> None:
    encoder = hash_encoder()
    found = TatoebaTask(source_language="de", languages=["es"]).score(EXPECTED, encoder)
    assert [score.metric for score in found.scores if score.language == "es"] == ["xx->de", "de->xx", "accuracy"]
    found = RetrievalTask(source_language="de", languages=["es"]).score(EXPECTED, encoder)
    assert [score.metric for score in found.scores if score.language == "es"] == ["de->xx", "xx->de", "p@1"]
    assert unit_of("xx->de") == unit_of("xx->en") == unit_of("accuracy")


@pytest.mark.parametrize("protocol", TatoebaProtocol)
def test_scores_are_those_of_the_same_pairs_as_english(protocol: TatoebaProtocol, hash_encoder: Any) -> None:
    texts = [f"de {n}" for n in range(30)]
    sets = [ParallelSet("es", texts, [f"es {n}" for n in range(30)])]
    encoder = hash_encoder(key=lambda text: text[3:], noise=0.9)
    scores = [
        TatoebaTask(source_language=source, languages=["es"], protocol=protocol).score(sets, encoder).as_metrics()
        for source in ("de", "en")
    ]
    assert 0 < scores[0]["tatoeba/mean/f1" if protocol is TatoebaProtocol.mteb else "tatoeba/mean/accuracy"] < 100
    assert {key.replace("de", "en"): value for key, value in scores[0].items()} == scores[1]


@pytest.mark.parametrize("kind", [TatoebaTask, TranslationTask, XsimTask])
def test_the_teacher_encodes_the_source(kind: type[NearestTask], table_encoder: Any, write: Write) -> None:
    path = write("all.tsv", ["de", "es", "en"], *ROWS)
    task = kind(path=path, source_language="de", languages=["es"], source_encoder=SourceEncoder.teacher)
    teacher = table_encoder({"eins": [1.0, 0.1, 0.1], "zwei": [0.1, 1.0, 0.1], "drei": [0.1, 0.1, 1.0]})
    student = table_encoder({"uno": [1.0, 0.0, 0.0], "dos": [0.0, 1.0, 0.0], "tres": [0.0, 0.0, 1.0]})
    result = task.score(task.load(), student, teacher)
    assert result.protocol.endswith(", de by the teacher")
    assert result.as_metrics()[f"{task.name}/mean/{result.main}"] == (0 if kind is XsimTask else 100)


def test_mse_and_xsim_say_so_in_the_protocol(hash_encoder: Any, write: Write) -> None:
    source = write("source.de", *([row[0]] for row in ROWS))
    write("es", *([row[1]] for row in ROWS))
    encoder = hash_encoder()
    mse = MseTask(source_language="de", languages=["es"]).score(EXPECTED, encoder, encoder)
    assert mse.protocol == "x100, T(de) against S(xx)"
    task = XsimTask(
        path=source.replace("source.de", "{language}"), source_path=source, source_language="de", languages=["es"]
    )
    data = task.load()
    assert data.sets == EXPECTED
    assert task.score(data, encoder).protocol.startswith("xsim, xx->de, k=4")


def test_a_mixed_pool_is_aligned_by_the_source(hash_encoder: Any, write: Write) -> None:
    path = write("all.tsv", ["de", "es", "en"], *ROWS)
    task = MixedPoolTask(path=path, source_language="de", languages=["es", "en"])
    rows = task.load()
    assert list(rows.texts) == ["de", "es", "en"] and rows.texts["de"] == EXPECTED[0].source
    assert "mixed_pool/de/mixed" in task.score(rows, hash_encoder()).as_metrics()
    single = write("one.tsv", ["de", "es"], ["eins", "uno"])
    with pytest.raises(MlkdError, match=r"E316.*es have fewer than two de sentences in common"):
        MixedPoolTask(path=single, source_language="de", languages=["es"]).load()


def test_the_teacher_ranks_the_source_language_s_pairs(table_encoder: Any, write: Write) -> None:
    header = ["score", "de1", "de2", "es1", "es2"]
    path = write("sts.tsv", header, *([str(n), f"a{n}", f"b{n}", f"c{n}", f"d{n}"] for n in range(4)))
    task = AgreementTask(path=path, source_language="de", pairs=["es-es", "de-es"])
    data = task.load()
    assert data[0].source.pair == "de-de" and data[0].translated.first == ["c0", "c1", "c2", "c3"]
    axis = {n: [1.0, float(n)] for n in range(4)}
    teacher = table_encoder({f"a{n}": [1.0, 0.0] for n in axis} | {f"b{n}": axis[n] for n in axis})
    student = table_encoder(
        {f"{side}{n}": [1.0, 0.0] for n in axis for side in "ac"} | {f"d{n}": axis[3 - n] for n in axis}
    )
    result = task.score(data, student, teacher)
    assert result.protocol == "100 x Spearman of student's cosine and teacher's on de"
    assert result.as_metrics()["agreement/es-es/spearman"] == pytest.approx(-100)


def test_a_classifier_is_trained_on_the_source_language(write: Write) -> None:
    rows = [[f"p{n}", f"h{n}", str(n)] for n in range(3)]
    header = ["premise", "hypothesis", "label"]
    write("train.de", header, *([f"de {cell}" if cell[0] in "ph" else cell for cell in row] for row in rows))
    path = write("dev.es", header, *rows)
    folder = path.removesuffix("dev.es")
    task = XnliTask(
        path=f"{folder}dev.{{language}}",
        train_path=f"{folder}train.{{source_language}}",
        source_language="de",
        languages=["es"],
    )
    data = task.load()
    assert data.training.language == "de" and data.training.premises == ["de p0", "de p1", "de p2"]
    assert data.tests[0].premises == ["p0", "p1", "p2"]


def test_embedded_mining_between_any_two_languages() -> None:
    (pairs,) = BuccTask(pairs=["de-es"]).load()
    assert set(pairs.test.source.texts) < set(everyday_texts("de"))
    assert set(pairs.test.target.texts) < set(everyday_texts("es"))
    translations = dict(zip(everyday_texts("de"), everyday_texts("es"), strict=True))
    source = dict(zip(pairs.test.source.ids, pairs.test.source.texts, strict=True))
    target = dict(zip(pairs.test.target.ids, pairs.test.target.texts, strict=True))
    assert all(translations[source[first]] == target[second] for first, second in pairs.test.gold)
    assert pairs.test.source.ids[0] == "de-000001" and pairs.test.target.ids[0] == "es-000001"
