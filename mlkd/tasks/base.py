"""What a task is: a declaration that loads its data and scores an encoder; it prints and writes nothing."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, TypeVar

from mlkd.errors import MlkdError, Problem
from mlkd.models.encoder import Encoder
from mlkd.tasks.samples import MeanOfSamples, Sample

Loaded = TypeVar("Loaded")


@dataclass(frozen=True, slots=True)
class Score:
    """One number as the field prints it (percent, or 100 x Spearman).

    Args:
        language: `de`, `en-de` or `mean`.
        metric: `accuracy`, `spearman`, `f1`, ...; with its language and task the key `task/language/metric`.
        value: on the metric's printed scale; None where undefined (a correlation of constant scores).
        count: items behind the number (sentence pairs, gold pairs).
    """

    language: str
    metric: str
    value: float | None
    count: int


@dataclass(frozen=True, slots=True)
class TaskResult:
    """All scores of one task for one encoder, with what makes them comparable.

    Args:
        task: the task's name, first part of every metric key.
        protocol: the named protocol and its parameters, e.g. `laser` or `fitted, k=4, ratio, max`.
        main: the metric whose language `mean` is the task's single number.
        higher_is_better: direction of `main`.
        data_sha256: hash of every text and gold label that was scored.
        scores: in display order; includes language `mean` for `main`.
        details: anything a report draws (similarity histograms, thresholds); JSON-able.
        samples: by `language/metric`, what the score was computed from; not written.
        tables: rows that an evaluation writes as `<task>.<key>.tsv` beside its results (mined pairs); not in its JSON.
    """

    task: str
    protocol: str
    main: str
    higher_is_better: bool
    data_sha256: str
    scores: list[Score]
    details: dict[str, Any] = field(default_factory=dict)
    samples: dict[str, Sample] = field(default_factory=dict, repr=False, compare=False)
    tables: dict[str, list[tuple[str, ...]]] = field(default_factory=dict, repr=False, compare=False)

    def as_metrics(self) -> dict[str, float]:
        """`{"tatoeba/de/accuracy": 63.1, ...}`, undefined scores left out."""
        return {f"{self.task}/{s.language}/{s.metric}": s.value for s in self.scores if s.value is not None}

    def as_json(self) -> dict[str, Any]:
        """Every field that is written."""
        written = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("samples", "tables")}
        return written | {"scores": [asdict(score) for score in self.scores]}

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> TaskResult:
        """What `as_json` gave, without samples and tables."""
        return cls(**{**entry, "scores": [Score(**score) for score in entry["scores"]]})


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


def mean_score(scores: Sequence[Score], metric: str) -> Score:
    """The mean of `metric` over its languages; undefined where one of them is, since a mean of fewer is another."""
    values = [score.value for score in scores if score.metric == metric]
    defined = [value for value in values if value is not None]
    value = sum(defined) / len(defined) if defined and len(defined) == len(values) else None
    return Score("mean", metric, value, sum(score.count for score in scores if score.metric == metric))


def sample_scores(samples: Mapping[str, Sample]) -> list[Score]:
    """One score for each sample under its key `language/metric`, in their order."""
    found = [(key.split("/", 1), sample) for key, sample in samples.items()]
    return [Score(language, metric, sample.value(), sample.count) for (language, metric), sample in found]


def with_means(samples: Mapping[str, Sample]) -> dict[str, Sample]:
    """`samples` by `language/metric`, followed by `mean/<metric>` of each metric."""
    parts: dict[str, list[Sample]] = {}
    for key, sample in samples.items():
        parts.setdefault(key.split("/", 1)[1], []).append(sample)
    return {**samples, **{f"mean/{metric}": MeanOfSamples(found) for metric, found in parts.items()}}
