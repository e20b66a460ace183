"""Time of a training step beside sentence-transformers', same student and batches: `python scripts/bench_training.py`.

The peer is the step of its trainer without the trainer's bookkeeping: its data collator, its MSELoss, fused AdamW,
clipping to norm 1. Its collator tokenises in every step, as it does for a user; mlkd tokenises each text once, before.
Steps alternate, so that whatever else the machine does slows both. Teacher targets are given to both: random unit
vectors, which take the same time as real ones.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mlkd.cli.main import quiet_libraries
from mlkd.data.batches import Batches
from mlkd.data.pairs import LanguagePair
from mlkd.data.token_store import TokenStore
from mlkd.data.training_pairs import TrainingPairs
from mlkd.demo_data import LANGUAGES, generate_pairs
from mlkd.losses.mix import LossMix
from mlkd.models.sentence_encoder import SentenceEncoder, autocast
from mlkd.models.serialization import save_encoder
from mlkd.models.spec import LazyEncoder
from mlkd.models.students.base import StudentCorpus
from mlkd.models.students.thin_deep import ThinDeepStudent
from mlkd.models.students.vocabulary import Vocabulary
from mlkd.optim.optimizer import Optim
from mlkd.runtime.devices import Device, Hardware, place
from mlkd.runtime.precision import Precision, autocast_type
from mlkd.teacher.targets import TeacherTargets
from mlkd.training.dataloader import TrainingData
from mlkd.training.gradient import TrainerArguments
from mlkd.training.state import Intervals
from mlkd.training.trainer import Trainer

TARGET_DIMENSION = 384
WARMUP_STEPS = 3


def main() -> None:
    arguments = parse()
    quiet_libraries()
    hardware = Hardware(
        device=Device[arguments.device], precision=Precision[arguments.precision], threads=arguments.threads
    )
    device = hardware.resolve()
    precision = autocast_type(hardware.precision, device)
    pairs = embedded_pairs(arguments.pairs)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        student = build_student(arguments, pairs, root)
        save_encoder(student, root / "student")
        place(student.backbone, device, precision)
        student.to(device).train()
        print(f"{device}, {precision or 'fp32'}, {torch.get_num_threads()} threads, torch {torch.__version__}")
        print(f"student: {sum(p.numel() for p in student.parameters()):,} weights; {len(pairs.source):,} pairs")
        for batch_size in arguments.batch:
            optim = Optim(
                lr=1e-6, batch_size=batch_size, max_steps=10**9, clip_norm=1.0, sparse_embeddings=arguments.sparse
            )
            data = training_data(pairs, student, batch_size, root)
            own = copy.deepcopy(student)
            ours = Trainer(
                TrainerArguments(
                    student=own,
                    loss=LossMix().build(own.dimension, TARGET_DIMENSION).to(device),
                    data=data,
                    optim=optim,
                    intervals=Intervals(
                        total_steps=10**9, log_every=1, evaluate_every=1, checkpoint_every=1, patience=None
                    ),
                    precision=precision,
                    max_tokens=hardware.forward_tokens(device),
                )
            )
            peer_precision = autocast_type(Precision[arguments.peer_precision or arguments.precision], device)
            peer = PeerTraining(root / "student", data, optim, peer_precision, device)
            compare(f"batch {batch_size}", lambda run=ours: our_loss(run), peer.step, arguments.steps, device)
            print(f"    of the peer's step, collating takes {statistics.median(peer.collating_s) * 1e3:.1f} ms")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[64, 256], help="sentence pairs per step")
    parser.add_argument("--steps", type=int, default=20, help="measured steps of each, after warm-up")
    parser.add_argument("--precision", choices=[p.name for p in Precision], default="fp32", help="of both")
    parser.add_argument("--peer-precision", choices=[p.name for p in Precision], help="of the peer, where it differs")
    parser.add_argument("--sparse", action="store_true", help="mlkd with optim.sparse_embeddings=true")
    parser.add_argument("--device", choices=[d.name for d in Device], default="auto")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--pairs", type=int, default=10_000, help="sentence pairs per language")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--vocabulary", type=int, default=8000)
    return parser.parse_args()


def embedded_pairs(per_language: int) -> TrainingPairs:
    """The embedded corpus in all its languages."""
    corpora = []
    for language in LANGUAGES:
        rows = generate_pairs(language, per_language)
        corpora.append(LanguagePair("en", language, [source for source, _ in rows], [target for _, target in rows]))
    return TrainingPairs.from_corpus(corpora)


def build_student(arguments: argparse.Namespace, pairs: TrainingPairs, root: Path) -> SentenceEncoder:
    """A thin-deep BERT with its own vocabulary and a dense layer to the teacher's dimension."""
    student = ThinDeepStudent(
        num_layers=arguments.layers,
        hidden_size=arguments.hidden,
        num_attention_heads=max(1, arguments.hidden // 32),
        intermediate_size=4 * arguments.hidden,
        dense_dim=TARGET_DIMENSION,
        vocabulary=Vocabulary(size=arguments.vocabulary),
    )
    return student.build(StudentCorpus(pairs, root / "cache"), normalize=False, seed=1)


def training_data(pairs: TrainingPairs, student: SentenceEncoder, batch_size: int, root: Path) -> TrainingData:
    """Tokens and targets on disk, as a run has them."""
    tokens = TokenStore.open_or_build(root / "cache", pairs.texts, student.tokenize, "benchmark")
    targets = TeacherTargets(root / "targets", LazyEncoder(no_teacher))
    if not any((root / "targets").glob("*.keys")):
        generator = torch.Generator().manual_seed(0)
        vectors = torch.randn(len(pairs.texts), TARGET_DIMENSION, generator=generator)
        targets.store.append(pairs.texts, F.normalize(vectors, dim=1))
        targets.store.reload()
    batches = Batches(pairs.language_sizes, batch_size)
    return TrainingData(pairs, tokens, targets, targets.store.positions(pairs.texts), batches)


def no_teacher() -> SentenceEncoder:
    raise AssertionError("all targets are in the store")


def our_loss(run: Trainer) -> Tensor:
    """One step of mlkd; its loss is the sum over source and translation, the peer's the mean."""
    return run.step()[0].total.detach() / 2


class PeerTraining:
    """sentence-transformers on the same batches in the same order."""

    def __init__(
        self, folder: Path, data: TrainingData, optim: Optim, precision: torch.dtype | None, device: torch.device
    ) -> None:
        from datasets import Dataset
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator
        from sentence_transformers.sentence_transformer.losses import MSELoss

        pairs = data.pairs
        self.model = SentenceTransformer(str(folder), device=str(device)).train()
        self.loss = MSELoss(self.model)
        self.collate = SentenceTransformerDataCollator(self.model.preprocess)
        self.dataset = Dataset.from_dict(
            {
                "source": [pairs.texts[i] for i in pairs.source],
                "target": [pairs.texts[i] for i in pairs.target],
                "label": data.targets.rows(data.positions[pairs.source]).numpy(),
            }
        )
        self.batches = self.order(data.batches)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=optim.lr, eps=optim.eps, fused=True)
        self.precision, self.device = precision, device
        self.collating_s: list[float] = []

    def order(self, batches: Batches) -> Iterator[list[int]]:
        epoch = 0
        while True:
            yield from (batch.tolist() for batch in batches.epoch(epoch))
            epoch += 1

    def step(self) -> Tensor:
        start = time.perf_counter()
        batch: dict[str, Any] = self.collate(self.dataset.__getitems__(next(self.batches)))
        self.collating_s.append(time.perf_counter() - start)
        batch = {name: value.to(self.device) if isinstance(value, Tensor) else value for name, value in batch.items()}
        features = [
            {key.removeprefix(f"{side}_"): value for key, value in batch.items() if key.startswith(f"{side}_")}
            for side in ("source", "target")
        ]
        with autocast(self.device, self.precision):
            loss: Tensor = self.loss(features, batch["label"])
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()


