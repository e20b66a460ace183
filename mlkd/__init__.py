"""mlkd: an experiment runner for multilingual knowledge distillation of sentence embeddings.

>>> import mlkd
>>> config = mlkd.compose("+experiment=xlmr_en_de", "optim.lr=1e-5", "data.languages=[de]")
>>> config.optim.lr
1e-05
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlkd.version import __version__

if TYPE_CHECKING:
    from mlkd.api import compose, evaluate, load_encoder, mine, train

__all__ = ["__version__", "compose", "evaluate", "load_encoder", "mine", "train"]


def __getattr__(name: str) -> Any:
    """What is imported on first use: torch, transformers and Hydra take seconds."""
    if name not in __all__:
        raise AttributeError(f"module 'mlkd' has no attribute '{name}'")
    from mlkd import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return __all__
