"""Mean squared error between the teacher's vectors of the source and the student's vectors of the translations.

Shapes: N pairs, D dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mlkd.errors import fail
from mlkd.models.encoder import Encoder
from mlkd.tasks.distinct_texts import TextVectors
from mlkd.tasks.parallel import ParallelSet, ParallelTask, hash_sets
from mlkd.tasks.scoring.item_scores import MeanItemScores
from mlkd.tasks.scoring.language_means import mean_score, with_means
from mlkd.tasks.scoring.scores import Score, TaskResult


@dataclass(kw_only=True, slots=True)
class MseTask(ParallelTask):
    """Mean over pairs and dimensions of (T(x) - S(y))², times 100; lower is better.

    `explained` is 100 (1 - MSE / Var(T)), 100 for a perfect student and 0 for one that always says the teacher's mean:
    the MSE of unit vectors is at most a few thousandths whatever the student does.

    Source:
        Reimers & Gurevych 2020, section 2; sentence-transformers, `MSEEvaluator`.
    """

    name: str = "mse"

    @property
    def needs_teacher(self) -> bool:
        return True

    def score(self, data: Any, encoder: Encoder, teacher: Encoder | None = None) -> TaskResult:
        """Raises E210 where student and teacher have different dimensions."""
        assert teacher is not None, "mse needs a teacher"
        sets: list[ParallelSet] = data
        targets = TextVectors(teacher, (text for pairs in sets for text in pairs.source))
        vectors = TextVectors(encoder, (text for pairs in sets for text in pairs.target))
        if targets.num_dimensions != vectors.num_dimensions:
            raise fail(
                "E210",
                f"teacher dim {targets.num_dimensions} != student dim {vectors.num_dimensions}",
                where=self.name,
                remedy="give the student a dense layer to the teacher's dimension, or leave this task out",
            )
        scores, item_scores = [], {}
        for pairs in sets:
            target_ND = targets.rows(pairs.source)
            errors = MeanItemScores(squared_errors(target_ND, vectors.rows(pairs.target)).numpy())
            item_scores[f"{pairs.language}/mse"] = errors
            scores.append(Score(pairs.language, "mse", errors.value(), errors.count))
            scores.append(Score(pairs.language, "explained", explained(errors.value(), target_ND), errors.count))
        return TaskResult(
            task=self.name,
            protocol=f"x100, T({self.source_language}) against S(xx)",
            main="mse",
            higher_is_better=False,
            data_sha256=hash_sets(sets),
            scores=scores + [mean_score(scores, metric) for metric in ("mse", "explained")],
            details={"num_empty": {pairs.language: pairs.num_empty for pairs in sets}},
            item_scores=with_means(item_scores),
        )


def squared_errors(target_ND: Tensor, student_ND: Tensor) -> Tensor:
    """Mean over dimensions of the squared difference, (N,) float64."""
    return ((target_ND.double() - student_ND.double()) ** 2).mean(dim=1)


def explained(mse: float | None, target_ND: Tensor) -> float | None:
    """Percent of the targets' variance that `mse` (x100) leaves explained; None where they do not vary.

    >>> import torch
    >>> explained(50.0, torch.tensor([[1.0], [3.0]]))
    50.0
    """
    target_ND = target_ND.double()
    variance = float(((target_ND - target_ND.mean(dim=0)) ** 2).mean())
    return 100 - mse / variance if variance > 0 and mse is not None else None
