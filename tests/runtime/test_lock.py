"""One process holds a run folder: living, dead, on another host, started again, and two that ask at once."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mlkd
from mlkd.errors import MlkdError
from mlkd.runtime import lock as run_lock
from mlkd.runtime.run_folder import RunFolder, find_unfinished

HOLDER = """
import sys, time
from pathlib import Path
from mlkd.runtime.run_folder import RunFolder, RunState, Status

run = RunFolder(Path(sys.argv[1]))
with run.lock():
    run.write_status(Status(state=RunState.running, fingerprint="f1"))
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "lä b" / "2026-01-02_03-04-05")


@pytest.fixture
def holder(run: RunFolder) -> Iterator["subprocess.Popen[str]"]:
    """Another process that holds the lock of `run`."""
    environment = os.environ | {"PYTHONPATH": str(Path(mlkd.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(run.path)], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def write_lock(run: RunFolder, **changes: Any) -> None:
    """A lock as this process would hold it, with some fields changed."""
    with run.lock():
        content = json.loads(run.lock_file.read_text())
    run.lock_file.write_text(json.dumps(content | changes))


def assert_held(run: RunFolder, who: str) -> None:
    with pytest.raises(MlkdError, match="E511") as error, run.lock():
        pytest.fail("the lock was given twice")
    assert error.value.exit_code == 5
    assert who in str(error.value)
    assert str(run.lock_file) in str(error.value)


def test_lock_of_a_living_process_and_then_of_a_dead_one(
    run: RunFolder, holder: "subprocess.Popen[str]", caplog: pytest.LogCaptureFixture
) -> None:
    assert_held(run, f"process {holder.pid} on host {socket.gethostname()} since 20")
    assert find_unfinished(run.path.parent, "f1") is None

    holder.kill()
    holder.wait()

    assert find_unfinished(run.path.parent, "f1") == run.path
    with run.lock():
        assert json.loads(run.lock_file.read_text())["pid"] == os.getpid()
    assert f'"pid": {holder.pid}' in caplog.text
    assert "took over the lock" in caplog.text
    assert not run.lock_file.exists()
    assert [path.name for path in run.path.iterdir()] == ["status.json"]


def test_lock_is_released_after_an_error_and_not_given_twice_in_one_process(run: RunFolder) -> None:
    with pytest.raises(RuntimeError), run.lock():
        assert_held(run, f"process {os.getpid()}")
        raise RuntimeError
    with run.lock():
        pass


def test_number_of_a_dead_process_was_given_to_another(run: RunFolder) -> None:
    write_lock(run, process="another boot/123")
    with run.lock():
        pass


def test_lock_of_another_host_is_respected(run: RunFolder) -> None:
    write_lock(run, host="node17", pid=2**22 + 1)
    assert_held(run, "on host node17")


def test_requeued_job_takes_its_own_lock_over_on_another_host(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    write_lock(run, host="node17", job="42", job_restart=0)
    assert_held(run, "on host node17")  # another task of the same job
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    with run.lock():
        assert json.loads(run.lock_file.read_text())["job_restart"] == 1


def test_lock_that_cannot_be_read(run: RunFolder) -> None:
    run.create()
    run.lock_file.write_text('{"pid": 1')
    assert_held(run, "another process")  # which may be writing it
    os.utime(run.lock_file, (0, 0))
    with run.lock():
        pass


def test_lock_of_another_run_is_not_removed(run: RunFolder) -> None:
    with run.lock():
        run.lock_file.write_text("someone else's")
    assert run.lock_file.read_text() == "someone else's"


def test_stale_lock_that_another_process_took_over_first(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    write_lock(run, process="another boot/123")
    is_stale = run_lock._is_stale

    def while_another_is_quicker(path: Path, content: str) -> bool:
        answer = is_stale(path, content)
        path.write_text("the quicker one")
        return answer

    monkeypatch.setattr(run_lock, "_is_stale", while_another_is_quicker)
    assert_held(run, "another process")
    assert run.lock_file.read_text() == "the quicker one"


def test_lock_removes_halves_of_files(run: RunFolder) -> None:
    run.create()
    (run.path / ".status.json.0a1b2c3d.tmp").write_text("{")
    with run.lock():
        assert [path.name for path in run.path.iterdir()] == ["lock"]
