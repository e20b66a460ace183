"""Ways of writing a command that Hydra answers with a traceback: each is one clear error, or works."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mlkd.cli.arguments import parse_arguments
from mlkd.cli.main import run
from mlkd.config.paths import EXTRA_CONFIG_DIRS


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/latin.yaml").write_bytes(b"# @package _global_\nname: caf\xe9\n")
    (tmp_path / "experiment/interpolation.yaml").write_text("# @package _global_\nname: ${nope.key}\n")
    (tmp_path / "experiment/fine.yaml").write_text("# @package _global_\nname: fine\n")
    yield tmp_path
    EXTRA_CONFIG_DIRS.clear()


@pytest.mark.parametrize(
    ("kind", "arguments", "told"),
    [
        ("train", ["-m", "loss=glob(ams*)"], "error[E208]: loss: glob() is not supported"),
        ("evaluate", ["-m", "task=glob(sts*)", "checkpoint=x"], "error[E208]: task: glob() is not supported"),
        ("train", ["name=${oc.env:NOPE}"], "error[E203]: name: '${oc.env:NOPE}' does not resolve"),
        ("train", ["name=${nope}"], "error[E203]: name: '${nope}' does not resolve"),
        ("train", ["name=${foo:1}"], "error[E203]: name: '${foo:1}' does not resolve"),
        ("train", ["-m", "name=${nope}", "seed=1,2"], "error[E203]: name: '${nope}' does not resolve"),
        ("train", ["data.languages=[de,'${nope}']"], "error[E203]: data.languages[1]: '${nope}' does not resolve"),
        ("mine", ["encoder=${oc.env:NOPE}", "source=a", "target=b"], "error[E203]: encoder: "),
        ("train", ["--config-dir", "FOLDER", "+experiment=interpolation"], "error[E203]: name: '${nope.key}'"),
        ("train", ["--config-dir", "FOLDER", "+experiment=latin"], "experiment/latin.yaml:2: byte 0xe9 is not UTF-8"),
        ("train", ["-m", "--config-dir", "FOLDER", "+experiment=latin", "seed=1,2"], "latin.yaml:2: byte 0xe9 is not"),
        ("train", ["seed=-1", "--config-dir", "FOLDER", "+experiment=fine"], "error[E204]: seed"),
        ("train", ["--config-name=foo"], "error[E200]: unrecognized arguments: --config-name=foo"),
        ("evaluate", ["--config-name=foo", "checkpoint=x"], "error[E200]"),
    ],
)
def test_what_hydra_does_not_take(
    folder: Path, kind: str, arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(kind, [text.replace("FOLDER", str(folder)) for text in arguments]) == 2
    assert told in capsys.readouterr().err


def test_flags_may_stand_anywhere() -> None:
    parsed = parse_arguments(["a=1", "-m", "b=2", "--config-dir", "x", "c=3"])
    assert parsed.overrides == ["a=1", "b=2", "c=3"] and parsed.multirun and parsed.config_dir == "x"
    assert parsed.given == ["-m", "--config-dir", "x", "a=1", "b=2", "c=3"]
    shown = parse_arguments(["a=1", "--cfg", "job", "b=2"])
    assert shown.given == ["a=1", "b=2", "--cfg", "job"] and shown.only_shows
