"""Layer selection: some of a pretrained transformer's layers; and its dropout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from mlkd.errors import Problem, fail

# Where a backbone keeps its list of layers; the order of these lists is the order of computation.
LAYER_LISTS = {
    "bert": "encoder",
    "roberta": "encoder",
    "xlm-roberta": "encoder",
    "camembert": "encoder",
    "electra": "encoder",
    "mpnet": "encoder",
    "distilbert": "transformer",
}


def layer_problems(layers: Sequence[int]) -> list[Problem]:
    """E204 unless `layers` names rising layer numbers from 0."""
    if layers and min(layers) >= 0 and list(layers) == sorted(set(layers)):
        return []
    return [Problem("E204", f"must name rising layer numbers from 0 (got {list(layers)})", "keep_layers")]


def check_layers(config: Mapping[str, Any], layers: Sequence[int], model: str) -> None:
    """Raise where the model of a config.json has no such layers.

    Raises:
        MlkdError: E407 for a kind of model whose layers cannot be chosen, E204 for a number it does not have.
    """
    if config.get("model_type") not in LAYER_LISTS:
        raise fail(
            "E407",
            f"layers can be chosen in models of type {', '.join(LAYER_LISTS)}; "
            f"'{model}' is of type '{config.get('model_type')}'",
            where="student.keep_layers",
            remedy="set student.keep_layers=null, or choose another model",
        )
    depth = config.get("num_hidden_layers", config.get("n_layers"))
    if depth is not None and max(layers) >= depth:
        raise fail(
            "E204", f"must be below {depth}, the layers of '{model}' (got {list(layers)})", where="student.keep_layers"
        )


def select_layers(backbone: Any, layers: Sequence[int]) -> None:
    """Drop all but `layers` (numbers from 0, rising) of a transformer of a type in LAYER_LISTS, in place."""
    stack = getattr(backbone, LAYER_LISTS[backbone.config.model_type])
    stack.layer = nn.ModuleList([stack.layer[i] for i in layers])
    backbone.config.num_hidden_layers = len(layers)


def set_dropout(backbone: nn.Module, probability: float) -> None:
    """Set every dropout of a pretrained transformer, in its layers and in what its attention reads at run time."""
    for module in backbone.modules():
        if isinstance(module, nn.Dropout):
            module.p = probability
        for name in ("dropout_prob", "attention_dropout"):
            if isinstance(getattr(module, name, None), float | int):
                setattr(module, name, probability)
