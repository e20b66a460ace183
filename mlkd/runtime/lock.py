"""The lock of a run folder: one process at a time, and a dead one does not keep it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from mlkd.errors import MlkdError, fail

log = logging.getLogger(__name__)

# A lock nobody can read was being written this many seconds ago, or its writer died doing so.
UNREADABLE_LOCK_S = 60.0


@contextlib.contextmanager
def hold_lock(path: Path) -> Iterator[None]:
    """Hold the lock file `path` alone. The lock of a process that died is taken over, and the log says so.

    Raises:
        MlkdError: E511 naming process, host and start where another run holds it; E510 where it cannot be written.
    """
    own = _describe_process()
    try:
        content = read_lock(path)
        if content is not None:
            if not _is_stale(path, content) or not _remove_exactly(path, content):
                raise _held(path, read_lock(path) or content)
            log.warning("took over the lock of a run that died: %s", content.strip())
        _write_exclusively(path, own)
    except FileExistsError as error:
        raise _held(path, read_lock(path) or "") from error
    except OSError as error:
        raise not_writable(path, error) from error
    try:
        yield
    finally:
        if read_lock(path) == own:
            path.unlink(missing_ok=True)


def is_held(path: Path) -> bool:
    """Whether a process that may be alive holds the lock; one on another host counts as alive."""
    content = read_lock(path)
    return content is not None and not _is_stale(path, content)


def read_lock(path: Path) -> str | None:
    """What the holder wrote about itself; None where there is no lock."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None


def not_writable(path: Path, error: OSError) -> MlkdError:
    return fail(
        "E510",
        f"cannot write to '{path}': {error.strerror or error}",
        remedy="choose an output folder that can be written, or free some space",
    )


def _describe_process() -> str:
    """Content of the lock: who holds it, and what tells this process from a later one with the same number."""
    holder = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "process": _process_identity(os.getpid()),
        "job": os.environ.get("SLURM_JOB_ID"),
        "job_restart": int(os.environ.get("SLURM_RESTART_COUNT", "0")),
    }
    return json.dumps(holder) + "\n"


def _process_identity(pid: int) -> str | None:
    """Boot of the machine and start of the process in ticks since then; None where the system does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        # The command in parentheses may hold spaces; the start is field 22, the 20th after it.
        start = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
    except OSError:
        return None
    return f"{boot}/{start}"


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # it is someone else's
    return True


def _is_stale(path: Path, content: str) -> bool:
    """Whether the holder described in `content` is known to be dead."""
    try:
        holder = json.loads(content)
        pid, host, process = int(holder["pid"]), holder["host"], holder["process"]
        job, restart = holder["job"], int(holder["job_restart"])
    except (ValueError, TypeError, KeyError):
        with contextlib.suppress(FileNotFoundError):
            return time.time() - path.stat().st_mtime > UNREADABLE_LOCK_S
        return True
    # A requeued job keeps its number and may start on another host; then its former self is gone.
    own_restart = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    if job is not None and job == os.environ.get("SLURM_JOB_ID") and restart < own_restart:
        return True
    if host != socket.gethostname():
        return False
    return not _is_alive(pid) or (process is not None and process != _process_identity(pid))


def _remove_exactly(path: Path, content: str) -> bool:
    """Remove a stale lock; False where another process was quicker, whose lock is then left in place."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return False
    is_same = read_lock(aside) == content
    if is_same:
        aside.unlink()
    else:
        aside.rename(path)
    return is_same


def _write_exclusively(path: Path, content: str) -> None:
    with path.open("x", encoding="utf-8") as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            path.unlink(missing_ok=True)
            raise


def _held(path: Path, content: str) -> MlkdError:
    try:
        holder = json.loads(content)
        who = f"process {holder['pid']} on host {holder['host']} since {holder['started']}"
    except (ValueError, TypeError, KeyError):
        who = "another process"
    return fail(
        "E511",
        f"'{path.parent}' is in use by {who}",
        remedy=f"wait for it, choose another output folder, or, if that process is gone, delete '{path}'",
    )
