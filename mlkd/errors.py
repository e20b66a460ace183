"""One error type: what is wrong, where, and how to mend it; the exit code follows from the error's code."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from dataclasses import dataclass

EXIT_PREEMPTED = 75
EXIT_TERMINATED = 143
EXIT_INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing a user can mend.

    Args:
        code: `E1xx` jobs of a sweep, `E2xx` configuration, `E3xx` data, `E4xx` checkpoint or model, `E5xx` environment,
            `E6xx` divergence.
        what: one sentence naming the offending value and what is allowed.
        where: `file:line` or the configuration key; empty where `what` already says it.
        remedy: what to do; empty where it is plain.
    """

    code: str
    what: str
    where: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        lines = [f"error[{self.code}]: {f'{self.where}: ' if self.where else ''}{self.what}"]
        if self.remedy:
            lines.append(f"  fix: {self.remedy}")
        return "\n".join(lines)


class MlkdError(ValueError):
    """All problems found in one stage. Exit code: the digit after the E of the first problem's code (E301 -> 3)."""

    def __init__(self, problems: Problem | Iterable[Problem]) -> None:
        # Two parts that look at the same file tell the same: once is enough.
        self.problems = list(dict.fromkeys([problems] if isinstance(problems, Problem) else problems))
        assert self.problems, "an MlkdError needs at least one problem"
        super().__init__("\n".join(map(str, self.problems)))

    @property
    def exit_code(self) -> int:
        return int(self.problems[0].code[1])

    def __reduce__(self) -> tuple[type[MlkdError], tuple[list[Problem]]]:
        # Sweeps pickle exceptions between processes; the default would pass the joined text as `problems`.
        return type(self), (self.problems,)


def fail(code: str, what: str, *, where: str = "", remedy: str = "") -> MlkdError:
    """An error with a single problem, to be raised by the caller: `raise fail("E303", ...)`."""
    return MlkdError(Problem(code, what, where, remedy))


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """`" Did you mean 'x'?"` for the nearest option, or an empty string.

    >>> did_you_mean("trian.lr", ["train.lr", "seed"])
    " Did you mean 'train.lr'?"
    """
    matches = difflib.get_close_matches(name, list(options), n=1, cutoff=0.6)
    return f" Did you mean '{matches[0]}'?" if matches else ""


def out_of_range(
    owner: object,
    *names: str,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
) -> list[Problem]:
    """E204 for each field outside its range; None is a value that was not set, NaN and infinity are in no range.

    Args:
        owner: has the fields, such as a configuration.
        names: of its fields.
        ge: least value.
        gt: what values must be above.
        le: greatest value.
        lt: what values must be below.

    >>> from types import SimpleNamespace
    >>> for problem in out_of_range(SimpleNamespace(lr=-1.0, dropout=1.0), "dropout", ge=0, lt=1):
    ...     print(problem)
    error[E204]: dropout: must be in [0, 1) (got 1.0)
    """
    problems = []
    for name in names:
        value = getattr(owner, name)
        if value is None:
            continue
        bounds = [
            ge is None or value >= ge,
            gt is None or value > gt,
            le is None or value <= le,
            lt is None or value < lt,
        ]
        is_endless = isinstance(value, float) and math.isinf(value)
        if is_endless or not all(bounds):
            allowed = _range_text(ge, gt, le, lt) + (" and finite" if is_endless else "")
            problems.append(Problem("E204", f"must be {allowed} (got {value})", name))
    return problems


def _range_text(ge: float | None, gt: float | None, le: float | None, lt: float | None) -> str:
    low, high = (ge if gt is None else gt), (le if lt is None else lt)
    if low is not None and high is not None:
        return f"in {'[' if gt is None else '('}{low}, {high}{']' if lt is None else ')'}"
    if low is not None:
        return f"{'>=' if gt is None else '>'} {low}"
    return f"{'<=' if lt is None else '<'} {high}"
