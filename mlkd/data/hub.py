"""Datasets of the Hugging Face hub, its cache, or a local folder of the same layout: for corpora and tasks alike."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlkd.data.formats.tsv import clean_cells
from mlkd.errors import MlkdError, did_you_mean, fail
from mlkd.runtime.hub_access import HUB_TIMEOUT_S, looks_like_path


class UnreachableHubError(MlkdError):
    """E403: the hub does not answer, and its cache has no copy of the dataset."""


@dataclass(frozen=True, slots=True)
class HubDataset:
    """A dataset by its id, and the configuration keys that name it.

    Args:
        dataset: id `organisation/name`, or a folder that holds the same files.
        revision: commit, tag or branch; None for the newest.
        key: where the configuration names it: `data`, or `task.<name>`.
        alternative: what a user without network can do instead.
        unknown_code: of the error for a subset or split that the dataset lacks.
    """

    dataset: str
    revision: str | None
    key: str
    alternative: str
    unknown_code: str = "E310"

    def locate(self) -> tuple[str, str | None]:
        """Where to load it from: a folder, the hub at a fixed commit, or what the hub's cache holds of it.

        Returns:
            folder or id, and the commit (None for a folder).

        Raises:
            MlkdError: E301 no such folder, E403 not reachable and not in the cache, or no such dataset, E404 no access.
        """
        name = self.dataset
        if Path(name).is_dir():
            return name, None
        if looks_like_path(name):
            kind = "is a file, not a folder" if Path(name).is_file() else "is no such folder"
            raise fail("E301", f"'{name}' {kind} (cwd={Path.cwd()})", remedy=self._remedy("ORG/NAME"))

        import huggingface_hub
        from huggingface_hub.errors import (
            GatedRepoError,
            HFValidationError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )

        try:
            info = huggingface_hub.HfApi().dataset_info(name, revision=self.revision, timeout=HUB_TIMEOUT_S)
        except GatedRepoError as error:
            page = f"{huggingface_hub.constants.ENDPOINT}/datasets/{name}"
            remedy = f"accept its terms at {page} and run 'hf auth login'"
            raise fail("E404", f"dataset '{name}' needs access", remedy=remedy) from error
        except (RepositoryNotFoundError, HFValidationError) as error:
            remedy = "check the spelling; a private dataset needs 'hf auth login'"
            raise fail("E403", f"no dataset or folder '{name}'", remedy=remedy) from error
        except RevisionNotFoundError as error:
            raise fail("E403", f"dataset '{name}' has no revision '{self.revision}'") from error
        except Exception as error:
            # What a lost connection raises depends on the hub client's version (requests, httpx): all mean offline.
            return self._find_in_cache(error), None
        return name, info.sha

    def load(self, subset: str, split: str, columns: Sequence[str]) -> tuple[Any, str | None]:
        """A split of a subset, fetched by the `datasets` library into its cache.

        Args:
            subset: its configuration; empty for a dataset that has none.
            split: as the hub names it; a part as in `train[:500000]`.
            columns: that it must have; dots for nested ones (`translation.de`).

        Returns:
            a `datasets.Dataset` with these columns, and the commit it is of (None where it comes from a folder).

        Raises:
            MlkdError: see `locate`; E310 for a missing column, and `unknown_code` for a missing subset or split.
        """
        try:
            source, revision = self.locate()
            table = self._load(source, revision, subset, split)
        except UnreachableHubError as error:
            revision, table = None, self._load_prepared(subset, split, error)
        if any(column not in table.column_names for column in columns):
            table = table.flatten()
        for column in columns:
            if column not in table.column_names:
                names = table.column_names
                what = f"column '{column}' missing; columns: {', '.join(names)}.{did_you_mean(column, names)}"
                raise fail("E310", what, where=self.describe(subset, split))
        return table, revision

    def describe(self, subset: str, split: str, revision: str | None = None) -> str:
        """What names these rows in messages and reports."""
        return " ".join(filter(None, (self.dataset, subset, split, revision and f"@{revision[:12]}")))

    def _load(self, source: str, revision: str | None, subset: str, split: str) -> Any:
        import datasets

        where = self.describe(subset, split, revision)
        try:
            return datasets.load_dataset(source, subset or None, split=split, revision=revision)
        except ValueError as error:
            # An unknown subset or split; the message lists those there are.
            remedy = f"set {self.key}.subset or {self.key}.split"
            what = f"no such subset or split '{split}' ({_first_line(error)})"
            raise fail(self.unknown_code, what, where=where, remedy=remedy) from error
        except (OSError, datasets.exceptions.DatasetsError) as error:
            what = f"cannot be loaded ({type(error).__name__}: {_first_line(error)})"
            raise fail("E403", what, where=where, remedy=self._remedy(self.dataset)) from error

    def _load_prepared(self, subset: str, split: str, unreachable: UnreachableHubError) -> Any:
        """What the `datasets` library keeps of an earlier load, without the files it was made from."""
        import datasets

        try:
            with _offline():
                return datasets.load_dataset(self.dataset, subset or None, split=split, revision=self.revision)
        except (ValueError, OSError, datasets.exceptions.DatasetsError):
            raise unreachable from None

    def _find_in_cache(self, cause: Exception) -> str:
        import huggingface_hub
        from huggingface_hub.errors import LocalEntryNotFoundError

        try:
            return huggingface_hub.snapshot_download(
                self.dataset, repo_type="dataset", revision=self.revision, local_files_only=True
            )
        except LocalEntryNotFoundError:
            constants = huggingface_hub.constants
            what = (
                f"cannot reach {constants.ENDPOINT} ({_first_line(cause)}) and dataset "
                f"'{self.dataset}' is not in the cache (HF_HOME={constants.HF_HOME})"
            )
            problems = fail("E403", what, remedy=self._remedy(self.dataset)).problems
            raise UnreachableHubError(problems) from cause

    def _remedy(self, dataset: str) -> str:
        return (
            f"set {self.key}.dataset to a local folder of the same layout, or run 'hf download --repo-type dataset "
            f"{dataset}' on a machine with network and copy its cache, or {self.alternative}"
        )


def clean_texts(texts: Sequence[Any], where: str) -> list[str]:
    """Cells of a dataset as one-line texts.

    Raises:
        MlkdError: E310 naming the first row that holds no text.
    """
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise fail("E310", f"row {row + 1} holds {type(text).__name__} instead of text", where=where)
    return clean_cells(list(texts), Counter())


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """The `datasets` library would retry a hub that does not answer for half a minute."""
    import datasets

    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
