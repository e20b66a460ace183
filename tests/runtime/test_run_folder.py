"""A run folder: its status, the run that was killed and is found again, and what it says of its environment."""

import json
import logging
import os
import socket
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
import torch

import mlkd
from mlkd.errors import MlkdError
from mlkd.runtime.atomic_files import write_json, write_text
from mlkd.runtime.environment import describe_environment
from mlkd.runtime.run_folder import RunFolder, RunState, Status, find_unfinished, new_run_path


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "lä b" / "2026-01-02_03-04-05")


@pytest.mark.parametrize("make", ["under_proc", "under_a_file"])
def test_folder_that_cannot_be_written(tmp_path: Path, make: str) -> None:
    (tmp_path / "file").write_text("")
    parent = Path("/proc/mlkd") if make == "under_proc" else tmp_path / "file"
    if make == "under_proc" and not Path("/proc").is_dir():
        pytest.skip("no /proc on this system")
    for attempt in (RunFolder(parent / "run").create, lambda: new_run_path(parent, datetime(2026, 1, 2))):
        with pytest.raises(MlkdError, match="E510") as error:
            attempt()
        assert error.value.exit_code == 5
        assert str(parent) in str(error.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser can write everywhere")
def test_read_only_folder(run: RunFolder) -> None:
    run.create()
    run.path.chmod(0o500)
    with pytest.raises(MlkdError, match="E510"), run.lock():
        pytest.fail("a read-only folder was locked")
    run.path.chmod(0o700)


def test_status(run: RunFolder, caplog: pytest.LogCaptureFixture) -> None:
    run.create()
    assert run.read_status() is None
    status = Status(state=RunState.failed, step=3, max_steps=10, error="ü", fingerprint="f")
    run.write_status(status)
    assert json.loads(run.status.read_text(encoding="utf-8")) == {
        "state": "failed",
        "step": 3,
        "max_steps": 10,
        "error": "ü",
        "fingerprint": "f",
    }
    assert run.read_status() == status
    assert not caplog.records
    for content in ("{", "[]", '{"state": "asleep"}', '{"state": "running", "colour": 1}', "{}"):
        run.status.write_text(content)
        assert run.read_status() is None
        assert str(run.status) in caplog.text
        caplog.clear()


def test_find_unfinished(tmp_path: Path) -> None:
    assert find_unfinished(tmp_path / "none", "f") is None
    contents = {
        "old": Status(state=RunState.interrupted, fingerprint="f"),
        "newest": Status(state=RunState.running, fingerprint="f"),
        "finished": Status(state=RunState.finished, fingerprint="f"),
        "other": Status(state=RunState.running, fingerprint="g"),
        "broken": None,
    }
    for age, (name, status) in enumerate(contents.items()):
        run = RunFolder(tmp_path / name)
        run.create()
        if status is None:
            run.status.write_text("{")
        else:
            run.write_status(status)
        # The name tells nothing about age; what was written last counts.
        os.utime(run.status, (1000 - age if name == "old" else 2000 + age,) * 2)
    assert find_unfinished(tmp_path, "f") == tmp_path / "newest"
    RunFolder(tmp_path / "newest").write_status(Status(state=RunState.finished, fingerprint="f"))
    assert find_unfinished(tmp_path, "f") == tmp_path / "old"
    assert find_unfinished(tmp_path, "h") is None


def test_new_run_path_is_unique_within_a_second(tmp_path: Path) -> None:
    now = datetime(2026, 1, 2, 3, 4, 5)
    paths = [new_run_path(tmp_path / "a b", now) for _ in range(3)]
    assert [path.name for path in paths] == ["2026-01-02_03-04-05", "2026-01-02_03-04-05-2", "2026-01-02_03-04-05-3"]
    assert all(path.is_dir() for path in paths)


def test_a_failed_write_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ä b.json"
    write_json(path, {"a": "ß"})
    assert path.read_text(encoding="utf-8") == '{\n  "a": "ß"\n}\n'
    write_text(path, "one\r\ntwo")
    assert path.read_bytes() == b"one\r\ntwo"

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_text(path, "new")
    assert path.read_bytes() == b"one\r\ntwo"
    assert list(tmp_path.iterdir()) == [path]


def test_long_names_are_written(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 250)
    write_text(path, "text")
    assert path.read_text() == "text"


def test_environment_has_versions_and_no_secrets(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    run.create()
    run.write_environment("cpu")
    text = run.environment.read_text()
    content = json.loads(text)
    assert content["versions"]["mlkd"] == mlkd.__version__
    assert content["versions"]["torch"] == torch.__version__
    assert content["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert content["device"] == "cpu"
    assert content["num_threads"] == torch.get_num_threads()
    assert content["cpu"]
    assert "hf_secret" not in text
    assert socket.gethostname() not in json.dumps({k: v for k, v in content.items() if k != "platform"})


def test_environment_names_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert describe_environment("cpu")["git_commit"] is None
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "init", "--quiet"], check=True)
    (tmp_path / "file").write_text("1")
    subprocess.run(["git", "add", "file"], check=True)
    subprocess.run(["git", *identity, "commit", "--quiet", "--no-verify", "-m", "one"], check=True)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert describe_environment("cpu")["git_commit"] == commit
    assert describe_environment("cpu")["git_modified"] is False
    (tmp_path / "file").write_text("2")
    assert describe_environment("cpu")["git_modified"] is True
    monkeypatch.setenv("PATH", "")
    assert describe_environment("cpu")["git_commit"] is None


def test_missing_folder_is_not_made_by_looking(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    run = RunFolder(tmp_path / "none")
    assert run.read_status() is None
    assert not run.path.exists()
    assert not caplog.records
