"""One error type: what is wrong, where, and how to mend it; the exit code follows from the error's code."""

from __future__ import annotations

import difflib
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
