"""Short names tell systems apart and are never the same for two."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlkd.report.names import letters, short_names


@pytest.mark.parametrize(
    ("systems", "expected"),
    [
        (["outputs/small/2026-01-31_12-00-00", "a/LaBSE"], ["small", "LaBSE"]),
        (["a/LaBSE", "b/LaBSE", "c/other"], ["a/LaBSE", "b/LaBSE", "other"]),
        (["o/demo/2026-01-31", "o/demo/2026-02-01"], ["demo/2026-01-31", "demo/2026-02-01"]),
        (["o/multirun/demo/2026-01-31/0", "o/multirun/demo/2026-01-31/1"], ["demo/2026-01-31/0", "demo/2026-01-31/1"]),
        (["student", "student (runs/a/1)", "package:mini"], ["student", "student (runs/a/1)", "package:mini"]),
        (["x/a", "x/a/"], ["x/a", "x/a/"]),
        (["12/34"], ["34"]),
        ([], []),
    ],
)
def test_names(systems: list[str], expected: list[str]) -> None:
    assert list(short_names(systems).values()) == expected
    assert list(short_names(systems)) == systems


@given(st.lists(st.text("ab1/", min_size=1, max_size=6), unique=True, max_size=6))
def test_no_two_systems_share_a_name(systems: list[str]) -> None:
    assert len(set(short_names(systems).values())) == len(systems)


def test_letters_go_on_after_z() -> None:
    assert list(letters([str(i) for i in range(28)]).values())[24:] == ["Y", "Z", "S27", "S28"]
