"""Hub datasets: small local folders of the layouts that the hub has, and a hub that cannot be reached."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any, NoReturn

import huggingface_hub
import pytest

from mlkd.errors import MlkdError
from mlkd.tasks.base import Task
from mlkd.tasks.bucc.task import BuccTask
from mlkd.tasks.parallel import ParallelSet
from mlkd.tasks.sts.reading import StsSet
from mlkd.tasks.sts.task import StsTask
from mlkd.tasks.tatoeba import TatoebaTask
from mlkd.tasks.xnli.task import NliSet, XnliTask

# `datasets` leaves closing its Arrow and JSON files to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def _folder(path: Path, subsets: dict[str, list[dict[str, Any]]]) -> str:
    """A dataset repository: a README that names the subsets, and a JSON-lines file for each."""
    (path / "test").mkdir(parents=True)
    configs = ""
    for subset, rows in subsets.items():
        configs += f"- config_name: {subset}\n  data_files:\n  - path: test/{subset}.jsonl.gz\n    split: test\n"
        with gzip.open(path / "test" / f"{subset}.jsonl.gz", "wb") as file:
            file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    (path / "README.md").write_text(f"---\nconfigs:\n{configs}---\n", encoding="utf-8")
    return str(path)


def test_sts_layout(tmp_path: Path) -> None:
    row = {"sentence1": "one\u2028two", "sentence2": "eins", "score": 2.5, "lang": "en-de"}
    dataset = _folder(tmp_path / "sts", {"en-de": [row], "es-en": [{**row, "score": 0.0}]})
    sets = StsTask(dataset=dataset, subset="{pair}", pairs=["en-de", "es-en"]).load()
    assert sets == [StsSet("en-de", ["one two"], ["eins"], [2.5]), StsSet("es-en", ["one two"], ["eins"], [0.0])]
    with pytest.raises(MlkdError, match=r"E310.*en-fr.*no such subset or split"):
        StsTask(dataset=dataset, subset="{pair}", pairs=["en-fr"]).load()
    with pytest.raises(MlkdError, match=r"E310.*column 'rating' missing; columns: sentence1, sentence2, score, lang"):
        StsTask(dataset=dataset, subset="{pair}", pairs=["en-de"], score_column="rating").load()


def test_sts_scores_are_checked(tmp_path: Path) -> None:
    dataset = _folder(tmp_path / "sts", {"en-de": [{"sentence1": "a", "sentence2": "b", "score": 7.0}]})
    with pytest.raises(MlkdError, match=r"E314.*row 1.*score '7.0'"):
        StsTask(dataset=dataset, subset="{pair}", pairs=["en-de"]).load()


def test_sts_benchmark_has_a_subset_for_each_language(tmp_path: Path) -> None:
    english = {"sentence1": "one", "sentence2": "two", "similarity_score": 2.5}
    german = {"sentence1": "eins", "sentence2": "zwei", "similarity_score": 2.5}
    dataset = _folder(tmp_path / "stsb", {"en": [english], "de": [german]})
    task = StsTask(
        dataset=dataset, subset="{language}", pairs=["en-en", "en-de", "de-de"], score_column="similarity_score"
    )
    assert task.load() == [
        StsSet("en-en", ["one"], ["two"], [2.5]),
        StsSet("en-de", ["one"], ["zwei"], [2.5]),
        StsSet("de-de", ["eins"], ["zwei"], [2.5]),
    ]


def test_xnli_layout(tmp_path: Path) -> None:
    rows = [{"premise": f"p{n}", "hypothesis": f"h{n}", "label": n} for n in range(3)]
    dataset = _folder(tmp_path / "xnli", {"en": rows, "de": rows[:1]})
    data = XnliTask(dataset=dataset, subset="{language}", train_split="test", languages=["de"]).load()
    assert data.training == NliSet("en", ["p0", "p1", "p2"], ["h0", "h1", "h2"], [0, 1, 2])
    assert data.tests == [NliSet("de", ["p0"], ["h0"], [0])]
    with pytest.raises(MlkdError, match=r"E310.*en.*no such subset or split 'train'"):
        XnliTask(dataset=dataset, subset="{language}", languages=["de"]).load()


def test_tatoeba_layout(tmp_path: Path) -> None:
    dataset = _folder(tmp_path / "tatoeba", {"deu-eng": [{"sentence1": "eins", "sentence2": "one", "lang": "deu-eng"}]})
    task = TatoebaTask(dataset=dataset, subset="{language3}-eng", languages=["de"])
    assert task.load() == [ParallelSet("de", ["one"], ["eins"])]


def test_bucc_layouts(tmp_path: Path) -> None:
    one_row = {"sentence1": ["eins", "zwei", "drei"], "sentence2": ["two", "five"], "gold": [[2, 1]]}
    dataset = _folder(tmp_path / "lists", {"de-en": [one_row]})
    (pairs,) = BuccTask(dataset=dataset, subset="{pair}", pairs=["de-en"]).load()
    assert pairs.test.source.texts == ["eins", "zwei", "drei"] and pairs.test.gold == [("2", "1")]
    rows = [{"sentence1": "eins", "sentence2": "one"}, {"sentence1": "zwei", "sentence2": "two"}]
    dataset = _folder(tmp_path / "rows", {"de-en": rows})
    (pairs,) = BuccTask(dataset=dataset, subset="{pair}", pairs=["de-en"]).load()
    assert pairs.test.gold == [("1", "1"), ("2", "2")]
    dataset = _folder(tmp_path / "outside", {"de-en": [{**one_row, "gold": [[4, 1]]}]})
    with pytest.raises(MlkdError, match=r"E316.*gold pair \(4, 1\) is outside 1\.\.3, 1\.\.2"):
        BuccTask(dataset=dataset, subset="{pair}", pairs=["de-en"]).load()


@pytest.mark.parametrize(
    "task",
    [
        StsTask(dataset="nobody/nothing", subset="{pair}", pairs=["en-de", "en-en"]),
        TatoebaTask(dataset="nobody/nothing", subset="{language3}-eng", languages=["de"]),
        BuccTask(dataset="nobody/nothing", subset="{pair}", pairs=["de-en"]),
    ],
    ids=lambda task: task.name,
)
def test_unreachable_hub(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", _refuse)
    before = datasets.config.HF_HUB_OFFLINE
    with pytest.raises(MlkdError) as caught:
        task.load()
    (problem,) = caught.value.problems
    assert problem.code == "E403" and "nobody/nothing" in problem.what
    assert "hf download --repo-type dataset nobody/nothing" in problem.remedy
    assert f"{task.name}.dataset" in problem.remedy
    assert caught.value.exit_code == 4
    assert before == datasets.config.HF_HUB_OFFLINE


def test_what_was_loaded_before_is_read_without_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither hub nor downloaded files: what the `datasets` library prepared in its cache is enough."""
    import datasets

    asked = []
    loaded = datasets.Dataset.from_dict({"sentence1": ["eins"], "sentence2": ["one"]})

    def load(name: str, subset: str, *, split: str, revision: str | None) -> datasets.Dataset:
        asked.append((name, subset, split, revision, datasets.config.HF_HUB_OFFLINE))
        return loaded

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", _refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets, "load_dataset", load)
    task = TatoebaTask(dataset="org/set", subset="{language3}-eng", languages=["de"], revision="v1")
    assert task.load() == [ParallelSet("de", ["one"], ["eins"])]
    assert asked == [("org/set", "deu-eng", "test", "v1", True)]
    assert datasets.config.HF_HUB_OFFLINE is False


def test_a_folder_that_is_not_there_is_no_question_for_the_hub() -> None:
    with pytest.raises(MlkdError, match=r"E301\]: '\./no/set' is no such folder[^\n]*\n  fix: set task\.sts\.dataset"):
        StsTask(dataset="./no/set", subset="{pair}", pairs=["en-de"]).load()


def _refuse(*_: object, **__: object) -> NoReturn:
    raise ConnectionError("no route to host")
