"""Data report: what reading and filtering did, by language and reason, with fingerprints for resuming."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from mlkd.runtime.hashing import fingerprint


@dataclass(slots=True)
class LanguageReport:
    """Counts of one target language.

    Args:
        language: target language.
        origin: the file, dataset or generator they come from.
        read: pairs in the source, before any filter.
        train: pairs kept for training.
        dev: pairs held out.
        dropped: pairs left out, by reason; `read` = `train` + `dev` + all of these.
        identical: kept pairs whose two sides are the same text.
        cleaned: repairs made while reading (`crlf`, `nul`, ...).
        files: SHA-256 of each file's (decompressed) content, by path; empty for generated data.
        fingerprint: SHA-256 of every kept text, in order.
    """

    language: str
    origin: str
    read: int
    train: int = 0
    dev: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    identical: int = 0
    cleaned: dict[str, int] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    fingerprint: str = ""


@dataclass(slots=True)
class DataReport:
    """All languages of a corpus; `fingerprint` changes if any kept text, language or order does."""

    languages: dict[str, LanguageReport]

    @property
    def fingerprint(self) -> str:
        return fingerprint(f"{name} {report.fingerprint}" for name, report in self.languages.items())

    def lines(self) -> list[str]:
        """A table for the log: one line a language, then the repairs."""
        rows: list[tuple[str, ...]] = [("language", "read", "train", "dev", "dropped")]
        for report in self.languages.values():
            dropped = ", ".join(f"{count:,} {reason}" for reason, count in report.dropped.items())
            rows.append((report.language, f"{report.read:,}", f"{report.train:,}", f"{report.dev:,}", dropped or "0"))
        if len(self.languages) > 1:
            totals = [
                sum(getattr(report, name) for report in self.languages.values()) for name in ("read", "train", "dev")
            ]
            dropped_total = sum(sum(report.dropped.values()) for report in self.languages.values())
            rows.append(("all", *(f"{total:,}" for total in totals), f"{dropped_total:,}"))
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *(row[i].rjust(widths[i]) for i in (1, 2, 3)), row[4]]) for row in rows
        ]
        for report in self.languages.values():
            if report.cleaned:
                repairs = ", ".join(f"{count:,} {name}" for name, count in report.cleaned.items())
                lines.append(f"{report.language}: cleaned {repairs}")
        return lines

    def as_json(self) -> dict[str, Any]:
        """Everything, JSON-able."""
        languages = {name: asdict(report) for name, report in self.languages.items()}
        return {"fingerprint": self.fingerprint, "languages": languages}
