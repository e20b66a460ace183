"""Tatoeba, translation and mse: parity with sentence-transformers and scikit-learn, layouts, faults."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlkd.errors import MlkdError
from mlkd.tasks.mse import MseTask, explained, squared_errors
from mlkd.tasks.parallel import NearestTask, ParallelSet, SourceEncoder
from mlkd.tasks.tatoeba import TatoebaProtocol, TatoebaTask, row_f1
from mlkd.tasks.tatoeba_languages import LANGUAGE_SETS, three_letters
from mlkd.tasks.translation import TranslationTask
from mlkd.tasks.xsim.task import XsimData, XsimTask

Write = Callable[..., str]


def _concept(text: str) -> str:
    """`en 7` and `de 7` mean the same."""
    return text.rsplit(maxsplit=1)[-1]


def _sets(count: int = 80) -> list[ParallelSet]:
    # Some sentences occur twice: a hit on an equal text must count.
    numbers = [random.Random(5).randrange(count) for _ in range(3)] + list(range(count))
    return [
        ParallelSet(language, [f"en {n}" for n in numbers], [f"{language} {n}" for n in numbers])
        for language in ("de", "zh")
    ]


@pytest.fixture
def noisy_encoder(hash_encoder: Any) -> Any:
    """Right in most cases, not in all."""
    return hash_encoder(num_dimensions=6, key=_concept, noise=0.6)


def test_translation_equals_sentence_transformers(noisy_encoder: Any, as_sentence_transformer: Any) -> None:
    from sentence_transformers.sentence_transformer.evaluation import TranslationEvaluator

    metrics = TranslationTask().score(_sets(), noisy_encoder).as_metrics()
    tatoeba = TatoebaTask().score(_sets(), noisy_encoder).as_metrics()
    for pairs in _sets():
        evaluator = TranslationEvaluator(pairs.source, pairs.target, write_csv=False)
        theirs = evaluator(as_sentence_transformer(noisy_encoder))
        prefix = f"translation/{pairs.language}"
        assert metrics[f"{prefix}/src2trg"] == pytest.approx(100 * theirs["src2trg_accuracy"], abs=1e-9)
        assert metrics[f"{prefix}/trg2src"] == pytest.approx(100 * theirs["trg2src_accuracy"], abs=1e-9)
        assert metrics[f"{prefix}/accuracy"] == pytest.approx(100 * theirs["mean_accuracy"], abs=1e-9)
        assert 20 < metrics[f"{prefix}/accuracy"] < 100
        assert tatoeba[f"tatoeba/{pairs.language}/en->xx"] == metrics[f"{prefix}/src2trg"]
        assert tatoeba[f"tatoeba/{pairs.language}/xx->en"] == metrics[f"{prefix}/trg2src"]
    means = [metrics["translation/de/accuracy"], metrics["translation/zh/accuracy"]]
    assert metrics["translation/mean/accuracy"] == pytest.approx(sum(means) / 2)


def test_mse_equals_sentence_transformers(hash_encoder: Any, as_sentence_transformer: Any) -> None:
    from sentence_transformers.sentence_transformer.evaluation import MSEEvaluator

    teacher, student = hash_encoder(key=_concept), hash_encoder(key=_concept, noise=0.3)
    result = MseTask().score(_sets(), student, teacher)
    assert not result.higher_is_better and result.main == "mse"
    for pairs in _sets():
        evaluator = MSEEvaluator(
            pairs.source, pairs.target, teacher_model=as_sentence_transformer(teacher), write_csv=False
        )
        theirs = evaluator(as_sentence_transformer(student))
        assert result.as_metrics()[f"mse/{pairs.language}/mse"] == pytest.approx(-theirs["negative_mse"], rel=1e-6)
    # Each text once, and English by the teacher alone.
    assert len(student.asked) < 3 * len(set(student.asked))
    assert not any(text.startswith("de") for text in teacher.asked)


def test_explained_is_one_when_perfect_zero_for_the_mean_and_undefined_without_variance() -> None:
    target = torch.tensor([[1.0, 0.0], [3.0, 4.0]])
    mean = target.mean(dim=0).expand(2, 2)
    assert squared_errors(target, target).tolist() == [0.0, 0.0] and explained(0.0, target) == 100.0
    assert squared_errors(target, mean).tolist() == [2.5, 2.5] and explained(250.0, target) == 0.0
    assert squared_errors(target, mean).dtype == torch.float64
    assert explained(100.0, torch.ones(2, 2)) is None


def test_mse_refuses_other_dimensions(hash_encoder: Any) -> None:
    with pytest.raises(MlkdError, match=r"E210.*teacher dim 8 != student dim 4"):
        MseTask().score(_sets(), hash_encoder(4), hash_encoder(8))


@pytest.mark.parametrize("kind", [TatoebaTask, TranslationTask, XsimTask])
def test_the_teacher_may_read_english(kind: type[NearestTask], table_encoder: Any) -> None:
    # The student reads German as the teacher reads English, and knows no English: asked for it, the table fails.
    student = table_encoder({"ja": [1.0, 0.0], "nein": [0.0, 1.0], "jo": [1.0, 0.1]})
    teacher = table_encoder({"yes": [1.0, 0.0], "no": [0.0, 1.0], "yeah": [-1.0, 0.1]})
    sets = [ParallelSet("de", ["yes", "no", "yeah"], ["ja", "nein", "jo"])]
    data: Any = XsimData(sets, None) if kind is XsimTask else sets
    task = kind(source_encoder=SourceEncoder.teacher)
    assert task.needs_teacher and not kind().needs_teacher
    result = task.score(data, student, teacher)
    assert result.protocol == f"{kind().score(data, table_encoder(student.table | teacher.table)).protocol}, " + (
        "English by the teacher"
    )
    # "jo" finds "yes"; "yeah" finds "nein".
    expected = {"tatoeba": 200 / 3, "translation": 200 / 3, "xsim": 100 / 3}
    assert result.as_metrics()[f"{task.name}/mean/{result.main}"] == pytest.approx(expected[task.name])


def test_a_teacher_of_another_dimension_cannot_read_english(hash_encoder: Any) -> None:
    task = TatoebaTask(source_encoder=SourceEncoder.teacher)
    with pytest.raises(MlkdError, match=r"E210.*task.tatoeba.source_encoder: teacher dim 8 != student dim 4"):
        task.score(_sets(), hash_encoder(4), hash_encoder(8))


def test_weighted_f1_equals_scikit_learn() -> None:
    from sklearn.metrics import f1_score

    generator = random.Random(2)
    predicted = [generator.choice([row, generator.randrange(30)]) for row in range(30)]
    theirs = f1_score(list(range(30)), predicted, average="weighted", zero_division=0)
    assert sum(row_f1(predicted)) / len(predicted) == pytest.approx(theirs)


def test_protocols_differ_where_texts_repeat(table_encoder: Any) -> None:
    encoder = table_encoder(
        {"yes": [1.0, 0.0], "no": [0.0, 1.0], "ja": [1.0, 0.1], "jo": [1.0, 0.0], "nein": [0.0, 1.0]}
    )
    sets = [ParallelSet("de", ["yes", "yes", "no"], ["ja", "jo", "nein"])]
    # en->xx: both "yes" find "jo" (row 1), right for the second alone. xx->en: "ja" and "jo" find the first "yes".
    laser = TatoebaTask().score(sets, encoder).as_metrics()
    assert laser["tatoeba/de/xx->en"] == 100
    assert laser["tatoeba/de/en->xx"] == pytest.approx(200 / 3)
    assert laser["tatoeba/de/accuracy"] == pytest.approx(250 / 3)
    xtreme = TatoebaTask(protocol=TatoebaProtocol.xtreme).score(sets, encoder)
    assert xtreme.as_metrics() == {
        "tatoeba/de/accuracy": pytest.approx(200 / 3),
        "tatoeba/mean/accuracy": pytest.approx(200 / 3),
    }
    mteb = TatoebaTask(protocol=TatoebaProtocol.mteb).score(sets, encoder)
    # Predicted rows 0, 0, 2: F1 2/3, 0 and 1.
    assert mteb.main == "f1" and mteb.as_metrics()["tatoeba/de/f1"] == pytest.approx(100 * (2 / 3 + 1) / 3)


def test_each_text_is_encoded_once_across_languages(noisy_encoder: Any) -> None:
    task = TatoebaTask()
    task.score(_sets(), noisy_encoder)
    assert sorted(noisy_encoder.asked) == sorted(set(task.texts(_sets())))


@settings(max_examples=15, deadline=None)
@given(order=st.permutations(list(range(30))))
def test_order_of_rows_changes_nothing(order: list[int], request: pytest.FixtureRequest) -> None:
    encoder = request.getfixturevalue("hash_encoder")(num_dimensions=6, key=_concept, noise=0.6)
    english, foreign = [f"en {n}" for n in range(30)], [f"de {n}" for n in range(30)]
    permuted = [ParallelSet("de", [english[n] for n in order], [foreign[n] for n in order])]
    for task in (TatoebaTask(), TranslationTask(), MseTask()):
        expected = task.score([ParallelSet("de", english, foreign)], encoder, encoder).as_metrics()
        assert task.score(permuted, encoder, encoder).as_metrics() == pytest.approx(expected, rel=1e-5)
    assert english == [f"en {n}" for n in range(30)]


def test_item_scores_are_what_the_scores_were_computed_from(noisy_encoder: Any) -> None:
    tasks = [TatoebaTask(protocol=protocol) for protocol in TatoebaProtocol]
    for task in (*tasks, TranslationTask(), MseTask()):
        result = task.score(_sets(), noisy_encoder, noisy_encoder)
        values = {f"{score.language}/{score.metric}": (score.value, score.count) for score in result.scores}
        found = {key: (items.value(), items.count) for key, items in result.item_scores.items()}
        assert found == {key: values[key] for key in found}
        assert {f"{language}/{result.main}" for language in ("de", "zh", "mean")} <= set(found)


@pytest.mark.parametrize(("name", "count"), [("all", 112), ("xtreme", 36)])
def test_published_selections_of_languages(name: str, count: int) -> None:
    languages = TatoebaTask(languages=[name]).languages
    assert len(languages) == len(set(languages)) == len({three_letters(code) for code in languages}) == count
    assert set(languages) <= set(LANGUAGE_SETS["all"])
    # Codes of the files themselves are taken as they are.
    codes = [three_letters(code) for code in languages]
    assert TatoebaTask(languages=codes).languages == codes
    assert [three_letters(code) for code in codes] == codes
    assert TatoebaTask(languages=["xtreme", "kab"]).languages[-2:] == ["fa", "kab"]
    with pytest.raises(MlkdError, match=r"E204.*'kab' is listed twice"):
        TatoebaTask(languages=["all", "kab"])


def test_tsv_for_each_language(write: Write) -> None:
    for language in ("de", "es"):
        path = write(f"en-{language}.tsv", ["en", language], ["one", f"{language} 1"], ["two", " "], ["NA", "null"])
    sets = TatoebaTask(path=path.replace("-es", "-{language}"), languages=["de", "es"]).load()
    assert sets[0] == ParallelSet("de", ["one", "NA"], ["de 1", "null"], num_empty=1)


def test_one_row_aligned_file_and_other_column_names(write: Write) -> None:
    path = write("flores.tsv", ["eng", "deu", "spa"], ["one", "eins", "uno"])
    task = MseTask(path=path, languages=["es", "de"], source_column="eng", target_column="{language3}")
    assert task.load() == [ParallelSet("es", ["one"], ["uno"]), ParallelSet("de", ["one"], ["eins"])]


def test_laser_line_files(write: Write) -> None:
    write("tatoeba.cmn-eng.cmn", ["一"], ["二"])
    path = write("tatoeba.cmn-eng.eng", ["one"], ["two"])
    template = path.replace("cmn-eng.eng", "{language3}-eng.{side3}")
    assert TatoebaTask(path=template, languages=["zh"]).load() == [ParallelSet("zh", ["one", "two"], ["一", "二"])]


def test_problems_of_all_languages_come_together(write: Write) -> None:
    write("t.de-en.de", ["eins"])
    write("t.de-en.en", ["one"], ["two"])
    path = write("t.es-en.es", ["uno"])
    template = path.replace("es-en.es", "{language}-en.{side}")
    with pytest.raises(MlkdError) as caught:
        TatoebaTask(path=template, languages=["de", "es"]).load()
    assert [problem.code for problem in caught.value.problems] == ["E316", "E301"]
    assert "en 2, " in str(caught.value) and "de 1" in str(caught.value)


def test_a_set_without_text_is_refused(write: Write) -> None:
    path = write("en-de.tsv", ["en", "de"], ["one", ""])
    with pytest.raises(MlkdError, match=r"E303.*no pair with text"):
        TatoebaTask(path=path, languages=["de"]).load()


@pytest.mark.parametrize("task", [TatoebaTask, MseTask, TranslationTask])
@pytest.mark.parametrize(
    ("languages", "message"),
    [
        (["de", "False"], r"E206.*languages\[1\]"),
        (["de", "en"], r"E204.*'en' is always one side"),
        (["German!"], r"E207"),
        (["jp"], r"E207.*Did you mean 'ja'"),
        ([], r"E204"),
    ],
)
def test_bad_languages(task: Any, languages: list[str], message: str) -> None:
    with pytest.raises(MlkdError, match=message):
        task(languages=languages)


def test_embedded_sets_load_and_the_perfect_encoder_is_perfect(hash_encoder: Any) -> None:
    sets = TatoebaTask().load()
    assert [pairs.language for pairs in sets] == ["de", "es", "ru", "zh"]
    meaning = {
        text: min(pairs.source[row] for row in range(len(pairs.source)) if pairs.target[row] == text)
        for pairs in sets
        for text in pairs.target
    }
    encoder = hash_encoder(key=lambda text: meaning.get(text, text))
    assert TatoebaTask().score(sets, encoder).as_metrics()["tatoeba/mean/accuracy"] > 99
    with pytest.raises(MlkdError, match=r"E207.*no 'fr', only en, de, es, ru, zh"):
        TatoebaTask(languages=["fr"]).load()
