"""Names of models: folders, packages, hub ids, and what is said of names that are none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from mlkd.errors import MlkdError, Problem
from mlkd.models.hub import locate_model


def refusal(name: str) -> Problem:
    with pytest.raises(MlkdError) as caught:
        locate_model(name)
    (problem,) = caught.value.problems
    return problem


def test_a_folder_is_its_own_place(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert locate_model(str(tiny_bert)) == tiny_bert
    monkeypatch.chdir(tiny_bert.parent)
    assert locate_model("tiny-bert").resolve() == tiny_bert


def test_a_run_folder_stands_for_its_student(tiny_bert: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_bert, tmp_path / "run" / "student")
    (tmp_path / "run" / "student" / "modules.json").write_text("[]")
    assert locate_model(str(tmp_path / "run")) == tmp_path / "run" / "student"


def test_a_missing_folder_gets_its_nearest_neighbour(tiny_bert: Path) -> None:
    problem = refusal(str(tiny_bert.parent / "tiny-bart"))
    assert problem.code == "E401" and f"Did you mean '{tiny_bert}'?" in problem.what


@pytest.mark.parametrize("name", ["./nothing-here", "~/no-such-folder-at-all", "a/b/c"])
def test_a_name_with_the_form_of_a_path_is_not_sought_on_the_hub(name: str) -> None:
    assert refusal(name).code == "E401"


@pytest.mark.parametrize("name", ["xlm roberta", "my--model", "a..b/c", "organisation/mödel"])
def test_a_name_that_is_neither_path_nor_hub_id(name: str) -> None:
    problem = refusal(name)
    assert problem.code == "E401" and f"'{name}'" in problem.what


def test_a_folder_without_a_model_names_what_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    problem = refusal(str(tmp_path))
    assert problem.code == "E401" and "found: notes.txt" in problem.what
    (tmp_path / "notes.txt").unlink()
    assert "found: nothing" in refusal(str(tmp_path)).what


def test_a_folder_without_weights(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    problem = refusal(str(tmp_path))
    assert problem.code == "E402" and "no model.safetensors" in problem.what


def test_a_git_lfs_pointer_is_not_weights(tmp_path: Path) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 471000000\n"
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(pointer)
    problem = refusal(str(tmp_path))
    assert problem.code == "E402" and f"git-lfs pointer ({len(pointer)} bytes)" in problem.what
    assert problem.remedy == "run: git lfs pull"


def test_a_package_that_is_not_installed() -> None:
    problem = refusal("package:no_such_model_package")
    assert problem.code == "E502" and "'no_such_model_package'" in problem.what and "pip install" in problem.remedy


@pytest.mark.parametrize("name", ["no_such.model_package", "", "os.path", "../x", "class", "a b", "mlkd:train"])
def test_a_package_has_a_plain_name(name: str) -> None:
    problem = refusal(f"package:{name}")
    assert problem.code == "E401" and f"'package:{name}'" in problem.what


@pytest.mark.parametrize("name", ["mlkd", "json", "sys", "__main__", "this"])
def test_a_package_that_is_installed_but_holds_no_model(name: str) -> None:
    assert refusal(f"package:{name}").code in ("E401", "E502")


def test_a_package_is_found_without_being_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, has_model in (("evil_code", False), ("evil_model", True)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w')\n")
        if has_model:
            (tmp_path / name / "model").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert refusal("package:evil_code").code == "E401"
    assert "no modules.json" in refusal("package:evil_model").what
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("offline", [True, False])
def test_a_hub_id_out_of_reach_fails_within_seconds(tmp_path: Path, offline: bool) -> None:
    # Where there is a network, a port that nobody listens on stands in for none.
    environment = os.environ | {"HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9"}
    environment.pop("HF_HUB_OFFLINE", None)
    environment |= {"HF_HUB_OFFLINE": "1"} if offline else {}
    code = (
        "import sys\nfrom mlkd.errors import MlkdError\nfrom mlkd.models.hub import locate_model\n"
        "import huggingface_hub, time\nstart = time.monotonic()\n"
        "try: locate_model('organisation/model')\n"
        "except MlkdError as error: print(error, time.monotonic() - start, sep='\\n')"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    *message, seconds = done.stdout.strip().splitlines()
    assert message[0].startswith("error[E403]: cannot reach the model hub and 'organisation/model' is not in the local")
    assert "hf download organisation/model" in message[1]
    assert float(seconds) < 5


def test_the_hubs_refusals_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    response = SimpleNamespace(headers={}, request=None)

    def refuse_with(kind: type[Exception]) -> None:
        def download(*_: object, **__: object) -> None:
            raise kind("the hub's words", response=response)  # type: ignore[call-arg]

        monkeypatch.setattr(huggingface_hub, "snapshot_download", download)

    refuse_with(GatedRepoError)
    problem = refusal("organisation/gated")
    assert problem.code == "E404" and "https://huggingface.co/organisation/gated" in problem.remedy
    refuse_with(RepositoryNotFoundError)
    problem = refusal("organisation/typo")
    assert problem.code == "E403" and "no model 'organisation/typo'" in problem.what
