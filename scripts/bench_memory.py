"""Peak memory of a training step against the batch, plain and with gradient caching: `python scripts/bench_memory.py`.

Each figure comes from a process of its own, which takes one step of LEALLA's objective (AMS + feature + logit
distillation, which compare the whole batch with itself) and prints by how much its peak rose above what weights and
data take: resident memory on a CPU, allocated memory on a GPU. "Loss alone" is the same objective on vectors that no
student computed: what no caching can save.

On Linux the C library keeps freed memory for later, which counts here. MALLOC_MMAP_THRESHOLD_=131072
MALLOC_TRIM_THRESHOLD_=131072 before the command makes it give memory back: slower, and nearer to what is in use.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from mlkd.cli.main import quiet_libraries
from mlkd.data.batches import Batches
from mlkd.data.token_store import TokenStore
from mlkd.data.training_pairs import TrainingPairs
from mlkd.losses.feature import FeatureDistance, FeatureTarget, FeatureTerm
from mlkd.losses.mix import LossMix
from mlkd.losses.ranking.additive_margin import AmsRanking
from mlkd.models.pooling import Pooling
from mlkd.models.sentence_encoder import SentenceEncoder, TextSettings
from mlkd.models.students.thin_deep import ThinDeepStudent
from mlkd.optim.optimizer import Optim
from mlkd.runtime.devices import Device, Hardware, peak_memory_bytes, place
from mlkd.runtime.precision import Precision, autocast_type
from mlkd.training.dataloader import TrainingData
from mlkd.training.gradient import TrainerArguments
from mlkd.training.state import Intervals
from mlkd.training.trainer import Trainer

VOCABULARY = 8000
MODES = ("plain", "caching", "loss")


def main() -> None:
    arguments = parse()
    if arguments.measure is not None:
        print(json.dumps(measure(arguments)))
        return
    print(f"{arguments.layers} layers of {arguments.hidden}, sentences of {arguments.tokens} tokens on average")
    print(f"{'pairs':>6}  {'plain':>20}  {'gradient caching':>20}  {'loss alone':>20}")
    for pairs in arguments.pairs:
        cells = []
        for mode in MODES:
            if mode == "plain" and pairs > arguments.plain_up_to:
                cells.append("not tried")
                continue
            found = in_a_process_of_its_own(pairs, mode)
            cells.append("out of memory" if found is None else f"{found['mib']:,.0f} MiB, {found['s']:.1f} s")
        print(f"{pairs:>6}  " + "  ".join(f"{cell:>20}" for cell in cells), flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, nargs="+", default=[256, 512, 1024, 2048, 4096, 8192])
    parser.add_argument("--plain-up-to", type=int, default=8192, help="larger batches are tried with caching alone")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=16, help="tokens of a sentence, on average")
    parser.add_argument("--max-tokens", type=int, default=None, help="token positions in a forward pass")
    parser.add_argument("--device", choices=[d.name for d in Device], default="auto")
    parser.add_argument("--precision", choices=[p.name for p in Precision], default="fp32")
    parser.add_argument("--measure", choices=MODES, default=None, help=argparse.SUPPRESS)
    return parser.parse_args()


def in_a_process_of_its_own(pairs: int, mode: str) -> dict[str, float] | None:
    """What `measure` finds with the options of this command; None where memory ran out."""
    own = [a for a in sys.argv[1:] if not a.startswith("--plain-up-to")]
    if "--pairs" in own:
        start = own.index("--pairs")
        end = next((i for i in range(start + 1, len(own)) if own[i].startswith("--")), len(own))
        del own[start:end]
    command = [sys.executable, str(Path(__file__)), *own, "--pairs", str(pairs), "--measure", mode]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode == 0:
        found: dict[str, float] = json.loads(result.stdout.splitlines()[-1])
        return found
    if result.returncode < 0 or "memory" in result.stderr:  # killed by the system, or told by PyTorch
        return None
    raise RuntimeError(result.stderr)


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """Peak memory in MiB above what was there before, and seconds, of one step."""
    quiet_libraries()
    (num_pairs,) = arguments.pairs
    hardware = Hardware(
        device=Device[arguments.device], precision=Precision[arguments.precision], max_tokens=arguments.max_tokens
    )
    device = hardware.resolve()
    run = build(arguments, num_pairs, hardware, device)
    before = peak_memory_bytes(device)
    start = time.perf_counter()
    if arguments.measure == "loss":
        loss_alone(run, num_pairs, device)
    else:
        run.caching = arguments.measure == "caching"
        run.gradient(with_shares=False)  # where memory runs out the figure is that it did: no second try
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return {"mib": (peak_memory_bytes(device) - before) / 2**20, "s": time.perf_counter() - start}


def loss_alone(run: Trainer, num_pairs: int, device: torch.device) -> None:
    """The objective forward and back, on random student vectors."""
    batch = run.data.batch(0, run.loss.mix)
    student_ND = torch.randn(2 * num_pairs, run.student.dimension, device=device, requires_grad=True)
    run.loss(run.data.pair_vectors(batch, student_ND)).total.backward()


def build(arguments: argparse.Namespace, num_pairs: int, hardware: Hardware, device: torch.device) -> Trainer:
    """A run over one batch of random tokens, whose teacher vectors are random too."""
    torch.manual_seed(0)
    student = ThinDeepStudent(
        num_layers=arguments.layers,
        hidden_size=arguments.hidden,
        num_attention_heads=4,
        intermediate_size=4 * arguments.hidden,
    )
    precision = autocast_type(hardware.precision, device)
    tokenizer = SimpleNamespace(pad_token_id=0)
    encoder = SentenceEncoder(
        student.build_body(VOCABULARY, 0), tokenizer, pooling=Pooling.mean, text=TextSettings(max_length=128)
    )
    place(encoder.backbone, device, precision)
    encoder.to(device).train()
    mix = LossMix(
        alpha=1.0,
        beta=1e3,
        gamma=1e-2,
        ranking=AmsRanking(),
        feature=FeatureTerm(distance=FeatureDistance.squared_l2, target=FeatureTarget.own),
    )
    return Trainer(
        TrainerArguments(
            student=encoder,
            loss=mix.build(encoder.dimension, encoder.dimension),
            data=random_data(num_pairs, arguments.tokens, encoder.dimension),
            optim=Optim(batch_size=num_pairs, max_steps=1, sparse_embeddings=True),
            intervals=Intervals(total_steps=1, log_every=1, evaluate_every=1, checkpoint_every=1, patience=None),
            precision=precision,
            max_tokens=hardware.forward_tokens(device),
        )
    )


def random_data(num_pairs: int, mean_tokens: int, dimension: int) -> TrainingData:
    """Pairs of sentences of one to twice `mean_tokens` random pieces."""
    generator = np.random.default_rng(0)
    num_texts = 2 * num_pairs
    pairs = TrainingPairs(
        [str(n) for n in range(num_texts)],
        num_pairs,
        np.arange(num_pairs),
        np.arange(num_pairs, num_texts),
        [num_pairs],
    )
    lengths = generator.integers(1, 2 * mean_tokens, num_texts)
    ids = generator.integers(1, VOCABULARY, int(lengths.sum())).astype(np.int32)
    tokens = TokenStore(ids, np.concatenate([[0], np.cumsum(lengths)]))
    vectors = F.normalize(torch.randn(num_texts, dimension), dim=1)
    targets: Any = SimpleNamespace(rows=lambda positions: vectors[positions])
    return TrainingData(pairs, tokens, targets, np.arange(num_texts), Batches([num_pairs], num_pairs))


if __name__ == "__main__":
    main()
