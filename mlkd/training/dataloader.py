"""Data loader: which texts go through the student in a step, and which teacher vectors they meet.

Shapes: P pairs of all languages, B pairs in a batch, K mined negatives, Q further teacher vectors; N sentences that
the student reads, D student and E teacher dimensions, W dimensions of the student's layer before the last one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from mlkd.data.batches import Batches, Indices
from mlkd.data.token_store import TokenIds, TokenStore
from mlkd.data.training_pairs import TrainingPairs
from mlkd.losses.mix import LossMix
from mlkd.losses.pair_vectors import PairVectors
from mlkd.losses.ranking.negatives import NegativePool
from mlkd.teacher.hard_negatives import NONE
from mlkd.teacher.targets import TeacherTargets
from mlkd.teacher.vector_store import Positions

STREAM = 0x6E6567  # keeps the draw of negatives apart from other random numbers of the same seed


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch as numbers of texts; the keys are the fields of PairVectors that they become.

    Args:
        number: batches drawn before it, over all epochs.
        tokens: what the student reads, the texts of `student` one after the other.
        student: texts, in the order that they are read in.
        teacher: texts.
        ids: numbers of source texts.
    """

    number: int
    tokens: list[TokenIds]
    student: dict[str, Indices]
    teacher: dict[str, Indices]
    ids: dict[str, Indices]

    @property
    def num_tokens(self) -> int:
        return sum(map(len, self.tokens))

    @property
    def num_sentences(self) -> int:
        """Those of the pairs, which stand first."""
        return len(self.student["student_source_BD"]) + len(self.student["student_target_BD"])


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Pairs, their tokens, their teacher vectors, and the order they come in.

    Args:
        pairs: P of them.
        tokens: of each distinct text.
        targets: teacher vectors.
        positions: of each distinct text among the targets, -1 for those without a vector.
        batches: see Batches.
        negatives: (P, H), mined pairs for each pair; see mlkd.teacher.hard_negatives. None where none are asked for.
    """

    pairs: TrainingPairs
    tokens: TokenStore
    targets: TeacherTargets
    positions: Positions
    batches: Batches
    negatives: Indices | None = None
    _epochs: dict[int, list[Indices]] = field(default_factory=dict)

    def rows(self, number: int) -> Indices:
        """Pairs of batch `number`, (B,); a function of the seed."""
        epoch, position = divmod(number, self.batches.num_batches)
        if epoch not in self._epochs:
            while len(self._epochs) > 1:  # a queue may reach back into the epoch before
                del self._epochs[next(iter(self._epochs))]
            self._epochs[epoch] = self.batches.epoch(epoch)
        return self._epochs[epoch][position]

    def batch(self, number: int, mix: LossMix) -> Batch:
        """What batch `number` puts before the student and the loss, as far as `mix` asks for it."""
        rows = self.rows(number)
        source, target = self.pairs.source[rows], self.pairs.target[rows]
        student = {"student_source_BD": source, "student_target_BD": target}
        teacher = {"teacher_source_BE": source}
        ids = {"source_ids_B": source}
        if mix.needs_teacher_target:
            teacher["teacher_target_BE"] = target
        if mix.needs_second_dropout_pass:
            student["student_source_second_pass_BD"] = source
        mined = self.mined(rows) if mix.num_hard_negatives else np.empty(0, dtype=np.int64)
        if mix.num_hard_negatives and mix.has_student_candidates:
            # Where one side alone is ranked, against itself, a negative is a source as well.
            student["student_negatives_KD"] = (
                self.pairs.source[mined] if mix.needs_second_dropout_pass else self.pairs.target[mined]
            )
            ids["student_negative_ids_K"] = self.pairs.source[mined]
        if mix.has_teacher_candidates and (mix.num_hard_negatives or mix.num_teacher_negatives):
            further = np.concatenate([self.pairs.source[mined], self.further_sources(number, mix)])
            teacher["teacher_negatives_QE"] = ids["teacher_negative_ids_Q"] = further
        tokens = [self.tokens[int(i)] for texts in student.values() for i in texts]
        return Batch(number=number, tokens=tokens, student=student, teacher=teacher, ids=ids)

    def mined(self, rows: Indices) -> Indices:
        """Mined negatives of the pairs `rows`, each once, (K,), as numbers of pairs."""
        assert self.negatives is not None, "the preparation mines what the loss asks for"
        found: Indices = np.unique(self.negatives[rows])
        kept: Indices = found[found != NONE]
        return kept

    def further_sources(self, number: int, mix: LossMix) -> Indices:
        """Source texts whose teacher vectors are further negatives of batch `number`: at most Q, each once."""
        wanted = mix.num_teacher_negatives
        if mix.negative_pool is NegativePool.cache:
            seeds = np.random.SeedSequence([self.batches.seed, STREAM, number])
            generator = np.random.Generator(np.random.Philox(seeds))
            wanted = min(wanted, self.pairs.num_sources)
            drawn = generator.choice(self.pairs.num_sources, size=wanted, replace=False)
            return np.asarray(drawn, dtype=np.int64)
        found: Indices = np.empty(0, dtype=np.int64)
        while len(found) < wanted and number > 0:
            number -= 1
            found = np.concatenate([found, self.pairs.source[self.rows(number)][::-1]])
            found = found[np.sort(np.unique(found, return_index=True)[1])]
        return found[:wanted]

    def pair_vectors(self, batch: Batch, student_ND: Tensor, pre_projection_NW: Tensor | None = None) -> PairVectors:
        """The student's vectors of `batch.tokens`, and before its last layer where the loss wants them, beside T's."""
        device = student_ND.device
        sizes = [len(texts) for texts in batch.student.values()]
        found = dict(zip(batch.student, torch.split(student_ND, sizes), strict=True))
        if pre_projection_NW is not None:
            source_BW, target_BW, *_ = torch.split(pre_projection_NW, sizes)
            found |= {"student_source_pre_projection_BW": source_BW, "student_target_pre_projection_BW": target_BW}
        found |= {name: self.teacher(texts, device) for name, texts in batch.teacher.items()}
        found |= {name: torch.from_numpy(texts).to(device) for name, texts in batch.ids.items()}
        teacher_target_BE = found.pop("teacher_target_BE", None)
        return PairVectors(**found, teacher_target_BE=teacher_target_BE)

    def teacher(self, texts: Indices, device: torch.device) -> Tensor:
        """Teacher vectors of texts, float32 (B, E)."""
        return self.targets.rows(self.positions[texts]).to(device, non_blocking=True)
