"""XNLI: does a classifier of sentence vectors, trained on one language alone, work in others?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch

from mlkd.data.formats.tsv import raise_first
from mlkd.data.hub import clean_texts
from mlkd.data.path_templates import fill_template
from mlkd.errors import Problem, fail, out_of_range
from mlkd.models.encoder import Encoder
from mlkd.tasks.base import hash_rows, load_each
from mlkd.tasks.data_sources import Origin, SourcedTask, language_problem, language_problems, read_columns
from mlkd.tasks.distinct_texts import TextVectors
from mlkd.tasks.scoring.item_scores import ItemScores, MeanItemScores
from mlkd.tasks.scoring.language_means import with_means
from mlkd.tasks.scoring.scores import TaskResult, scores_from_items
from mlkd.tasks.xnli.classifier import fit_classifier

LABELS = ("entailment", "neutral", "contradiction")
# The hub's numbers, and the spelling of XNLI's own training files.
_CLASS_OF = {
    **{name: number for number, name in enumerate(LABELS)},
    **{str(number): number for number in range(3)},
    "contradictory": 2,
}
_LANGUAGES = ("ar", "bg", "de", "el", "en", "es", "fr", "hi", "ru", "sw", "th", "tr", "ur", "vi", "zh")
_TRAINING = "training"


@dataclass(frozen=True, slots=True)
class NliSet:
    """Whether `premises[n]` entails, says nothing of or contradicts `hypotheses[n]`: `classes[n]` counts LABELS."""

    language: str
    premises: list[str]
    hypotheses: list[str]
    classes: list[int]


@dataclass(frozen=True, slots=True)
class NliData:
    """What the classifier is trained on, and what it is tested on in each language."""

    training: NliSet
    tests: list[NliSet]


@dataclass(kw_only=True, slots=True)
class XnliTask(SourcedTask):
    """Accuracy in percent over three classes: logistic regression on vectors of the frozen encoder, zero-shot.

    The classifier sees pairs of the source language only (English), so the scores of the others measure how far the
    encoder puts translations in one place. `path`, `train_path` and `subset` have the placeholders `{language}` and
    `{source_language}`; files are TSV with a header.

    Args:
        languages: tested ones.
        train_path: TSV of the training pairs; with `path`.
        source_language: of the training pairs.
        train_split: of the dataset; with `dataset`.
        max_train: training pairs used, drawn by `seed`; None for all.
        premise_column: its name.
        hypothesis_column: its name.
        label_column: entailment, neutral, contradiction, or 0, 1, 2.
        l2: the classifier minimises summed cross-entropy + l2 / 2 ||W||² over standardised features. The default is the
            best of 300, 1000, 3000 and 10000 on XNLI's English dev set with 3,000 training pairs and vectors of 384
            dimensions.
        seed: of the drawn training pairs.

    Source:
        Conneau et al. 2018, "XNLI: Evaluating Cross-lingual Sentence Representations", section 4; the classifier as in
        Conneau & Kiela 2018, "SentEval".
    """

    # Its texts are no other task's, and a training set may be large.
    needs_uncached: ClassVar[bool] = True

    name: str = "xnli"
    languages: list[str] = field(default_factory=lambda: list(_LANGUAGES))
    train_path: str = ""
    source_language: str = "en"
    train_split: str = "train"
    max_train: int | None = None
    premise_column: str = "premise"
    hypothesis_column: str = "hypothesis"
    label_column: str = "label"
    l2: float = 3000.0
    seed: int = 1

    def _field_problems(self) -> list[Problem]:
        problems = SourcedTask._field_problems(self) + language_problems(self.languages, "languages")
        problem = language_problem(self.source_language, "source_language")
        problems += [problem] if problem is not None else []
        if self.origin is Origin.embedded:
            example = "dataset=facebook/xnli, or path=dev.{language}.tsv and train_path=train.{language}.tsv"
            problems.append(Problem("E205", f"is required: no NLI set is embedded. Example: {example}", where="path"))
        if bool(self.path) != bool(self.train_path):
            problems.append(Problem("E209", "set both path and train_path, or none of them", where="train_path"))
        problems += out_of_range(self, "max_train", ge=3)
        problems += out_of_range(self, "l2", gt=0, lt=float("inf"))
        problems += out_of_range(self, "seed", ge=0, lt=2**63)
        return problems

    def load(self) -> NliData:
        """Training pairs and all tests; every problem of every set at once."""
        training, *tests = load_each([_TRAINING, *self.languages], self._load_set)
        missing = [name for number, name in enumerate(LABELS) if number not in training.classes]
        if missing:
            raise fail("E314", f"the training pairs hold no {' and no '.join(missing)}", where=self.name)
        return NliData(training, tests)

    def texts(self, data: Any) -> Iterator[str]:
        loaded: NliData = data
        for pairs in loaded.tests:
            yield from pairs.premises
            yield from pairs.hypotheses

    def encoded_texts(self, data: Any) -> Iterator[str]:
        loaded: NliData = data
        yield from loaded.training.premises
        yield from loaded.training.hypotheses
        yield from self.texts(data)

    def score(self, data: Any, encoder: Encoder, teacher: Encoder | None = None) -> TaskResult:
        loaded: NliData = data
        training = loaded.training
        vectors = TextVectors(encoder, self.encoded_texts(data))
        first_ND, second_ND = vectors.rows(training.premises), vectors.rows(training.hypotheses)
        classes_N = torch.tensor(training.classes)
        classifier = fit_classifier(first_ND, second_ND, classes_N, num_classes=len(LABELS), l2=self.l2)
        item_scores: dict[str, ItemScores] = {}
        for pairs in loaded.tests:
            found = classifier.predict(vectors.rows(pairs.premises), vectors.rows(pairs.hypotheses))
            item_scores[f"{pairs.language}/accuracy"] = MeanItemScores(
                found.numpy() == torch.tensor(pairs.classes).numpy()
            )
        item_scores = with_means(item_scores)
        fitted = classifier.predict(first_ND, second_ND) == classes_N
        return TaskResult(
            task=self.name,
            protocol=f"zero-shot, logistic regression on {len(classes_N):,} {training.language} pairs, l2={self.l2:g}",
            main="accuracy",
            higher_is_better=True,
            data_sha256=hash_rows(_rows(loaded)),
            scores=scores_from_items(item_scores),
            details={
                "training_accuracy": 100 * float(fitted.double().mean()),
                "iterations": classifier.iterations,
                "gradient": classifier.gradient,
            },
            item_scores=item_scores,
        )

    def _load_set(self, name: str) -> NliSet:
        is_training = name == _TRAINING
        language = self.source_language if is_training else name
        names = {"language": language, "source_language": self.source_language}
        columns = [self.premise_column, self.hypothesis_column, self.label_column]
        if self.origin is Origin.hub:
            subset = fill_template(self.subset, "subset", **names)
            split = self.train_split if is_training else self.split
            where = f"{self.dataset}, {subset}, {split}"
            premises, hypotheses, labels = self.read_hub(subset, columns, split)
            premises, hypotheses = clean_texts(premises, where), clean_texts(hypotheses, where)
            places = [f"{where}, row {row}" for row in range(1, len(labels) + 1)]
        else:
            where, template = ("train_path", self.train_path) if is_training else ("path", self.path)
            path = fill_template(template, where, **names)
            (premises, hypotheses, labels), line_numbers = read_columns(path, columns)
            places = [f"{path}:{line}" for line in line_numbers]
        if not labels:
            raise fail("E303", f"no sentence pairs for '{name}'")
        pairs = NliSet(language, premises, hypotheses, _parse_labels(labels, places))
        return _draw(pairs, self.max_train, self.seed) if is_training else pairs


def _parse_labels(cells: list[Any], places: list[str]) -> list[int]:
    wrong = [(cell, place) for cell, place in zip(cells, places, strict=True) if str(cell) not in _CLASS_OF]
    allowed = f"{', '.join(LABELS)}, or 0, 1, 2"
    raise_first(
        [Problem("E314", f"label '{cell}' is none of {allowed}", place) for cell, place in wrong],
        "labels of this set are none of these",
    )
    return [_CLASS_OF[str(cell)] for cell in cells]


def _draw(pairs: NliSet, num: int | None, seed: int) -> NliSet:
    """`num` of the pairs in their order; all of them for None."""
    if num is None or num >= len(pairs.classes):
        return pairs
    generator = torch.Generator().manual_seed(seed)
    # Training files are often sorted by label.
    rows = torch.randperm(len(pairs.classes), generator=generator)[:num].sort().values.tolist()
    columns = (pairs.premises, pairs.hypotheses)
    premises, hypotheses = ([column[row] for row in rows] for column in columns)
    return NliSet(pairs.language, premises, hypotheses, [pairs.classes[row] for row in rows])


def _rows(data: NliData) -> Iterator[tuple[str, str, str, str]]:
    for pairs in (data.training, *data.tests):
        for premise, hypothesis, number in zip(pairs.premises, pairs.hypotheses, pairs.classes, strict=True):
            yield pairs.language, premise, hypothesis, LABELS[number]
