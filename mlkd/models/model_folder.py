"""Metadata of a model folder: modules, pooling, dimension, prompt and hash; no weights are opened."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from mlkd.errors import fail
from mlkd.models.pooling import Pooling

POOLING_KEYS = {
    Pooling.cls: "pooling_mode_cls_token",
    Pooling.mean: "pooling_mode_mean_tokens",
    Pooling.max: "pooling_mode_max_tokens",
}


def read_modules(folder: Path) -> list[dict[str, Any]]:
    default = [{"path": "", "type": "Transformer"}]
    modules: list[dict[str, Any]] = read_json(folder / "modules.json", default)
    if not modules or not modules[0]["type"].endswith("Transformer"):
        raise fail("E402", f"{folder}/modules.json: the first module must be a Transformer")
    return modules


def read_pooling(path: Path) -> Pooling:
    config = read_json(path / "config.json", {})
    modes = {key for key, value in config.items() if key.startswith("pooling_mode_") and value is True}
    short = config.get("pooling_mode")  # the short form of sentence-transformers 6: a name, or a list of names
    if short is not None:
        names = [short] if isinstance(short, str) else list(short)
        short_keys = {pooling.value: key for pooling, key in POOLING_KEYS.items()}
        modes = {short_keys.get(name, name) for name in names}
    for pooling, key in POOLING_KEYS.items():
        if modes == {key}:
            return pooling
    raise fail("E402", f"{path}/config.json: pooling {sorted(modes)} is not supported; mean, cls and max are")


def default_prompt(folder: Path) -> str:
    """What sentence-transformers puts before each text of this model unless told otherwise; often nothing."""
    config = read_json(folder / "config_sentence_transformers.json", {})
    name = config.get("default_prompt_name")
    return "" if name is None else str((config.get("prompts") or {}).get(name) or "")


def check_layer(folder: Path, layer: int) -> None:
    """Raise E204 where the transformer has no hidden states of this number, E209 where a trained head follows it."""
    if any(module["type"].endswith("Dense") for module in read_modules(folder)):
        raise fail("E209", f"'{folder}' has a dense layer that was trained on the last layer", where="layer")
    config = transformer_config(folder)
    depth = next((int(config[k]) for k in ("num_hidden_layers", "n_layers", "num_layers") if k in config), None)
    if depth is not None and not -depth - 1 <= layer <= depth:
        raise fail("E204", f"must be in {-depth - 1}..{depth}, the layers of '{folder}' (got {layer})", where="layer")


def prompt_is_not_pooled(folder: Path, modules: list[dict[str, Any]]) -> bool:
    poolings = [folder / module.get("path", "") for module in modules if module["type"].endswith("Pooling")]
    return any(read_json(path / "config.json", {}).get("include_prompt") is False for path in poolings)


def folder_dimension(folder: Path) -> int:
    """Length of the vectors of a model folder, from its JSON files alone."""
    modules = read_modules(folder)
    for module in reversed(modules):
        if module["type"].endswith("Dense"):
            return int(read_json(folder / module["path"] / "config.json", {})["out_features"])
    return transformer_dimension(folder / modules[0].get("path", ""))


def transformer_config(folder: Path) -> dict[str, Any]:
    """config.json of a transformers folder, or of the transformer in a sentence-transformers folder."""
    config: dict[str, Any] = read_json(folder / read_modules(folder)[0].get("path", "") / "config.json", {})
    return config


def transformer_dimension(folder: Path) -> int:
    """Hidden size of a transformers folder, or of the transformer in a sentence-transformers folder."""
    config = transformer_config(folder)
    # DistilBERT and XLM write `dim` and `emb_dim` for what others call hidden_size.
    for key in ("hidden_size", "dim", "emb_dim", "d_model"):
        if key in config:
            return int(config[key])
    raise fail("E402", f"{folder}: config.json names no hidden_size")


def folder_sha256(folder: Path) -> str:
    """Hash over the names and contents of all files that decide the embeddings; the README does not."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.suffix in {".json", ".safetensors", ".txt", ".model"}):
        digest.update(str(path.relative_to(folder)).encode())
        with path.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def read_json(path: Path, default: Any) -> Any:
    if not path.is_file():
        return default
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise fail("E402", f"{path}: not JSON ({error})") from error
