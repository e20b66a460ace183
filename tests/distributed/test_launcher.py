"""The other processes of a run: what ends them, and what is made of their end."""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import mlkd.distributed.launcher as crew_module
from mlkd.distributed.launcher import Crew, Failure, Follower, blocked_signals
from mlkd.distributed.process_group import LostError
from mlkd.errors import MlkdError, fail
from mlkd.runtime.signals import SIGNALS

TRACES: list[str] = []


@pytest.fixture
def crew(monkeypatch: pytest.MonkeyPatch) -> Iterator[Crew]:
    """Two processes that sleep; the other ends of their pipes are in `others`."""
    monkeypatch.setattr(crew_module, "REASON_S", 0.5)
    context = multiprocessing.get_context("forkserver")
    TRACES.clear()
    found = Crew(3, time.sleep, tell_trace=TRACES.append)
    for rank in (1, 2):
        own, theirs = multiprocessing.Pipe()
        process = context.Process(target=time.sleep, args=(60,))
        process.start()
        found.followers.append(Follower(rank, process, own))
        others[rank] = theirs
    yield found
    found._end(at_once=True)


others: dict[int, Any] = {}


def test_one_process_has_no_others() -> None:
    with Crew(1, time.sleep) as crew:
        crew.tell("step")
        assert crew.ask("state") == []
        assert crew.followers == []


def test_they_are_told_and_heard_in_order(crew: Crew) -> None:
    others[2].send(("second",))
    others[1].send(("first",))
    assert crew.ask("state") == [("first",), ("second",)]
    assert [others[rank].recv() for rank in (1, 2)] == [("state",), ("state",)]


def test_waiting_can_be_ended(crew: Crew) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        crew.hear(stop)


def test_the_first_cause_is_told(crew: Crew) -> None:
    others[1].send(Failure.of(LostError("Connection closed by peer")))
    others[2].send(("an answer that nobody waits for any more",))
    others[2].send(Failure.of(fail("E303", "line 3 is bad")))
    found = crew.explain(RuntimeError("Connection closed by peer"))
    assert isinstance(found, MlkdError)
    assert (str(found), found.exit_code) == ("error[E303]: line 3 is bad", 3)
    assert TRACES == []


def test_an_error_that_is_ours_leaves_its_traceback_to_the_log(crew: Crew) -> None:
    try:
        raise ZeroDivisionError("by nothing")
    except ZeroDivisionError as error:
        others[1].send(Failure.of(error))
    with pytest.raises(
        MlkdError, match=r"error\[E102\]: process 2 of 3 failed: ZeroDivisionError: by nothing"
    ) as caught:
        crew.hear()
    assert caught.value.exit_code == 1
    assert len(TRACES) == 1 and "Traceback" in TRACES[0] and "by nothing" in TRACES[0]


def test_a_killed_process_is_named(crew: Crew) -> None:
    crew.followers[1].process.kill()
    crew.followers[1].process.join()
    with pytest.raises(MlkdError, match=r"error\[E515\]: process 3 of 3 was killed \(SIGKILL\)"):
        crew.hear()


def test_no_reason_is_told_as_such(crew: Crew) -> None:
    assert "lost each other: broken" in str(crew.explain(RuntimeError("broken")))
    assert "waited 600 s for one another" in str(crew.explain(RuntimeError("Timed out waiting 600000ms")))


def test_the_watcher_knows_a_loss_from_an_end(crew: Crew) -> None:
    lost = threading.Event()
    crew.watch(lost.set)
    crew.followers[0].process.kill()
    assert lost.wait(20)


def test_an_end_is_no_loss(crew: Crew) -> None:
    lost = threading.Event()
    crew.watch(lost.set)
    watcher = crew.watcher
    crew.dismiss()
    assert [others[rank].recv() for rank in (1, 2)] == [("stop",), ("stop",)]
    crew._end(at_once=True)
    assert watcher is not None and not watcher.is_alive()
    assert not lost.is_set() and crew.followers == []


def test_processes_that_start_inherit_blocked_signals() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with blocked_signals():
        assert {*SIGNALS} <= signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before
    assert not before & {*SIGNALS}
