"""Where the configuration files are: bundled in an installed wheel, at the top of a checkout."""

from __future__ import annotations

from pathlib import Path

_BUNDLED = Path(__file__).resolve().parent / "configs"
CONFIG_DIR = _BUNDLED if _BUNDLED.is_dir() else _BUNDLED.parent.parent / "configs"
