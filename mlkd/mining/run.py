"""Bitext mining: two files of sentences in, scored pairs out; what was killed goes on, and shards share the work."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from mlkd.config.mine_schema import MineConfig
from mlkd.data.formats.compression import find_missing
from mlkd.errors import MlkdError
from mlkd.knn.retrieval import Candidates, retrieve
from mlkd.mining.neighbour_blocks import NeighbourBlocks
from mlkd.mining.output import (
    check_writable,
    describe_side,
    format_pairs,
    metadata_path,
    refuse_other_output,
    write_pairs,
)
from mlkd.mining.sentences import Sentences, read_sentences
from mlkd.mining.shards import LogProgress, encode_share, search_share, wait_for_vectors
from mlkd.mining.vector_blocks import VectorBlocks
from mlkd.models.model_folder import folder_sha256
from mlkd.models.spec import LazyEncoder
from mlkd.runtime.atomic_files import remove_stale, write_json
from mlkd.runtime.precision import autocast_type
from mlkd.tasks.base import collect_problems
from mlkd.version import __version__


@dataclass(frozen=True, slots=True)
class MiningResult:
    """Result of a mining run.

    Args:
        output: the file of pairs; None where other shards have still to search, and the last of them writes it.
        metadata: what is written beside it as JSON: settings, counts, hashes.
        rates: sentences per second of this process, `encoded` and `searched`; None where there was nothing to do.
    """

    output: Path | None
    metadata: dict[str, Any] = field(default_factory=dict)
    rates: dict[str, float | None] = field(default_factory=dict)


def print_to_stderr(line: str) -> None:
    """Progress, kept apart from results on standard output."""
    print(line, file=sys.stderr)


def mine(config: MineConfig, log_progress: LogProgress = print_to_stderr) -> MiningResult:
    """Mine pairs of translations; writes the output and a JSON beside it.

    Args:
        config: checked by its own construction.
        log_progress: is given progress, a line at a time.

    Raises:
        MlkdError: E3xx for text, E4xx for the encoder, E5xx for the output, before anything is encoded.
        UnfinishedError: where vectors of other shards did not come in time.
    """
    device = config.hardware.resolve()
    check_files(config)
    source, target = read_both(config, log_progress)
    precision = autocast_type(config.hardware.precision, device)
    encoder_key = config.spec.fingerprint(folder_sha256(config.spec.locate()), precision)
    name = fingerprint(config, encoder_key, source, target)
    output, cache = Path(config.output), Path(config.cache_dir) / "mining"
    if not config.overwrite:
        refuse_other_output(output, name)
    vectors, neighbours = (cache / kind / encoder_key for kind in ("vectors", "neighbours"))
    sides = VectorBlocks(source.texts, vectors), VectorBlocks(target.texts, vectors)
    remove_stale(vectors)
    encoder = LazyEncoder(lambda: config.spec.load_on(device, precision, config.hardware.forward_tokens(device)))
    encoded = encode_share(config, sides, encoder.encode, log_progress)
    wait_for_vectors(config, sides, log_progress)
    blocks = NeighbourBlocks(*sides, config.search, config.num_neighbours, neighbours)
    searched = search_share(config, blocks, log_progress)
    rates = {"encoded": encoded.rate, "searched": searched.rate}
    if missing := blocks.missing():
        shards = ", ".join(map(str, sorted({block % config.num_shards for block in missing})))
        log_progress(f"shard {config.shard} is done; still to search: shards {shards}. The last one writes {output}")
        return MiningResult(None, rates=rates)
    found = retrieve(*blocks.merged(), config.margin, config.retrieval)
    pairs = keep_from(config.threshold, found)
    write_pairs(output, format_pairs(pairs, source, target, line_numbers=config.line_numbers))
    sizes = {"candidates": len(found.score), "pairs": len(pairs.score)}
    metadata = {"fingerprint": name, "encoder_fingerprint": encoder_key, **describe(config, source, target), **sizes}
    write_json(metadata_path(output), metadata)
    return MiningResult(output, metadata, rates)


def check_files(config: MineConfig) -> None:
    """Look for the encoder, both files and a place for the output; every problem at once."""
    missing = {name: find_missing(getattr(config, name)) for name in ("source", "target")}
    errors = [MlkdError(replace(problem, where=name)) for name, problem in missing.items() if problem is not None]
    checks: list[Callable[[], Any]] = [
        config.spec.locate,
        lambda: check_writable(Path(config.output)),
        lambda: check_writable(Path(config.cache_dir) / "mining" / "vectors"),
    ]
    for check in checks:
        try:
            check()
        except MlkdError as error:
            errors.append(error)
    collect_problems(errors)


def read_both(config: MineConfig, log_progress: LogProgress) -> tuple[Sentences, Sentences]:
    """Both sides; the problems of both together."""
    sides, errors = [], []
    for path in (config.source, config.target):
        try:
            sides.append(read_sentences(path, config.on_bad_utf8))
            log_progress(sides[-1].describe())
        except MlkdError as error:
            errors.append(error)
    collect_problems(errors)
    return sides[0], sides[1]


def fingerprint(config: MineConfig, encoder_key: str, source: Sentences, target: Sentences) -> str:
    """Names everything the output depends on."""
    parts = [encoder_key, source.sha256, target.sha256, *map(str, described_settings(config).values())]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def described_settings(config: MineConfig) -> dict[str, Any]:
    """What decides the result, but files and encoder."""
    return {
        "num_neighbours": config.num_neighbours,
        "margin": config.margin.name,
        "retrieval": config.retrieval.name,
        "threshold": config.threshold,
        "line_numbers": config.line_numbers,
        "on_bad_utf8": config.on_bad_utf8.name,
    }


def keep_from(threshold: float | None, pairs: Candidates) -> Candidates:
    """The pairs with score >= threshold; all for None."""
    if threshold is None:
        return pairs
    # Rounded to what scores are: one that was read in an output and is given as threshold keeps its pair.
    kept = pairs.score >= torch.tensor(threshold, dtype=torch.float32)
    return Candidates(pairs.source[kept], pairs.target[kept], pairs.score[kept])


def describe(config: MineConfig, source: Sentences, target: Sentences) -> dict[str, Any]:
    """What a reader needs to repeat the mining."""
    return {
        "mlkd": __version__,
        "encoder": config.encoder,
        **described_settings(config),
        "source": describe_side(source),
        "target": describe_side(target),
    }


def summary(mined: MiningResult) -> str:
    """What a user is told at the end."""
    if mined.output is None:
        return ""
    metadata = mined.metadata
    lines = []
    for side in ("source", "target"):
        told = metadata[side]
        lines.append(f"{side:<10}{told['path']}: {told['lines']:,} lines, {told['sentences']:,} distinct sentences")
    least = "" if metadata["threshold"] is None else f" with a score >= {metadata['threshold']:g}"
    lines.append(f"{'pairs':<10}{metadata['pairs']:,}{least}, of {metadata['candidates']:,} candidates")
    rates = [f"{rate:,.0f} sentences/s {what}" for what, rate in mined.rates.items() if rate is not None]
    lines.append(f"{'speed':<10}{', '.join(rates) or 'vectors and neighbours were there'}")
    lines.append(f"{'output':<10}{mined.output}")
    return "\n".join(lines)
