"""Language adapters: a frozen transformer, and small trained matrices beside its linear layers.

One run trains one adapter, so a student of many languages is as many runs over the same frozen backbone, each aligned
with the same teacher; a new language changes no other. The student's folder holds the merged weights, which load
anywhere, and `adapter/` the adapter alone, which `peft` puts on the backbone it was trained on.

Source: modules per language in one aligned space as in Huang et al. 2025, "Modular Sentence Encoders: Separating
Language Specialization from Cross-Lingual Alignment" (their alignment adapters on frozen encoders); the adapter is LoRA
(Hu et al. 2022).
"""

from __future__ import annotations

import importlib.util
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from mlkd.errors import MlkdError, did_you_mean, fail, out_of_range
from mlkd.models.hub import name_anywhere

log = logging.getLogger("mlkd")
ADAPTER = "default"
ADAPTER_FOLDER = "adapter"


@dataclass(kw_only=True, slots=True)
class Adapters:
    """Which adapter a frozen student learns through.

    Args:
        enabled: freeze the student and train an adapter; a `dense_dim` layer is fresh and trains beside it.
        rank: of the two matrices whose product is added to a linear layer's.
        alpha: the product is scaled by alpha / rank.
        dropout: of the adapter's input while training.
        modules: names of the linear layers that get one, e.g. [query, value]; empty for all of the transformer.
    """

    enabled: bool = False
    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    modules: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        problems = [
            *out_of_range(self, "rank", ge=1),
            *out_of_range(self, "alpha", gt=0),
            *out_of_range(self, "dropout", ge=0, lt=1),
        ]
        if problems:
            raise MlkdError(problems)

    def check_installed(self) -> None:
        """Raise E502 where peft is needed and not there."""
        if self.enabled and importlib.util.find_spec("peft") is None:
            raise fail(
                "E502", "student.adapters.enabled=true needs the package peft", remedy='pip install "mlkd[adapters]"'
            )

    def attach(self, backbone: Any, model: str) -> None:
        """Put an adapter that changes nothing yet on the linear layers of `backbone`, and freeze all else, in place.

        Args:
            backbone: a transformer.
            model: its name, for the record.

        Raises:
            MlkdError: E204 for a module that the transformer does not have, E502 without peft.
        """
        self.check_installed()
        from peft import LoraConfig, inject_adapter_in_model
        from torch import nn

        linear = {name.rsplit(".", 1)[-1] for name, module in backbone.named_modules() if isinstance(module, nn.Linear)}
        unknown = [name for name in self.modules if name not in linear]
        if unknown:
            raise fail(
                "E204",
                f"'{model}' has no linear layer '{unknown[0]}'; it has {', '.join(sorted(linear))}."
                f"{did_you_mean(unknown[0], linear)}",
                where="student.adapters.modules",
            )
        config = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=sorted(self.modules or linear),
            task_type="FEATURE_EXTRACTION",
            base_model_name_or_path=name_anywhere(model),
        )
        inject_adapter_in_model(config, backbone, adapter_name=ADAPTER)
        trained = sum(p.numel() for p in backbone.parameters() if p.requires_grad)
        log.info(
            "adapter: %s of %s parameters are trained",
            f"{trained:,}",
            f"{sum(p.numel() for p in backbone.parameters()):,}",
        )


def has_adapter(backbone: Any) -> bool:
    """Whether `Adapters.attach` was called on `backbone`."""
    return ADAPTER in getattr(backbone, "peft_config", {})


def merged_state(backbone: Any) -> dict[str, Tensor]:
    """The weights of `backbone` under their names before `attach`, the adapter added to what it stands beside."""
    state: dict[str, Tensor] = {}
    deltas = {f"{n}.weight": m.get_delta_weight(ADAPTER) for n, m in backbone.named_modules() if hasattr(m, "lora_A")}
    for name, weight in backbone.state_dict().items():
        if ".lora_" in name:
            continue
        plain = name.replace(".base_layer.", ".")
        state[plain] = weight + deltas[plain].to(weight.dtype) if plain in deltas else weight
    return state


def save_adapter(backbone: Any, folder: Path) -> None:
    """Write the adapter of `backbone` as a peft folder."""
    from peft import get_peft_model_state_dict

    folder.mkdir(parents=True)
    # False: embeddings are frozen, so that they are the base's, trimmed or not.
    state = get_peft_model_state_dict(backbone, adapter_name=ADAPTER, save_embedding_layers=False)
    save_file(
        {f"base_model.model.{name}": weight.detach().cpu().contiguous() for name, weight in state.items()},
        folder / "adapter_model.safetensors",
        metadata={"format": "pt"},
    )
    backbone.peft_config[ADAPTER].save_pretrained(folder)
