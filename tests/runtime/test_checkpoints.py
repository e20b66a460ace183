"""A checkpoint is read back bit for bit, or it is named as damaged; nothing that was saved is lost."""

import json
import logging
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import mlkd
from mlkd.errors import MlkdError
from mlkd.runtime import checkpoints
from mlkd.runtime.checkpoints import CheckpointWriter, load_latest, remove_stale, save_checkpoint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "lä b" / "checkpoints"


def save(folder: Path, step: int, keep: int = 2) -> Path:
    return save_checkpoint(folder, step, {"student": {"w": torch.full((100,), float(step))}}, {"step": step}, keep)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def loaded_step(folder: Path) -> int | None:
    checkpoint = load_latest(folder)
    if checkpoint is None:
        return None
    assert checkpoint.state == {"step": checkpoint.step}
    assert torch.equal(checkpoint.tensors["student"]["w"], torch.full((100,), float(checkpoint.step)))
    return checkpoint.step


def flip_bit(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def test_optimiser_random_state_and_shared_weights_return_exactly(folder: Path) -> None:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    model[1].weight = model[0].weight
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(2, 4)).sum().backward()
    optimizer.step()
    moments = {f"0.{name}": value for name, value in optimizer.state_dict()["state"][0].items()}
    matrix = torch.randn(6, 4, dtype=torch.bfloat16)
    tensors = {
        "student": model.state_dict(keep_vars=True),
        "optimizer": moments,
        "random": {"cpu": torch.get_rng_state()},
        "projection": {},
        "views": {"transposed": matrix.T, "rows": matrix[2:4], "all": matrix, "empty": torch.zeros(0, 4)},
    }
    state = {"best": 0.1 + 0.2, "worst": -float("inf"), "epoch": 3, "order": [2, 1], "name": "ü"}
    save_checkpoint(folder, 7, tensors, state)
    expected = torch.randn(5)

    checkpoint = load_latest(folder)

    assert checkpoint is not None
    assert checkpoint.step == 7
    assert checkpoint.state == state
    assert {stem: set(group) for stem, group in checkpoint.tensors.items()} == {
        stem: set(group) for stem, group in tensors.items()
    }
    for stem, group in tensors.items():
        for name, tensor in group.items():
            read = checkpoint.tensors[stem][name]
            assert read.dtype == tensor.dtype
            assert read.shape == tensor.shape
            assert torch.equal(read, tensor.detach()), (stem, name)
    torch.set_rng_state(checkpoint.tensors["random"]["cpu"])
    assert torch.equal(torch.randn(5), expected)


def test_layout_of_a_checkpoint(folder: Path) -> None:
    path = save(folder, 1000)
    assert path == folder / "step-00001000"
    assert names(folder) == ["step-00001000"]
    assert names(path) == ["manifest.json", "state.json", "student.safetensors"]
    manifest = json.loads((path / "manifest.json").read_text())
    assert (manifest["format"], manifest["mlkd"], manifest["step"]) == (1, mlkd.__version__, 1000)
    assert set(manifest["files"]) == {"state.json", "student.safetensors"}
    # safetensors alone would leave weights that a colleague cannot read.
    assert (path / "student.safetensors").stat().st_mode == (path / "state.json").stat().st_mode


def test_keeps_the_newest(folder: Path) -> None:
    for step in (1, 2, 3, 10):
        save(folder, step, keep=2)
    assert names(folder) == ["step-00000003", "step-00000010"]
    assert loaded_step(folder) == 10


def test_nothing_saved(folder: Path) -> None:
    assert load_latest(folder) is None
    folder.mkdir(parents=True)
    assert load_latest(folder) is None


