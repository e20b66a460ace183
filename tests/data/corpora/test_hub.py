"""A hub dataset from a local folder of its layout, and what is said where the hub cannot be reached."""

import socket
import time
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import datasets
import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

from mlkd.data.corpora.hub import HubCorpus
from mlkd.errors import MlkdError


@pytest.fixture
def talks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "talks"
    configs = ""
    for name in ("en-de", "en-zh-cn"):
        configs += f"- config_name: {name}\n  data_files:\n"
        for split, size in (("train", 100), ("dev", 20)):
            path = folder / name / f"{split}-00000-of-00001.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            source = [f"This is {split} sentence {index}." for index in range(size)]
            word = "Satz" if name == "en-de" else "句子"
            target: list[str | None] = [f"{word} {index}." for index in range(size)]
            target[0] = None
            pq.write_table(pa.table({"english": source, "non_english": target, "id": list(range(size))}), path)
            configs += f"  - split: {split}\n    path: {name}/{split}-*\n"
    (folder / "README.md").write_text(f"---\nconfigs:\n{configs}---\n# Talks\n")
    return folder


def hub(folder: Path | str, **options: object) -> HubCorpus:
    defaults = {"languages": ["de"], "dataset": str(folder)}
    return HubCorpus(**(defaults | options))  # type: ignore[arg-type]


def test_languages_are_subsets(talks: Path) -> None:
    corpus = hub(talks, languages=["de", "zh"], subsets={"zh": "en-zh-cn"}).load()
    german, chinese = corpus.train
    assert german.target[0].startswith("Satz") and chinese.target[0].startswith("句子")
    report = corpus.report.languages["de"]
    assert (report.read, report.dropped["empty"], report.cleaned) == (100, 1, {"null": 1})
    assert report.origin == f"{talks} en-de train"


def test_another_split_and_a_part_of_one(talks: Path) -> None:
    assert hub(talks, split="dev").load().report.languages["de"].read == 20
    assert hub(talks, split="train[:30]").load().report.languages["de"].read == 30


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ({"subset": "en-{language}-x"}, "E301", "Available: ['en-de', 'en-zh-cn']"),
        ({"split": "test"}, "E301", "train"),
        ({"target_column": "german"}, "E310", "column 'german' missing; columns: english, non_english, id"),
        ({"target_column": "id"}, "E310", "column 'id' holds int64, not text"),
        ({"dataset": "./no/such/folder"}, "E301", "'./no/such/folder' is no such folder (cwd="),
    ],
)
def test_what_is_not_there(talks: Path, options: dict[str, object], code: str, words: str) -> None:
    with pytest.raises(MlkdError) as caught:
        hub(talks, **options).load()
    assert caught.value.problems[0].code == code
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("options", "code"),
    [({"dataset": ""}, "E205"), ({"subsets": {"fr": "x"}}, "E204"), ({"subset": "{lang}"}, "E204")],
)
def test_bad_fields(options: dict[str, object], code: str) -> None:
    with pytest.raises(MlkdError) as caught:
        hub("a/b", **options)
    assert caught.value.problems[0].code == code


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.usefixtures("no_network")
def test_an_unreachable_hub_is_named_at_once() -> None:
    start = time.monotonic()
    with pytest.raises(MlkdError) as caught:
        hub("some-organisation/some-talks").check_files()
    assert time.monotonic() - start < 5
    message = str(caught.value)
    assert message.startswith("error[E403]: cannot reach https://")
    assert "'some-organisation/some-talks' is not in the cache (HF_HOME=" in message
    assert "local folder" in message and "hf download --repo-type dataset some-organisation/some-talks" in message
    assert caught.value.exit_code == 4


@pytest.mark.usefixtures("no_network")
def test_the_cache_is_used_where_the_hub_is_unreachable(
    talks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = tmp_path / "hub" / "datasets--org--talks"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("a" * 40)
    (repository / "snapshots").mkdir()
    talks.rename(repository / "snapshots" / ("a" * 40))
    folder, _ = hub("org/talks").hub.locate()
    assert Path(folder).name == "a" * 40
    assert len(hub("org/talks").load().train[0]) == 90


def test_an_impossible_name() -> None:
    with pytest.raises(MlkdError, match=r"E403.*no dataset or folder 'a b/c'"):
        hub("a b/c").hub.locate()


@pytest.mark.parametrize(
    ("kind", "code", "words"),
    [
        (GatedRepoError, "E404", "'org/talks' needs access"),
        (RepositoryNotFoundError, "E403", "no dataset or folder 'org/talks'"),
        (RevisionNotFoundError, "E403", "has no revision 'v9'"),
    ],
)
def test_what_the_hub_refuses(monkeypatch: pytest.MonkeyPatch, kind: type[Exception], code: str, words: str) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise kind.__new__(kind)  # its constructor wants a whole HTTP response

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", refuse)
    with pytest.raises(MlkdError) as caught:
        hub("org/talks", revision="v9").hub.locate()
    assert caught.value.problems[0].code == code
    assert words in str(caught.value)


def test_the_newest_commit_is_pinned_and_named(talks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_dataset = datasets.load_dataset
    asked = []

    def load(repository: str, name: str, *, split: str, revision: str) -> datasets.Dataset:
        asked.append((repository, name, split, revision))
        return load_dataset(str(talks), name, split=split)

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_, **__: SimpleNamespace(sha="0123456789abcdef"))
    monkeypatch.setattr(datasets, "load_dataset", load)
    report = hub("org/talks").load().report.languages["de"]
    assert asked == [("org/talks", "en-de", "train", "0123456789abcdef")]
    assert report.origin == "org/talks en-de train @0123456789ab"


def test_nested_columns(tmp_path: Path, talks: Path) -> None:
    rows = [{"en": f"This is sentence {index}.", "de": f"Satz {index}."} for index in range(50)]
    folder = tmp_path / "nested"
    folder.mkdir()
    pq.write_table(pa.table({"translation": rows}), folder / "train.parquet")
    columns = {"source_column": "translation.{source_language}", "target_column": "translation.{language}"}
    corpus = hub(folder, subset="", **columns).load()
    assert len(corpus.train[0]) == 45 and corpus.train[0].target[0].startswith("Satz")
