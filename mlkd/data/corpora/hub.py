"""A corpus of the Hugging Face hub, or a local folder of the same layout."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlkd.data.corpora.base import ParallelCorpus
from mlkd.data.corpora.files import check_template, fill
from mlkd.data.formats.tsv import clean_cells
from mlkd.data.pairs import RawPairs
from mlkd.errors import Problem, did_you_mean, fail

# The hub's clients retry a lost connection for half a minute; one short question comes first.
_PROBE_TIMEOUT_S = 4.0


@dataclass(kw_only=True, slots=True)
class HubCorpus(ParallelCorpus):
    """A dataset with one configuration a language pair, such as `sentence-transformers/parallel-sentences-talks`.

    Args:
        repository: its id, or a folder that holds the same files (`hf download --repo-type dataset ID --local-dir F`).
        config_name: template of the configuration; empty for a dataset that has none.
        config_names: configurations by language that the template does not fit (`+data.config_names.zh=en-zh-cn`).
        split: as the hub names it; a part as in `train[:500000]`.
        source_column: template of the source column; dots for nested columns (`translation.{source_language}`).
        target_column: template of the target column.
        revision: commit, tag or branch; None for the newest.
    """

    repository: str = ""
    config_name: str = "{source_language}-{language}"
    config_names: dict[str, str] = field(default_factory=dict)
    split: str = "train"
    source_column: str = "english"
    target_column: str = "non_english"
    revision: str | None = None

    def _field_problems(self) -> list[Problem]:
        example = "sentence-transformers/parallel-sentences-talks"
        problems = []
        if not self.repository:
            problems.append(Problem("E205", "is required and not set", "repository", f"for example: {example}"))
        for name in ("source_column", "target_column"):
            problems += check_template(getattr(self, name), name, "non_english")
        if self.config_name:
            problems += check_template(self.config_name, "config_name", "'en-{language}'")
        for language in self.config_names:
            if language not in self.languages:
                what = f"'{language}' is not in languages.{did_you_mean(language, self.languages)}"
                problems.append(Problem("E204", what, "config_names"))
        return problems

    def check_files(self) -> None:
        locate(self.repository, self.revision)

    def read(self, language: str) -> RawPairs:
        source, revision = locate(self.repository, self.revision)
        name = self.config_names.get(language) or fill(self.config_name, language, self.source_language) or None
        origin = " ".join(filter(None, (self.repository, name, self.split, revision and f"@{revision[:12]}")))
        table = self._load(source, revision, name, origin)
        columns = [fill(column, language, self.source_language) for column in (self.source_column, self.target_column)]
        if any(column not in table.column_names for column in columns):
            table = table.flatten()
        cleaned: Counter[str] = Counter()
        sides = [_text_column(table, column, origin, cleaned) for column in columns]
        return RawPairs(sides[0], sides[1], origin, cleaned=+cleaned)

    def _load(self, source: str, revision: str | None, name: str | None, origin: str) -> Any:
        import datasets

        try:
            return datasets.load_dataset(source, name, split=self.split, revision=revision)
        except ValueError as error:
            # An unknown configuration or split; the message lists those there are.
            remedy = "set data.config_name, data.config_names or data.split"
            raise fail("E301", f"not in this dataset: {_first_line(error)}", where=origin, remedy=remedy) from error
        except (OSError, datasets.exceptions.DatasetsError) as error:
            what = f"cannot be loaded ({type(error).__name__}: {_first_line(error)})"
            raise fail("E403", what, where=origin, remedy=_download_remedy(self.repository)) from error


def locate(repository: str, revision: str | None) -> tuple[str, str | None]:
    """Where to load a dataset from: a folder, the hub at a fixed commit, or what the hub's cache holds of it.

    Returns:
        folder or id, and the commit (None for a folder).

    Raises:
        MlkdError: E301 no such folder, E403 not reachable and not in the cache, or no such dataset, E404 no access.
    """
    if Path(repository).is_dir():
        return repository, None
    if repository.startswith((".", "/", "~")) or repository.count("/") > 1:
        kind = "is a file, not a folder" if Path(repository).is_file() else "is no such folder"
        raise fail("E301", f"'{repository}' {kind} (cwd={Path.cwd()})", remedy=_download_remedy("ORG/NAME"))

    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        info = huggingface_hub.HfApi().dataset_info(repository, revision=revision, timeout=_PROBE_TIMEOUT_S)
    except GatedRepoError as error:
        page = f"{huggingface_hub.constants.ENDPOINT}/datasets/{repository}"
        remedy = f"accept its terms at {page} and run 'hf auth login'"
        raise fail("E404", f"dataset '{repository}' needs access", remedy=remedy) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        remedy = "check the spelling; a private dataset needs 'hf auth login'"
        raise fail("E403", f"no dataset or folder '{repository}'", remedy=remedy) from error
    except RevisionNotFoundError as error:
        raise fail("E403", f"dataset '{repository}' has no revision '{revision}'") from error
    except Exception as error:
        # What a lost connection raises depends on the hub client's version (requests, httpx): all of it means offline.
        return _find_in_cache(repository, revision, error), None
    return repository, info.sha


def _find_in_cache(repository: str, revision: str | None, cause: Exception) -> str:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return huggingface_hub.snapshot_download(
            repository, repo_type="dataset", revision=revision, local_files_only=True
        )
    except LocalEntryNotFoundError:
        constants = huggingface_hub.constants
        what = (
            f"cannot reach {constants.ENDPOINT} ({_first_line(cause) or type(cause).__name__}) and dataset "
            f"'{repository}' is not in the cache (HF_HOME={constants.HF_HOME})"
        )
        raise fail("E403", what, remedy=_download_remedy(repository)) from cause


def _download_remedy(repository: str) -> str:
    return (
        f"set data.repository to a local folder, or run 'hf download --repo-type dataset {repository}' on a machine "
        "with network, or choose a corpus in files: data=tsv, or data=embedded"
    )


def _text_column(table: Any, column: str, origin: str, cleaned: Counter[str]) -> list[str]:
    names = table.column_names
    if column not in names:
        what = f"column '{column}' missing; columns: {', '.join(names)}.{did_you_mean(column, names)}"
        remedy = "name them: data.source_column=... data.target_column=..."
        raise fail("E310", what, where=origin, remedy=remedy)
    kind = getattr(table.features[column], "dtype", type(table.features[column]).__name__)
    if kind not in ("string", "large_string", "string_view"):
        raise fail("E310", f"column '{column}' holds {kind}, not text", where=origin)
    values = table[column][:]
    cleaned["null"] += sum(value is None for value in values)
    return clean_cells([value or "" for value in values], cleaned)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")
