"""What a task is: a declaration that loads its data and scores an encoder; it prints and writes nothing."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from mlkd.errors import MlkdError, Problem
from mlkd.models.encoder import Encoder
from mlkd.tasks.scoring.scores import TaskResult

Loaded = TypeVar("Loaded")


@dataclass(kw_only=True, slots=True)
class Task(ABC):
    """Base of all tasks: fields are its configuration, `load` reads and checks data, `score` computes.

    Args:
        name: first part of every metric key; two tasks of one evaluation need different names.

    Class attributes:
        needs_uncached: `score` is given the bare encoder, because keeping a vector for every text would not fit.
    """

    needs_uncached: ClassVar[bool] = False

    name: str = ""

    def __post_init__(self) -> None:
        problems = self._field_problems()
        if problems:
            raise MlkdError(problems)

    def _field_problems(self) -> list[Problem]:
        """Everything wrong with the fields; a subclass adds its own to its base's."""
        if not self.name or "/" in self.name:
            return [Problem("E204", f"must be a word without '/' (got '{self.name}')", where="name")]
        return []

    @property
    def needs_teacher(self) -> bool:
        """Whether `score` compares with a teacher's vectors."""
        return False

    @abstractmethod
    def load(self) -> Any:
        """Read and validate the data before any model is built.

        Raises:
            MlkdError: every E3xx found, each naming file, line, value and remedy.
        """

    @abstractmethod
    def score(self, data: Any, encoder: Encoder, teacher: Encoder | None = None) -> TaskResult:
        """Score `encoder` on what `load` returned; `teacher` is given where `needs_teacher`."""

    @abstractmethod
    def texts(self, data: Any) -> Iterable[str]:
        """Every sentence of `data` that is evaluated, for reporting its overlap with training text."""

    def encoded_texts(self, data: Any) -> Iterable[str]:
        """Every sentence of `data` that `score` may encode: `texts`, and what a task trains its own classifier on."""
        return self.texts(data)


def collect_problems(errors: Iterable[MlkdError]) -> None:
    """Raise the problems of all `errors` as one; nothing if there are none."""
    problems = [problem for error in errors for problem in error.problems]
    if problems:
        raise MlkdError(problems)


def load_each(names: Iterable[str], load: Callable[[str], Loaded]) -> list[Loaded]:
    """`load` for every name, with the problems of all of them raised as one."""
    loaded, errors = [], []
    for name in names:
        try:
            loaded.append(load(name))
        except MlkdError as error:
            errors.append(error)
            # A hub that cannot be reached cannot be reached for the other names either.
            if any(problem.code == "E403" for problem in error.problems):
                break
    collect_problems(errors)
    return loaded


def hash_rows(rows: Iterable[Sequence[str]]) -> str:
    """SHA-256 over rows of cells; cell lengths are hashed too, so that moving a boundary changes the hash."""
    digest = hashlib.sha256()
    for row in rows:
        for cell in row:
            encoded = cell.encode("utf-8", errors="surrogatepass")
            digest.update(len(encoded).to_bytes(8, "little"))
            digest.update(encoded)
        digest.update(b"\n")
    return digest.hexdigest()
