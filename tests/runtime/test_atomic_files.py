"""Files and folders are replaced whole: a failure or a kill at any point leaves the old or the new content."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mlkd.runtime import atomic_files
from mlkd.runtime.atomic_files import (
    new_folder,
    remove_stale,
    replaced_file,
    replaced_folder,
    restore_folder,
    write_array,
    write_bytes,
    write_json,
    write_text,
)

KILLED = textwrap.dedent(
    """
    import os, shutil, sys
    from pathlib import Path
    from mlkd.runtime.atomic_files import replaced_file, replaced_folder

    path, kind, after = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    count = 0

    def counted(function):
        def call(*args, **kwargs):
            global count
            if count == after:
                os._exit(9)
            count += 1
            return function(*args, **kwargs)
        return call

    for module, name in ((os, "fsync"), (os, "rename"), (os, "replace"), (os, "mkdir"), (os, "chmod"), (os, "unlink")):
        setattr(module, name, counted(getattr(module, name)))
    shutil.rmtree = counted(shutil.rmtree)
    if kind == "file":
        with replaced_file(path) as temporary:
            temporary.write_text("new")
    else:
        with replaced_folder(path) as temporary:
            (temporary / "a").write_text("new")
            (temporary / "b").mkdir()
            (temporary / "b/c").write_text("new")
    print(count)
    """
)


def content(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*") if file.is_file()}


def run_and_kill(path: Path, kind: str, after: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", KILLED, str(path), kind, str(after)]
    return subprocess.run(command, check=False, capture_output=True, text=True)


@pytest.mark.parametrize("after", range(6))
def test_a_file_survives_a_kill_at_any_operation(tmp_path: Path, after: int) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    done = run_and_kill(path, "file", after)
    assert path.read_text() in ("old", "new")
    assert done.returncode in (0, 9), done.stderr
    if done.returncode == 0:
        assert path.read_text() == "new" and int(done.stdout) <= after
    remove_stale(tmp_path, older_than_s=0)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("after", range(12))
def test_a_folder_survives_a_kill_at_any_operation(tmp_path: Path, after: int) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    (path / "a").write_text("old")
    done = run_and_kill(path, "folder", after)
    assert done.returncode in (0, 9), done.stderr
    restore_folder(path)
    assert content(path) in ({"a": "old"}, {"a": "new", "b/c": "new"})
    if done.returncode == 0:
        assert content(path)["a"] == "new" and int(done.stdout) <= after
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_enough_operations_were_killed(tmp_path: Path) -> None:
    """The ranges above reach past the last operation, or they would leave some out."""
    (tmp_path / "file").write_text("old")
    (tmp_path / "folder").mkdir()
    for kind, limit in (("file", 6), ("folder", 12)):
        assert int(run_and_kill(tmp_path / kind, kind, 10**6).stdout) < limit


def write_new_folder(path: Path) -> None:
    with new_folder(path) as temporary:
        (temporary / "x").write_text("x")


def write_replaced_folder(path: Path) -> None:
    with replaced_folder(path) as temporary:
        (temporary / "x").write_text("x")


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_text(path, "x"),
        lambda path: write_bytes(path, b"x"),
        lambda path: write_json(path, {}),
        lambda path: write_array(path, np.zeros(3)),
        write_new_folder,
        write_replaced_folder,
    ],
)
def test_a_full_disk_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], None]
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "target")
    assert list(tmp_path.iterdir()) == []


def test_what_is_written(tmp_path: Path) -> None:
    write_text(tmp_path / "text", "Größe\r\n")
    assert (tmp_path / "text").read_bytes() == "Größe\r\n".encode()
    write_json(tmp_path / "json", {"ä": 1})
    assert (tmp_path / "json").read_text("utf-8") == '{\n  "ä": 1\n}\n'
    write_array(tmp_path / "array.npy", np.arange(3))
    assert np.load(tmp_path / "array.npy").tolist() == [0, 1, 2]
    with replaced_file(tmp_path / "tensors") as temporary:
        save_file({"a": torch.ones(2)}, temporary)
    assert load_file(tmp_path / "tensors")["a"].tolist() == [1, 1]
    # safetensors alone would make it readable by nobody else.
    assert (tmp_path / "tensors").stat().st_mode == (tmp_path / "text").stat().st_mode


def test_an_error_inside_leaves_the_old_content(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "old")
    write_replaced_folder(tmp_path / "folder")
    for replaced, name in ((replaced_file, "file"), (replaced_folder, "folder"), (new_folder, "other")):
        with pytest.raises(ZeroDivisionError), replaced(tmp_path / name):
            raise ZeroDivisionError
    assert content(tmp_path) == {"file": "old", "folder/x": "x"}


def test_the_first_of_two_new_folders_stays(tmp_path: Path) -> None:
    with new_folder(tmp_path / "cache") as temporary:
        (temporary / "x").write_text("second")
        with new_folder(tmp_path / "cache") as other:
            (other / "x").write_text("first")
    assert content(tmp_path) == {"cache/x": "first"}


def test_only_old_leftovers_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".a.npy.1.tmp").write_text("")
    (tmp_path / ".store.2.tmp").mkdir()
    (tmp_path / "mine.tmp").write_text("a name of the user's")
    remove_stale(tmp_path)
    assert len(list(tmp_path.iterdir())) == 3
    old = atomic_files.STALE_AFTER_S + 1
    for name in (".a.npy.1.tmp", ".store.2.tmp"):
        then = (tmp_path / name).stat().st_mtime - old
        os.utime(tmp_path / name, (then, then))
    remove_stale(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.tmp"]
    remove_stale(tmp_path / "nowhere")


def test_a_long_name_still_has_a_temporary_one(tmp_path: Path) -> None:
    write_text(tmp_path / ("n" * 240), "x")
    assert [len(p.name) for p in tmp_path.iterdir()] == [240]
