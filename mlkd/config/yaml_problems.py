"""YAML files that cannot be read: what is wrong, with file and line."""

from __future__ import annotations

import re

import yaml

from mlkd.config.paths import EXTRA_CONFIG_DIRS
from mlkd.errors import Problem


def not_utf8() -> Problem:
    """E212 for the first YAML file of the user's folder that is not UTF-8, with the line."""
    for folder in EXTRA_CONFIG_DIRS:
        for path in sorted(folder.rglob("*.yaml")):
            data = path.read_bytes()
            try:
                data.decode("utf-8")
            except UnicodeDecodeError as error:
                line = data.count(b"\n", 0, error.start) + 1
                what = f"byte 0x{data[error.start]:02x} is not UTF-8"
                return Problem("E212", what, f"{path}:{line}", "save the file as UTF-8")
    return Problem("E212", "a configuration file is not UTF-8", remedy="save it as UTF-8")


def yaml_problem(error: yaml.MarkedYAMLError) -> Problem:
    """E211 a key given twice, E212 a tab, E213 whatever else is not YAML; with file and line."""
    what = error.problem or str(error)
    mark = error.problem_mark
    where = f"{mark.name}:{mark.line + 1}" if mark is not None else ""
    if key := re.match(r"found duplicate key (.*)", what):
        return Problem("E211", f"duplicate key '{key[1]}'", where, "keep one of the two")
    if r"'\t'" in what:
        return Problem("E212", "tab used for indentation", where, "indent with spaces")
    return Problem("E213", f"not YAML: {what}", where)
