"""Evaluation of checkpoints: the loop's numbers again, systems side by side, where results go."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer

from mlkd.evaluation.run import unfinished_runs, write_task_tables
from mlkd.models.precomputed import export_texts
from mlkd.models.spec import ScoredEncoder
from mlkd.report.results import Results, read_results
from mlkd.runtime.run_folder import RunFolder, RunState, Status
from mlkd.tasks.scoring.scores import TaskResult
from mlkd.training.preflight import run_preflight

Call = Callable[..., tuple[int, str, str]]
TASKS = ["tatoeba_file", "sts_file", "bucc_file", "translation_file"]


@pytest.fixture
def tasks(toy: Any) -> list[str]:
    """All kinds of tasks that need no teacher, on small files."""
    return [
        "hardware=cpu", "hardware.threads=1", "task=[tatoeba_file,sts_file,bucc_file,translation_file]",
        f"task.tatoeba_file.path='{toy.root}/dev/en-{{language}}.tsv'", "task.tatoeba_file.languages=[de,es]",
        f"task.sts_file.path='{toy.root}/sts/{{pair}}.tsv'", "task.sts_file.pairs=[en-de,en-es]",
        f"task.bucc_file.path='{toy.root}/bucc/{{pair}}.test.{{side}}'", "task.bucc_file.pairs=[de-en]",
        f"task.translation_file.path='{toy.root}/dev/en-{{language}}.tsv'", "task.translation_file.languages=[de]",
    ]  # fmt: skip


def mse(toy: Any) -> list[str]:
    path = f"task.mse_file.path='{toy.root}/dev/en-{{language}}.tsv'"
    return ["hardware=cpu", "task=[mse_file]", path, "task.mse_file.languages=[de]"]


def main_score(results: Results, system: str, task: str, metric: str) -> float:
    found = next(r for r in results.results[system] if r.task == task)
    value = next(s.value for s in found.scores if (s.language, s.metric) == ("mean", metric))
    assert value is not None
    return value


def test_run_folder_gives_the_scores_of_the_run(mlkd: Call, trained: Path, tasks: list[str], tmp_path: Path) -> None:
    trained = Path(shutil.copytree(trained, tmp_path / "run"))
    code, out, err = mlkd("evaluate", f"checkpoint={trained}", *tasks)
    assert code == 0, err
    for name in ("tatoeba_file", "sts_file", "bucc_file", "translation_file"):
        assert name in out
    (folder,) = (trained / "evaluations").iterdir()
    assert str(folder / "results.json") in out
    results = read_results(folder / "results.json")
    (student,) = json.loads((trained / "eval/student.json").read_text())
    (again,) = [r for r in results.results[str(trained)] if r.task == "tatoeba_file"]
    assert [asdict(score) for score in again.scores] == student["scores"]
    assert again.data_sha256 == student["data_sha256"]
    assert "| **mean** |" in (folder / "results.md").read_text()
    assert "tatoeba_file,laser," in (folder / "results.csv").read_text()
    assert r"\end{tabular}" in (folder / "results.tex").read_text()
    assert "1 system scored on tatoeba" in (folder / "report.html").read_text(encoding="utf-8")
    assert "versions" in json.loads((folder / "environment.json").read_text())


def test_checkpoints_side_by_side(
    *, mlkd: Call, toy: Any, trained: Path, tasks: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = mlkd("evaluate", f"checkpoint=['{trained}','{toy.teacher}']", *tasks)
    assert code == 0, err
    (folder,) = (tmp_path / "outputs/evaluations").iterdir()
    results = read_results(folder / "results.json")
    assert results.systems == [str(trained), str(toy.teacher)]
    assert len({entry["sha256"] for entry in results.describe.values()}) == 2
    student, teacher = (main_score(results, name, "tatoeba_file", "accuracy") for name in results.systems)
    assert student > teacher


def test_plain_folder_with_pooling(mlkd: Call, toy: Any, tasks: list[str], tmp_path: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    folder = tmp_path / "plain"
    AutoModel.from_pretrained(toy.teacher, add_pooling_layer=False).save_pretrained(folder)
    AutoTokenizer.from_pretrained(toy.teacher).save_pretrained(folder)
    values = {}
    for pooling in ("null", "mean", "cls"):
        output = tmp_path / pooling
        code, _, err = mlkd(
            "evaluate", f"checkpoint={folder}", f"pooling={pooling}", f"output_dir={output}", *tasks, "max_length=16"
        )
        assert code == 0, err
        results = read_results(output / "results.json")
        values[pooling] = main_score(results, str(folder), "sts_file", "spearman")
    assert values["null"] == values["mean"]
    assert values["cls"] != values["mean"]


def test_mse_needs_a_teacher(mlkd: Call, toy: Any, trained: Path, tmp_path: Path) -> None:
    arguments = [f"checkpoint={trained}", f"output_dir={tmp_path}", *mse(toy)]
    code, _, err = mlkd("evaluate", *arguments)
    assert code == 2
    assert f"error[E205]: teacher.model: is required by mse_file. Example: teacher.model={toy.teacher}\n" in err
    code, _, err = mlkd("evaluate", *arguments, "teacher=folder", f"teacher.model={toy.teacher}")
    assert code == 0, err
    results = read_results(tmp_path / "results.json")
    assert 0 < main_score(results, str(trained), "mse_file", "mse") < 5
    # As a run names it, so that its own scores compare with these.
    name = run_preflight(toy.unscored.config(tmp_path, *mse(toy))).evaluations.teacher
    assert {key.protocol for key in results.rows()} == {f"x100, T(en) against S(xx); teacher {name}"}


def test_teacher_has_no_error_against_itself(mlkd: Call, toy: Any, tmp_path: Path) -> None:
    code, _, err = mlkd(
        "evaluate", f"checkpoint={toy.teacher}", f"teacher.model={toy.teacher}", f"output_dir={tmp_path}", *mse(toy),
        "task.mse_file.target_column=en",
    )  # fmt: skip
    assert code == 0, err
    results = read_results(tmp_path / "results.json")
    assert main_score(results, str(toy.teacher), "mse_file", "mse") == pytest.approx(0, abs=1e-9)


def test_all_problems_come_before_the_first_text(mlkd: Call, toy: Any, trained: Path, tmp_path: Path) -> None:
    typo = str(trained)[:-1] + "m"
    (tmp_path / "empty").mkdir()
    code, _, err = mlkd(
        "evaluate", f"checkpoint=['{typo}','{tmp_path}/empty','{trained}']", "task=[tatoeba_file]",
        "task.tatoeba_file.path=absent/{language}.tsv", "task.tatoeba_file.languages=[de]",
    )  # fmt: skip
    assert code == 4
    assert f"error[E401]: no such folder '{typo}'" in err
    assert f"Did you mean '{trained}'?" in err
    assert "has no modules.json and no config.json" in err
    assert "error[E301]" in err


def test_a_checkpoint_twice_is_refused(mlkd: Call, toy: Any, trained: Path) -> None:
    code, _, err = mlkd("evaluate", f"checkpoint=['{trained}','{trained}']", *mse(toy))
    assert code == 2
    assert "error[E209]: checkpoint: lists a checkpoint twice" in err


def test_broken_weights_are_told(mlkd: Call, toy: Any, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(toy.teacher, folder)
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2])
    code, _, err = mlkd("evaluate", f"checkpoint={folder}", *mse(toy), f"teacher.model={toy.teacher}")
    assert (code, "error[E402]" in err) == (4, True), err
    weights.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    code, _, err = mlkd("evaluate", f"checkpoint={folder}", *mse(toy), f"teacher.model={toy.teacher}")
    assert (code, "git lfs pull" in err) == (4, True), err


def test_nan_weights_give_no_silent_score(mlkd: Call, toy: Any, tasks: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(toy.teacher, folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["embeddings.word_embeddings.weight"] = torch.full_like(
        tensors["embeddings.word_embeddings.weight"], torch.nan
    )
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    code, _, err = mlkd("evaluate", f"checkpoint={folder}", f"output_dir={tmp_path}/out", *tasks)
    assert code != 0
    assert "error[" in err
    assert not (tmp_path / "out").exists()
    # What was scored before the failure is kept.
    code, _, err = mlkd("evaluate", f"checkpoint=['{toy.teacher}','{folder}']", f"output_dir={tmp_path}/out", *tasks)
    assert code == 6 and "error[E601]" in err
    kept = read_results(tmp_path / "out/results.json", with_item_scores=True)
    assert [r.task for r in kept.results[str(toy.teacher)]] == TASKS and kept.systems == [str(toy.teacher)]
    assert kept.results[str(toy.teacher)][0].item_scores and (tmp_path / "out/environment.json").is_file()


def test_each_finished_task_has_a_line_on_stderr(mlkd: Call, toy: Any, tasks: list[str], tmp_path: Path) -> None:
    entries = f"[{{model: '{toy.teacher}', layer: 0, name: words}}, '{toy.teacher}']"
    code, out, err = mlkd("evaluate", f"checkpoint={entries}", f"output_dir={tmp_path}/out", *tasks, "num_resamples=0")
    assert code == 0, err
    wanted = [f"{n}/2 {system}: {task}" for n, system in ((1, "words"), (2, toy.teacher)) for task in TASKS]
    found = re.findall(r"^(\d/\d .*) \d+\.\d s$", err, flags=re.MULTILINE)
    assert found == wanted and "1/2 words" not in out
    assert f"what is finished: {tmp_path}/out/results.json" in err.splitlines()


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ("interrupted", "was interrupted at step 1,200"),
        ("running", "was killed"),
        ("failed", "failed (E601: NaN)"),
        ("finished", None),
    ],
)
def test_a_run_that_is_not_finished_is_told(tmp_path: Path, state: str, told: str | None) -> None:
    (tmp_path / "student").mkdir()
    error = "E601: NaN" if state == "failed" else None
    RunFolder(tmp_path).write_status(Status(state=RunState(state), step=1200, error=error))
    lines = list(unfinished_runs([ScoredEncoder(model=str(tmp_path)), ScoredEncoder(vectors=str(tmp_path))]))
    if told is None:
        assert lines == []
        return
    assert lines == [f"warning: {tmp_path} is not finished: it {told}; its best student so far is scored"]
    with RunFolder(tmp_path).lock():
        (line,) = unfinished_runs([ScoredEncoder(model=str(tmp_path))])
    assert ("is still running" in line) == (state == "running")


def test_baselines_of_several_layers_in_one_table(mlkd: Call, toy: Any, tasks: list[str], tmp_path: Path) -> None:
    entries = f"[{{model: '{toy.teacher}', layer: 0, name: words}}, {{model: '{toy.teacher}', pooling: cls}}]"
    code, _, err = mlkd("evaluate", f"checkpoint={entries}", f"output_dir={tmp_path}/out", *tasks)
    assert code == 0, err
    results = read_results(tmp_path / "out/results.json")
    assert results.systems == ["words", str(toy.teacher)]
    assert (results.describe["words"]["layer"], results.describe[str(toy.teacher)]["pooling"]) == (0, "cls")
    values = [main_score(results, name, "sts_file", "spearman") for name in results.systems]
    assert values[0] != values[1]
    mains = {(key.task, key.language) for key in results.rows() if key.main}
    assert {(c.task, c.language) for c in results.comparisons} >= {
        (task, language) for task, language in mains if task in ("tatoeba_file", "sts_file")
    }
    row = next(key for key in results.rows() if (key.task, key.language) == ("tatoeba_file", "mean"))
    low, high = results.interval(row, "words") or (1.0, 0.0)
    assert low <= main_score(results, "words", "tatoeba_file", "accuracy") <= high


def test_wrong_entries_are_told_with_their_place(mlkd: Call, toy: Any, tasks: list[str]) -> None:
    entries = f"['{toy.teacher}', {{model: '{toy.teacher}', name: b, poolin: cls}}]"
    code, _, err = mlkd("evaluate", f"checkpoint={entries}", *tasks)
    assert code == 2 and "error[E201]: checkpoint[1].poolin: unknown key. Did you mean 'pooling'?" in err
    code, _, err = mlkd("evaluate", f"checkpoint={toy.teacher}", "layer=40", *tasks)
    assert code == 2 and "error[E204]: layer: must be in" in err


def test_vectors_of_somebody_else_give_the_same_scores(
    *, mlkd: Call, toy: Any, tasks: list[str], tmp_path: Path
) -> None:
    vectors = tmp_path / "vectors"
    code, out, err = mlkd("evaluate", f"export_texts={vectors}", *tasks)
    assert code == 0 and f"{vectors}/texts.txt" in out, err
    lines = (vectors / "texts.txt").read_text().split("\n")[:-1]
    peer = SentenceTransformer(str(toy.teacher), device="cpu")
    np.save(vectors / "teacher.npy", peer.encode(lines))
    for name, checkpoint in (("theirs", vectors), ("ours", toy.teacher)):
        code, _, err = mlkd("evaluate", f"checkpoint={checkpoint}", f"output_dir={tmp_path}/{name}", *tasks)
        assert code == 0, err
    code, out, err = mlkd(
        "evaluate",
        f"compare=['{tmp_path}/ours','{tmp_path}/theirs']",
        f"output_dir={tmp_path}/both",
        "num_resamples=100",
    )
    assert code == 0, err
    results = read_results(tmp_path / "both/results.json")
    assert results.systems == [str(toy.teacher), str(vectors)]
    assert (
        results.describe[str(vectors)]["sha256"] == hashlib.sha256((vectors / "teacher.npy").read_bytes()).hexdigest()
    )
    for key, values in results.rows().items():
        assert values[str(toy.teacher)] == pytest.approx(values[str(vectors)], abs=1e-3), key
    assert results.comparisons
    # Rounding may exchange two neighbours; nothing more may differ.
    assert all(abs(c.difference) < 1e-3 for c in results.comparisons)
    (vectors / "texts.txt").write_text("other\n")
    code, _, err = mlkd("evaluate", f"checkpoint={vectors}", *tasks)
    assert code == 4 and "was changed since its export" in err


def test_vectors_of_somebody_else_train_a_classifier(mlkd: Call, toy: Any, tmp_path: Path) -> None:
    pieces = ["the cat", "a dog", "sees", "buys", "water", "some bread"]
    pairs = [(first, second) for first in pieces for second in pieces]
    for name, chosen in (("train.en", pairs[::2]), ("dev.de", pairs[1::2])):
        lines = [f"{n % 3}\t{name[-2:]} {first}\t{name[-2:]} {second}" for n, (first, second) in enumerate(chosen)]
        (tmp_path / f"{name}.tsv").write_text("\n".join(["label\tpremise\thypothesis", *lines, ""]))
    tasks = [
        "hardware=cpu", "task=[xnli_file]", f"task.xnli_file.path='{tmp_path}/dev.{{language}}.tsv'",
        f"task.xnli_file.train_path='{tmp_path}/train.{{language}}.tsv'", "task.xnli_file.languages=[de]",
    ]  # fmt: skip
    vectors = tmp_path / "vectors"
    code, _, err = mlkd("evaluate", f"export_texts={vectors}", *tasks)
    assert code == 0, err
    lines = (vectors / "texts.txt").read_text().split("\n")[:-1]
    assert {line[:2] for line in lines} == {"en", "de"}
    np.save(vectors / "teacher.npy", SentenceTransformer(str(toy.teacher), device="cpu").encode(lines))
    code, _, err = mlkd("evaluate", f"checkpoint=['{vectors}','{toy.teacher}']", f"output_dir={tmp_path}/out", *tasks)
    assert code == 0, err
    results = read_results(tmp_path / "out/results.json")
    theirs, ours = (main_score(results, name, "xnli_file", "accuracy") for name in results.systems)
    assert theirs == ours
    # Vectors of the tested sentences alone are refused before anything is scored.
    kept = [line for line in lines if line.startswith("de")]
    export_texts(tmp_path / "few", kept)
    np.save(tmp_path / "few/teacher.npy", np.ones((len(kept), 4), dtype=np.float32))
    code, _, err = mlkd("evaluate", f"checkpoint={tmp_path}/few", *tasks)
    assert code == 4 and f"error[E409]: {tmp_path}/few/teacher.npy" in err and "texts have no vector" in err


def test_evaluations_that_do_not_compare_are_refused(*, mlkd: Call, toy: Any, tasks: list[str], tmp_path: Path) -> None:
    assert mlkd("evaluate", f"checkpoint={toy.teacher}", f"output_dir={tmp_path}/a", *tasks)[0] == 0
    other = [*tasks, "task.tatoeba_file.protocol=xtreme"]
    assert mlkd("evaluate", f"checkpoint={toy.teacher}", f"output_dir={tmp_path}/b", *other)[0] == 0
    compare = f"compare=['{tmp_path}/a/results.json','{tmp_path}/b']"
    code, _, err = mlkd("evaluate", compare)
    assert code == 3
    assert "error[E322]: task 'tatoeba_file': protocol is 'laser' in a and 'xtreme' in b" in err
    code, out, err = mlkd("evaluate", compare, "allow_partial=true", f"output_dir={tmp_path}/c")
    assert code == 0, err
    assert "left out: task 'tatoeba_file'" in out and "numbers that are not in all files" in out
    assert {r.task for r in read_results(tmp_path / "c/results.json").results[str(toy.teacher)]} == {
        "sts_file", "bucc_file", "translation_file",
    }  # fmt: skip
    code, _, err = mlkd("evaluate", f"compare=['{tmp_path}/a','{tmp_path}/absent']")
    assert code == 3 and "error[E301]" in err


def test_tables_of_tasks_are_written(tmp_path: Path) -> None:
    found = TaskResult(
        "bucc", "p", "f1", True, "0", [], tables={"de-en.mined": [("1.2", "a\tb", "c\nd"), ("1.1", "e", "")]}
    )
    write_task_tables(Results(systems=["x", "runs/ä y"], results={"x": [], "runs/ä y": [found]}), tmp_path)
    (folder,) = tmp_path.iterdir()
    assert folder.name == "2-runs-y"
    assert (folder / "bucc.de-en.mined.tsv").read_text() == "1.2\ta b\tc d\n1.1\te\t\n"
