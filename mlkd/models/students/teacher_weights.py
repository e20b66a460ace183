"""Initialization from the teacher: fresh students start at its weights wherever shapes allow.

Shapes: V pieces of the student, W of the teacher, H hidden dimensions, L positions.
"""

from __future__ import annotations

import logging
import re
from typing import Any

import torch
from torch import Tensor

from mlkd.errors import fail
from mlkd.models.students.vocabulary_alignment import spelled_embeddings

log = logging.getLogger("mlkd")
LAYER = re.compile(r"encoder\.layer\.(\d+)\.(.+)")
TOKENS = "embeddings.word_embeddings.weight"
POSITIONS = "embeddings.position_embeddings.weight"
SEGMENTS = "embeddings.token_type_embeddings.weight"
TYPES = frozenset({"bert", "roberta", "xlm-roberta", "camembert", "electra"})


@torch.no_grad()
def start_at_teacher(backbone: Any, tokenizer: Any, teacher: Any, teacher_tokenizer: Any) -> float:
    """Copy what fits of `teacher` into `backbone`, in place, and log how much that was.

    Layer i of n takes layer floor(i m / n) of the teacher's m. A weight fits where name and shape are the same, and for
    attention the number of heads too. Pieces take the teacher's embedding of their spelling, all of them its rows where
    both have one vocabulary; positions and segments take its first rows.

    Args:
        backbone: a BertModel.
        tokenizer: of `backbone`.
        teacher: a BERT-like transformer.
        teacher_tokenizer: its own.

    Returns:
        The share of `backbone`'s parameters that were copied, in (0, 1].

    Raises:
        MlkdError: E407 for a teacher of another kind, or one of which nothing fits.
    """
    kind = teacher.config.model_type
    if kind not in TYPES:
        raise fail(
            "E407",
            f"a student can start at a teacher of type {', '.join(sorted(TYPES))} (got '{kind}')",
            where="student.from_teacher",
        )
    theirs = teacher.state_dict()
    copied: int = 0
    for name, weight in backbone.state_dict().items():
        source = _source(name, backbone, teacher)
        if name == TOKENS:
            copied += _copy_tokens(weight, tokenizer, theirs[TOKENS], teacher_tokenizer)
        elif name in (POSITIONS, SEGMENTS) and name in theirs:
            copied += _copy_rows(weight, theirs[name][_first_position(teacher) if name == POSITIONS else 0 :])
        elif source in theirs and theirs[source].shape == weight.shape:
            weight.copy_(theirs[source])
            copied += weight.numel()
    total = sum(int(p.numel()) for p in backbone.parameters())
    if not copied:
        raise fail(
            "E407",
            f"nothing of the teacher fits the student: hidden size {teacher.config.hidden_size} there, "
            f"{backbone.config.hidden_size} here",
            where="student.from_teacher",
            remedy=f"set student.hidden_size={teacher.config.hidden_size} "
            f"student.num_attention_heads={teacher.config.num_attention_heads} "
            f"student.intermediate_size={teacher.config.intermediate_size}",
        )
    log.info("%.1f %% of the student's %s parameters start at the teacher's", 100 * copied / total, f"{total:,}")
    return copied / total


def _source(name: str, backbone: Any, teacher: Any) -> str | None:
    """The teacher's name for a weight of the student's; None where it has none."""
    match = LAYER.fullmatch(name)
    if match is None:
        return name
    depth, depth_of_teacher = backbone.config.num_hidden_layers, teacher.config.num_hidden_layers
    same_heads = backbone.config.num_attention_heads == teacher.config.num_attention_heads
    # The same matrices cut into other heads compute something else; the norm behind them does not care.
    if match[2].startswith("attention.") and "LayerNorm" not in match[2] and not same_heads:
        return None
    return f"encoder.layer.{int(match[1]) * depth_of_teacher // depth}.{match[2]}"


def _first_position(teacher: Any) -> int:
    """RoBERTa's positions begin behind its padding id."""
    padding = teacher.embeddings.position_embeddings.padding_idx
    return 0 if padding is None else int(padding) + 1


def _copy_rows(weight: Tensor, source: Tensor) -> int:
    if weight.shape[1] != source.shape[1]:
        return 0
    rows = min(len(weight), len(source))
    weight[:rows] = source[:rows]
    return rows * weight.shape[1]


def _copy_tokens(weight_VH: Tensor, tokenizer: Any, teacher_WH: Tensor, teacher_tokenizer: Any) -> int:
    if weight_VH.shape[1] != teacher_WH.shape[1]:
        return 0
    if tokenizer.get_vocab() == teacher_tokenizer.get_vocab():
        return _copy_rows(weight_VH, teacher_WH)
    spelled_VH, known_V = spelled_embeddings(tokenizer, teacher_tokenizer, teacher_WH)
    weight_VH[known_V] = spelled_VH[known_V]
    return int(known_V.sum()) * weight_VH.shape[1]