@pytest.mark.parametrize("name", ["student.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["cut", "flip", "delete"])
def test_damaged_checkpoint_is_passed_over(
    folder: Path, name: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    save(folder, 1)
    path = save(folder, 2) / name
    if damage == "cut":
        os.truncate(path, path.stat().st_size // 2)
    elif damage == "flip":
        # In the manifest, a digit of the last sum; in the others, a byte of the content.
        flip_bit(path, path.read_bytes().rindex(b'"sha256": "') + 11 if name == "manifest.json" else -6)
    else:
        path.unlink()

    assert loaded_step(folder) == 1

    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "step-00000002" in record.getMessage()
    reason = {"cut": "bytes instead of", "flip": "SHA-256", "delete": "No such file"}[damage]
    if (name, damage) == ("manifest.json", "cut"):
        reason = "JSONDecodeError"
    assert reason in record.getMessage()
    # Training passes the damaged one again and replaces it.
    save(folder, 2)
    assert loaded_step(folder) == 2
    assert names(folder) == ["step-00000001", "step-00000002"]


def test_damaged_future_does_not_push_out_sound_checkpoints(folder: Path) -> None:
    for step in (1, 2, 9):
        path = save(folder, step, keep=3)
    flip_bit(path / "student.safetensors", -6)
    assert loaded_step(folder) == 2
    save(folder, 3, keep=2)
    assert names(folder) == ["step-00000002", "step-00000003"]


def test_all_damaged_is_an_error_and_not_a_fresh_start(folder: Path) -> None:
    os.truncate(save(folder, 1) / "student.safetensors", 3)
    with pytest.raises(MlkdError, match="E411") as error:
        load_latest(folder)
    assert error.value.exit_code == 4
    assert "step-00000001: student.safetensors has 3 bytes instead of" in str(error.value)


def test_newer_format_is_refused(folder: Path) -> None:
    save(folder, 1)
    manifest = save(folder, 2) / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format": 1', '"format": 3').replace(mlkd.__version__, "9.1.0"))
    with pytest.raises(MlkdError, match=r"E410.*written by mlkd 9\.1\.0, format 3; this is mlkd .*, format 1") as error:
        load_latest(folder)
    assert error.value.exit_code == 4


class Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.marker),)


def test_pickles_are_never_read(folder: Path, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    payload = pickle.dumps(Payload(marker))
    save(folder, 1)
    path = save(folder, 2)
    (path / "optimizer.pt").write_bytes(payload)  # beside the others: not looked at
    assert loaded_step(folder) == 2

    weights = path / "student.safetensors"
    weights.write_bytes(payload)  # under a trusted name, with a manifest to match
    manifest = json.loads((path / "manifest.json").read_text())
    entry = {"sha256": checkpoints._sha256(weights), "bytes": len(payload)}
    manifest["files"]["student.safetensors"] = entry
    (path / "manifest.json").write_text(json.dumps(manifest))
    assert loaded_step(folder) == 1

    manifest["files"] = {"state.json": manifest["files"]["state.json"], "optimizer.pt": entry}
    (path / "manifest.json").write_text(json.dumps(manifest))
    assert loaded_step(folder) == 1
    assert not marker.exists()


def test_manifest_cannot_lead_out_of_the_folder(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(folder, 1)
    path = save(folder, 2)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"]["../../secret.safetensors"] = manifest["files"].pop("student.safetensors")
    (path / "manifest.json").write_text(json.dumps(manifest))
    assert loaded_step(folder) == 1
    assert "does not name the files of a checkpoint" in caplog.text


def test_stale_folders_are_removed_when_a_writer_starts(folder: Path) -> None:
    save(folder, 1)
    (folder / "step-00000002.tmp").mkdir()
    (folder / "step-00000002.tmp" / "student.safetensors").write_bytes(b"half")
    assert loaded_step(folder) == 1
    CheckpointWriter(folder)
    assert names(folder) == ["step-00000001"]


def test_killed_while_replacing_a_step(folder: Path) -> None:
    path = save(folder, 1)
    path.rename(folder / "step-00000001.old")
    assert loaded_step(folder) == 1
    remove_stale(folder)
    assert "step-00000001" in names(folder)
    save(folder, 1)
    (folder / "step-00000001.old").mkdir()
    remove_stale(folder)
    assert names(folder) == ["step-00000001"]
    assert loaded_step(folder) == 1


def test_stopped_between_the_two_renames_of_a_replacement(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(folder, 1)
    rename = Path.rename

    def stop(path: Path, target: Path) -> Path:
        if path.suffix == ".tmp" and path.is_dir():
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", stop)
        with pytest.raises(KeyboardInterrupt):
            save(folder, 1)
    assert loaded_step(folder) == 1
    save(folder, 1)
    assert names(folder) == ["step-00000001"]


def test_interrupted_save_leaves_nothing_behind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(folder, 1)

    def interrupt(path: Path) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints, "_sha256", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save(folder, 2)
    assert names(folder) == ["step-00000001"]


def test_disk_full_keeps_training_and_is_fatal_the_third_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    writer = CheckpointWriter(folder, keep=1)
    tensors = {"student": {"w": torch.full((100,), 1.0)}}
    assert writer.save(1, tensors, {"step": 1}) == folder / "step-00000001"
    with monkeypatch.context() as patch:

        def full(*arguments: object) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr(checkpoints, "write_json", full)
        assert writer.save(2, tensors, {"step": 2}) is None
        assert writer.save(3, tensors, {"step": 3}) is None
    (first, second) = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert str(folder) in first
    assert "No space left on device" in first
    assert "GiB free" in first
    assert "failure 2 of 3" in second
    assert loaded_step(folder) == 1

    assert writer.save(4, {"student": {"w": torch.full((100,), 4.0)}}, {"step": 4}) is not None
    monkeypatch.setattr(checkpoints, "write_json", full)
    assert writer.save(5, tensors, {}) is None  # the count began anew
    assert writer.save(6, tensors, {}) is None
    with pytest.raises(MlkdError, match=r"E512.*3 failures in a row") as error:
        writer.save(7, tensors, {})
    assert error.value.exit_code == 5
    assert names(folder) == ["step-00000004"]
    assert loaded_step(folder) == 4


def test_keep_must_be_positive(folder: Path) -> None:
    with pytest.raises(MlkdError, match="E204"):
        CheckpointWriter(folder, keep=0)


def run_python(script: str, *arguments: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(Path(mlkd.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        check=False,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


FILE_TOO_LARGE = """
import resource, sys
from pathlib import Path
import torch
from mlkd.runtime.checkpoints import CheckpointWriter, load_latest

folder = Path(sys.argv[1])
writer = CheckpointWriter(folder)
assert writer.save(1, {"student": {"w": torch.zeros(10)}}, {}) is not None
resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
assert writer.save(2, {"student": {"w": torch.zeros(2**20)}}, {}) is None
assert sorted(path.name for path in folder.iterdir()) == ["step-00000001"]
assert load_latest(folder).step == 1
assert writer.save(3, {"student": {"w": torch.zeros(10)}}, {}) is not None
"""


def test_real_write_error_of_the_system(folder: Path) -> None:
    run_python(FILE_TOO_LARGE, str(folder))


KILLED = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from mlkd.runtime.checkpoints import CheckpointWriter, load_latest

folder, num_kills = Path(sys.argv[1]), int(sys.argv[2])

def train():
    writer = CheckpointWriter(folder)
    assert not list(folder.glob("*.tmp"))
    checkpoint = load_latest(folder)
    step = checkpoint.step if checkpoint else 0
    while True:
        step += 1
        group = {name: torch.full((50_000,), float(step)) for name in "ab"}
        # Each step is saved twice: the second time it replaces the first.
        for _ in range(2):
            writer.save(step, {"student": group, "optimizer": group}, {"step": step})

random.seed(0)
last = num_stale = 0
for _ in range(num_kills):
    child = os.fork()
    if child == 0:
        try:
            train()
        finally:
            os._exit(1)
    time.sleep(random.uniform(0.05, 0.25))
    os.kill(child, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    num_stale += any(folder.glob("*.tmp"))
    for path in folder.glob("step-*"):
        assert path.suffix == ".tmp" or (path / "manifest.json").exists() or path.suffix == ".old", path
    checkpoint = load_latest(folder)
    if checkpoint is None:
        assert last == 0
        continue
    assert checkpoint.step >= last, (checkpoint.step, last)
    last = checkpoint.step
    assert checkpoint.state == {"step": last}
    for group in checkpoint.tensors.values():
        assert all(torch.equal(tensor, torch.full((50_000,), float(last))) for tensor in group.values())
print(last, num_stale)
"""


def test_kill_at_any_moment_loses_nothing(folder: Path) -> None:
    last, num_stale = map(int, run_python(KILLED, str(folder), "12").split())
    assert last >= 3, "the test was too quick for the disk"
    assert num_stale >= 1, "no kill met a save"
