"""Training state on disk: written whole or not at all, verified when read, as tensors and JSON only.

A checkpoint is a folder `step-00001000` with one safetensors file per group of tensors, `state.json` and
`manifest.json`, which holds the SHA-256 of the others.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from mlkd.errors import MlkdError, fail, out_of_range
from mlkd.runtime.atomic_files import replaced_folder, restore_folder, write_json
from mlkd.version import __version__

log = logging.getLogger(__name__)

FORMAT = 1
MAX_FAILURES = 3
MANIFEST, STATE = "manifest.json", "state.json"
# `.old` is a folder that was being replaced by a new one of the same step when the process died.
STEP_FOLDER = re.compile(r"step-(\d{8,})(\.old)?")
TENSOR_FILE = re.compile(r"[A-Za-z0-9_-]+\.safetensors")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What was saved at the end of `step`; tensors by file stem and name, on the CPU."""

    step: int
    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]


class InvalidCheckpointError(Exception):
    """A folder whose content is not what its manifest says; the text is the reason."""


@dataclass(slots=True)
class CheckpointWriter:
    """Saves into `folder`, and lets training go on when the disk is full; removes what a killed process left behind.

    Args:
        folder: `<run>/checkpoints`; this process alone writes there.
        keep: number of newest checkpoints that stay, at least 1.
    """

    folder: Path
    keep: int = 2
    num_failures: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if problems := out_of_range(self, "keep", ge=1):
            raise MlkdError(problems)
        remove_stale(self.folder)

    def save(self, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> Path | None:
        """Save; None, with an error in the log, where the disk did not take it. Older checkpoints then stay.

        Raises:
            MlkdError: E512 at the third failure in a row.
        """
        try:
            path = save_checkpoint(self.folder, step, tensors, state, self.keep)
        except OSError as error:
            self.num_failures += 1
            what = f"checkpoint of step {step} not saved in '{self.folder}': {error}; {_free_space(self.folder)}"
            if self.num_failures >= MAX_FAILURES:
                remedy = "free some space and give the same command again: it continues from the last checkpoint"
                raise fail("E512", f"{what}; {self.num_failures} failures in a row", remedy=remedy) from error
            log.error("%s; training goes on (failure %d of %d)", what, self.num_failures, MAX_FAILURES)
            return None
        self.num_failures = 0
        return path


def save_checkpoint(
    folder: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any], keep: int = 2
) -> Path:
    """Write `folder/step-<step>` so that it appears complete or not at all, then remove older ones beyond `keep`.

    Args:
        tensors: file stem -> name -> tensor, of any device and layout, shared or not.
        state: what JSON can hold; tuples come back as lists, keys as strings.

    Raises:
        OSError: the disk is full or failing; nothing that was there before has changed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"step-{step:08d}"
    with replaced_folder(final) as temporary:
        _write_content(temporary, step, tensors, state)
    _prune(folder, step, keep)
    return final


def load_latest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that is what its manifest says; None where nothing was ever saved.

    A damaged one is passed over with a warning that names the reason.

    Raises:
        MlkdError: E410 where the newest one has a newer format; E411 where all are damaged.
    """
    reasons: list[str] = []
    for path in _step_folders(folder):
        try:
            checkpoint = _load(path)
        except InvalidCheckpointError as error:
            reasons.append(f"{path.name}: {error}")
            log.warning("checkpoint '%s' is damaged and not used: %s", path, error)
            continue
        return checkpoint
    if reasons:
        raise fail(
            "E411",
            f"no usable checkpoint in '{folder}': {'; '.join(reasons)}",
            remedy="restore one from a copy, or delete the folder to start from step 0",
        )
    return None


def remove_stale(folder: Path) -> None:
    """Remove what a killed process was writing, and put back what it was replacing."""
    for path in sorted(folder.glob("*.tmp")):
        log.info("removing '%s', left by a process that was killed", path)
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for old in sorted(folder.glob("step-*.old")):
        restore_folder(old.with_suffix(""))


