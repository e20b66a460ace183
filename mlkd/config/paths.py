"""Where the configuration files are: bundled in an installed wheel, at the top of a checkout."""

from __future__ import annotations

from pathlib import Path

_BUNDLED = Path(__file__).resolve().parent.parent / "configs"
# Folders of the user's own options, as given with --config-dir.
EXTRA_CONFIG_DIRS: list[Path] = []
CONFIG_DIR = _BUNDLED if _BUNDLED.is_dir() else _BUNDLED.parent.parent / "configs"


def option_names(group: str) -> list[str] | None:
    """The options of a group such as `student` or `loss/ranking`, None where no folder has that name."""
    folders = [folder / group for folder in (CONFIG_DIR, *EXTRA_CONFIG_DIRS) if (folder / group).is_dir()]
    return sorted({p.stem for folder in folders for p in folder.glob("*.yaml")}) if folders else None
