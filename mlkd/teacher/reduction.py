"""The teacher in fewer dimensions: a dense layer trained on its own vectors, or principal components.

Shapes: N texts, B pairs, E teacher dimensions, F fewer dimensions.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from mlkd.data.training_pairs import TrainingPairs
from mlkd.errors import MlkdError, out_of_range
from mlkd.losses.pair_vectors import PairVectors
from mlkd.losses.ranking.additive_margin import AmsRanking
from mlkd.models.encoder import Encoder
from mlkd.runtime.atomic_files import replaced_file
from mlkd.teacher.principal_components import principal_components
from mlkd.teacher.vector_store import Positions, VectorStore, text_keys, unit_norm

log = logging.getLogger("mlkd")
BLOCK = 65_536  # vectors in memory at a time
NORM_SAMPLE = 1000


class ReductionMethod(Enum):
    """Where the linear map comes from."""

    dense = "dense"  # trained to rank the teacher's own translation pairs (LEALLA, Mao & Nakagawa 2023, section 3.2)
    pca = "pca"  # the directions of largest variance


@dataclass(kw_only=True, slots=True)
class TeacherReduction:
    """A linear map of the frozen teacher's vectors to fewer dimensions, made before the run and fixed from then on.

    The run's teacher is then the reduced one: in the loss, in the tasks, in the results.

    method=dense: additive margin softmax between the reduced vectors of translation pairs, other pairs of the same
    source text left out; the teacher must read all languages. It starts at the principal directions.
    method=pca: principal directions of the source texts' vectors (and of the translations' where the loss needs
    those), applied without centring, which would move cosines; right for a teacher of one language.

    Source: LEALLA (Mao & Nakagawa 2023), section 3.2 and, for "synchronized", appendix C; PCA as in
    https://github.com/UKPLab/sentence-transformers, examples/training/distillation/dimensionality_reduction.py.

    Args:
        dim: F, >= 1; None takes the student's dimension for loss.feature.projection=synchronized, else no reduction.
        method: see ReductionMethod.
        steps: of the dense layer's training, >= 1.
        batch_size: pairs a step, >= 2.
        lr: of Adam, falling to 0 along a line, > 0.
        scale: of the ranking, > 0.
        margin: of the ranking, >= 0.
        seed: of the batches.
    """

    dim: int | None = None
    method: ReductionMethod = ReductionMethod.dense
    steps: int = 1000
    batch_size: int = 512
    lr: float = 1e-3
    scale: float = 100.0
    margin: float = 0.3
    seed: int = 1

    def __post_init__(self) -> None:
        problems = [
            *out_of_range(self, "steps", "dim", ge=1),
            *out_of_range(self, "batch_size", ge=2),
            *out_of_range(self, "lr", "scale", gt=0),
            *out_of_range(self, "margin", ge=0),
        ]
        if problems:
            raise MlkdError(problems)

    def open_or_fit(self, folder: Path, taught: TaughtPairs, dim: int) -> ReducedSpace:
        """The map to `dim` dimensions, from `folder` or made now; the same inputs give the same bits.

        Args:
            folder: of this teacher in the cache.
            taught: the run's pairs and their vectors.
            dim: F, at most E.
        """
        path = folder / f"{self.fingerprint(taught, dim)}.reduction"
        if not path.is_file():
            log.info("teacher: reducing to %s dimensions (%s)", dim, self.method.name)
            tensors = self.fit(taught, dim).tensors
            with replaced_file(path) as temporary:
                save_file(tensors, temporary)
        return ReducedSpace(load_file(path))

    def fingerprint(self, taught: TaughtPairs, dim: int) -> str:
        """Names everything the map depends on but the teacher."""
        settings = [str(dim), self.method.name]
        if self.method is ReductionMethod.dense:
            settings += map(str, (self.steps, self.batch_size, self.lr, self.scale, self.margin, self.seed))
        digest = hashlib.sha256(" ".join(settings).encode())
        digest.update(text_keys(taught.pairs.texts).tobytes())
        for numbers in (taught.pairs.source, taught.pairs.target, taught.positions >= 0):
            digest.update(np.ascontiguousarray(numbers).tobytes())
        return digest.hexdigest()[:24]

    def fit(self, taught: TaughtPairs, dim: int) -> ReducedSpace:
        """The map, made from the pairs' vectors."""
        weight_FE = principal_directions(taught, dim)
        bias_F = torch.zeros(dim)
        if self.method is ReductionMethod.dense:
            weight_FE, bias_F = self.train(taught, weight_FE, bias_F)
        sample = taught.rows(np.flatnonzero(taught.positions >= 0)[:NORM_SAMPLE])
        return ReducedSpace({"weight": weight_FE, "bias": bias_F, "unit_norm": torch.tensor(unit_norm(sample))})

    def train(self, taught: TaughtPairs, weight_FE: Tensor, bias_F: Tensor) -> tuple[Tensor, Tensor]:
        """Weight and bias after `steps` steps from these."""
        ranking = AmsRanking(scale=self.scale, margin=self.margin, mask_same_source=True)
        weight_FE, bias_F = weight_FE.requires_grad_(), bias_F.requires_grad_()
        optimizer = torch.optim.Adam([weight_FE, bias_F], lr=self.lr)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=self.steps)
        generator = torch.Generator().manual_seed(self.seed)
        num_pairs = len(taught.pairs.source)
        for _ in range(self.steps):
            chosen = torch.randint(num_pairs, (min(self.batch_size, num_pairs),), generator=generator).numpy()
            source, target = taught.pairs.source[chosen], taught.pairs.target[chosen]
            source_BE, target_BE = taught.rows(source), taught.rows(target)
            reduced = PairVectors(
                student_source_BD=F.linear(source_BE, weight_FE, bias_F),
                student_target_BD=F.linear(target_BE, weight_FE, bias_F),
                teacher_source_BE=source_BE,
                teacher_target_BE=target_BE,
                source_ids_B=torch.from_numpy(source),
            )
            optimizer.zero_grad()
            ranking(reduced).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        return weight_FE.detach(), bias_F.detach()