def _write_content(
    folder: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]
) -> None:
    write_json(folder / STATE, dict(state))
    mode = (folder / STATE).stat().st_mode
    for stem, group in tensors.items():
        path = folder / f"{stem}.safetensors"
        assert TENSOR_FILE.fullmatch(path.name), path.name
        try:
            safetensors.torch.save_file(_separate(group), path)
        except SafetensorError as error:
            raise _as_os_error(error, path) from error
        path.chmod(mode)  # safetensors makes files that only their owner can read
    files = {path.name: {"sha256": _sha256(path), "bytes": path.stat().st_size} for path in sorted(folder.iterdir())}
    write_json(folder / MANIFEST, {"format": FORMAT, "mlkd": __version__, "step": step, "files": files})


def _separate(group: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous CPU tensors of which no two share memory, which safetensors would refuse."""
    separate: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in group.items():
        plain = tensor.detach().cpu().contiguous()
        if plain.untyped_storage().data_ptr() in seen:
            plain = plain.clone()
        seen.add(plain.untyped_storage().data_ptr())
        separate[name] = plain
    return separate


def _as_os_error(error: SafetensorError, path: Path) -> Exception:
    """The OSError inside an error of safetensors, which tells its number in the text alone; else the error itself."""
    match = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(match[1]), os.strerror(int(match[1])), str(path)) if match else error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _step_folders(folder: Path) -> list[Path]:
    """Folders of checkpoints, newest first; one being replaced comes after its successor."""
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        match = STEP_FOLDER.fullmatch(path.name)
        if match and path.is_dir():
            found.append((int(match[1]), match[2] is None, path))
    return [path for *_, path in sorted(found, reverse=True)]


def _prune(folder: Path, step: int, keep: int) -> None:
    """Leave the `keep` newest up to `step`. Those beyond it were damaged, or training would not have come back here."""
    newest = [path for path in _step_folders(folder) if _step_of(path) <= step][:keep]
    for path in _step_folders(folder):
        if path not in newest:
            # Renamed first: killed half-way through the removal, it must not look like a damaged checkpoint.
            doomed = path.with_suffix(".tmp")
            shutil.rmtree(doomed, ignore_errors=True)
            with contextlib.suppress(OSError):
                path.rename(doomed)
            shutil.rmtree(doomed, ignore_errors=True)


def _load(path: Path) -> Checkpoint:
    """Read one folder, after the sizes and sums of all its files were compared with the manifest."""
    files = _verify(path)
    try:
        state = json.loads((path / STATE).read_text(encoding="utf-8"))
        tensors = {
            name.removesuffix(".safetensors"): safetensors.torch.load_file(path / name)
            for name in files
            if name != STATE
        }
    except (OSError, ValueError, SafetensorError) as error:
        raise InvalidCheckpointError(str(error)) from error
    return Checkpoint(_step_of(path), tensors, state)


def _verify(path: Path) -> list[str]:
    """Names of the files of a sound checkpoint."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        version, step, files = int(manifest["format"]), manifest["step"], dict(manifest["files"])
        if version > FORMAT:
            raise _newer_format(path, manifest["mlkd"], version)
        if step != _step_of(path):
            raise InvalidCheckpointError(f"{MANIFEST} is of step {step}")
        for name in (STATE, *files):
            if name not in files or not (name == STATE or TENSOR_FILE.fullmatch(name)):
                raise InvalidCheckpointError(f"{MANIFEST} does not name the files of a checkpoint: {sorted(files)}")
        for name, expected in files.items():
            num_bytes = (path / name).stat().st_size
            if num_bytes != expected["bytes"]:
                raise InvalidCheckpointError(f"{name} has {num_bytes:,} bytes instead of {expected['bytes']:,}")
            if _sha256(path / name) != expected["sha256"]:
                raise InvalidCheckpointError(f"SHA-256 of {name} differs from {MANIFEST}")
    except MlkdError:  # is a ValueError too
        raise
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InvalidCheckpointError(f"{type(error).__name__}: {error}") from error
    return list(files)


def _step_of(path: Path) -> int:
    return int(path.name[len("step-") :].removesuffix(".old"))


def _newer_format(path: Path, writer: str, version: int) -> MlkdError:
    return fail(
        "E410",
        f"written by mlkd {writer}, format {version}; this is mlkd {__version__}, format {FORMAT}",
        where=str(path),
        remedy=f"install mlkd {writer} or newer",
    )


def _free_space(folder: Path) -> str:
    try:
        return f"{shutil.disk_usage(folder).free / 2**30:.2f} GiB free"
    except OSError as error:
        return f"free space unknown ({error})"
