"""The other processes of a run: what ends them, and what is made of their end."""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import mlkd.distributed.launcher as launcher_module
from mlkd.distributed.launcher import Failure, Launcher, Worker, blocked_signals
from mlkd.distributed.process_group import LostProcessError
from mlkd.errors import MlkdError, fail
from mlkd.runtime.signals import SIGNALS

TRACES: list[str] = []


@pytest.fixture
def launcher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Launcher]:
    """Two processes that sleep; the other ends of their pipes are in `others`."""
    monkeypatch.setattr(launcher_module, "REASON_S", 0.5)
    context = multiprocessing.get_context("forkserver")
    TRACES.clear()
    found = Launcher(3, time.sleep, log_traceback=TRACES.append)
    for rank in (1, 2):
        own, theirs = multiprocessing.Pipe()
        process = context.Process(target=time.sleep, args=(60,))
        process.start()
        found.workers.append(Worker(rank, process, own))
        others[rank] = theirs
    yield found
    found._end(at_once=True)


others: dict[int, Any] = {}


def test_one_process_has_no_others() -> None:
    with Launcher(1, time.sleep) as launcher:
        launcher.send("step")
        assert launcher.gather_answers("state") == []
        assert launcher.workers == []


def test_they_are_told_and_heard_in_order(launcher: Launcher) -> None:
    others[2].send(("second",))
    others[1].send(("first",))
    assert launcher.gather_answers("state") == [("first",), ("second",)]
    assert [others[rank].recv() for rank in (1, 2)] == [("state",), ("state",)]


def test_waiting_can_be_ended(launcher: Launcher) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launcher.receive(stop)


def test_the_first_cause_is_told(launcher: Launcher) -> None:
    others[1].send(Failure.of(LostProcessError("Connection closed by peer")))
    others[2].send(("an answer that nobody waits for any more",))
    others[2].send(Failure.of(fail("E303", "line 3 is bad")))
    found = launcher.explain_failure(RuntimeError("Connection closed by peer"))
    assert isinstance(found, MlkdError)
    assert (str(found), found.exit_code) == ("error[E303]: line 3 is bad", 3)
    assert TRACES == []


def test_an_error_that_is_ours_leaves_its_traceback_to_the_log(launcher: Launcher) -> None:
    try:
        raise ZeroDivisionError("by nothing")
    except ZeroDivisionError as error:
        others[1].send(Failure.of(error))
    with pytest.raises(
        MlkdError, match=r"error\[E102\]: process 2 of 3 failed: ZeroDivisionError: by nothing"
    ) as caught:
        launcher.receive()
    assert caught.value.exit_code == 1
    assert len(TRACES) == 1 and "Traceback" in TRACES[0] and "by nothing" in TRACES[0]


def test_a_killed_process_is_named(launcher: Launcher) -> None:
    launcher.workers[1].process.kill()
    launcher.workers[1].process.join()
    with pytest.raises(MlkdError, match=r"error\[E515\]: process 3 of 3 was killed \(SIGKILL\)"):
        launcher.receive()


def test_no_reason_is_told_as_such(launcher: Launcher) -> None:
    assert "lost each other: broken" in str(launcher.explain_failure(RuntimeError("broken")))
    assert "waited 600 s for one another" in str(launcher.explain_failure(RuntimeError("Timed out waiting 600000ms")))


def test_the_watcher_knows_a_loss_from_an_end(launcher: Launcher) -> None:
    lost = threading.Event()
    launcher.monitor(lost.set)
    launcher.workers[0].process.kill()
    assert lost.wait(20)


def test_an_end_is_no_loss(launcher: Launcher) -> None:
    lost = threading.Event()
    launcher.monitor(lost.set)
    watcher = launcher.watcher
    launcher.shut_down()
    assert [others[rank].recv() for rank in (1, 2)] == [("stop",), ("stop",)]
    launcher._end(at_once=True)
    assert watcher is not None and not watcher.is_alive()
    assert not lost.is_set() and launcher.workers == []


def test_processes_that_start_inherit_blocked_signals() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with blocked_signals():
        assert {*SIGNALS} <= signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before
    assert not before & {*SIGNALS}