def compare(
    name: str, ours: Callable[[], Tensor], peer: Callable[[], Tensor], steps: int, device: torch.device
) -> None:
    """Alternate steps of both and print medians, their ratio, and the ratio's middle half over pairs of steps."""
    times: dict[str, list[float]] = {"mlkd": [], "peer": []}
    first: dict[str, float] = {}
    for step in range(WARMUP_STEPS + steps):
        turns = [("mlkd", ours), ("peer", peer)]
        for label, run in turns if step % 2 else reversed(turns):
            start = time.perf_counter()
            loss = run()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times[label].append(time.perf_counter() - start)
            first.setdefault(label, float(loss))
    mine, theirs = times["mlkd"][WARMUP_STEPS:], times["peer"][WARMUP_STEPS:]
    ratios = sorted(b / a for a, b in zip(mine, theirs, strict=True))
    print(
        f"{name}: mlkd {statistics.median(mine) * 1e3:.1f} ms, sentence-transformers "
        f"{statistics.median(theirs) * 1e3:.1f} ms a step; mlkd is {statistics.median(ratios):.2f} times as fast "
        f"({ratios[len(ratios) // 4]:.2f} to {ratios[3 * len(ratios) // 4]:.2f}, {steps} steps each)"
    )
    print(f"    first loss: mlkd {first['mlkd']:.6f}, sentence-transformers {first['peer']:.6f}")


if __name__ == "__main__":
    main()