@dataclass(frozen=True, slots=True)
class TaughtPairs:
    """A run's pairs and what the teacher says to their texts.

    Args:
        pairs: see TrainingPairs.
        store: of the teacher's vectors.
        positions: (T,) of each text in the store, -1 for those without a vector.
    """

    pairs: TrainingPairs
    store: VectorStore
    positions: Positions

    def rows(self, texts: Positions) -> Tensor:
        """Teacher vectors of texts, float32 (N, E)."""
        return self.store.rows(self.positions[texts])


class ReducedSpace:
    """A linear map to F dimensions, with unit norm after it where the teacher's vectors have that.

    Args:
        tensors: weight (F, E), bias (F,) and unit_norm (a bool).
    """

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors

    @property
    def dimension(self) -> int:
        return len(self.tensors["bias"])

    def __call__(self, vectors_NE: Tensor) -> Tensor:
        """(N, E) -> (N, F)."""
        reduced_NF = F.linear(vectors_NE, self.tensors["weight"], self.tensors["bias"])
        return F.normalize(reduced_NF, dim=1) if self.tensors["unit_norm"] else reduced_NF


class ReducedTeacher:
    """The teacher as an encoder of F dimensions."""

    def __init__(self, teacher: Encoder, space: ReducedSpace) -> None:
        self.teacher = teacher
        self.space = space

    def encode(self, texts: Sequence[str]) -> Tensor:
        """float32 (N, F) on the CPU."""
        return self.space(self.teacher.encode(texts))


def principal_directions(taught: TaughtPairs, dim: int) -> Tensor:
    """The `dim` directions of largest variance of all vectors there are, float32 (F, E), orthonormal.

    Signs are such that each direction's largest entry is positive.
    """
    texts = np.flatnonzero(taught.positions >= 0)
    found = principal_components(taught.rows(texts[i : i + BLOCK]) for i in range(0, len(texts), BLOCK))
    return found.directions_EE[:dim].float().contiguous()
