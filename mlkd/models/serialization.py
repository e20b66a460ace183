"""Serialization: read and write sentence-transformers model folders, read plain transformers ones.

Written folders load with SentenceTransformer(path) of versions 5.1 and 6.2, and their root with AutoModel. They use the
legacy module types and the long pooling config because a folder in version 6's own style does not load in 5.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from mlkd.errors import fail
from mlkd.models.adapters import ADAPTER_FOLDER, has_adapter, merged_state, save_adapter
from mlkd.models.hidden_states import UpToLayer
from mlkd.models.hub import locate_model
from mlkd.models.model_folder import (
    POOLING_KEYS,
    check_layer,
    default_prompt,
    prompt_is_not_pooled,
    read_json,
    read_modules,
    read_pooling,
)
from mlkd.models.pooling import Pooling
from mlkd.models.sentence_encoder import Dense, SentenceEncoder, TextSettings
from mlkd.runtime.atomic_files import replaced_folder

DEFAULT_MAX_LENGTH = 512


def load_encoder(
    name: str,
    *,
    pooling: Pooling | None = None,
    max_length: int | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    layer: int | None = None,
    prompt: str | None = None,
    dtype: torch.dtype | None = None,
) -> SentenceEncoder:
    """Load a sentence-transformers folder or any transformers encoder.

    Args:
        name: see `locate_model`.
        pooling: overrides the folder's; a plain transformers folder without one is pooled by mean.
        max_length: in tokens; overrides the folder's.
        revision: of a hub id.
        trust_remote_code: run Python code that the model folder brings; off unless a user says so.
        layer: pool the hidden states after this layer of a plain transformer: 0 is the embeddings, -1 the last.
        prompt: put before each text; None takes the folder's default prompt, as sentence-transformers does.
        dtype: of the transformer's weights and passes; pooling and dense layers stay in float32. None is float32.

    Raises:
        MlkdError: E204 no such layer, E401 to E406 for folders that cannot be loaded faithfully.
    """
    folder = locate_model(name, revision=revision)
    modules = read_modules(folder)
    backbone_folder = folder / modules[0].get("path", "")
    backbone, tokenizer = load_transformer(
        backbone_folder, trust_remote_code=trust_remote_code, dtype=dtype or torch.float32
    )
    settings = read_json(backbone_folder / "sentence_bert_config.json", {})
    found_pooling, denses, normalize = _read_heads(folder, modules[1:])
    text_prompt = default_prompt(folder) if prompt is None else prompt
    if text_prompt and prompt_is_not_pooled(folder, modules):
        raise fail("E402", f"{folder}: pooling without the tokens of the prompt (include_prompt) is not supported")
    if layer is not None:
        check_layer(folder, layer)
    return SentenceEncoder(
        backbone if layer is None else UpToLayer(backbone, layer),
        tokenizer,
        pooling=pooling or found_pooling or Pooling.mean,
        denses=denses,
        normalize=normalize,
        text=TextSettings(
            max_length=max_length or settings.get("max_seq_length") or model_max_length(backbone, tokenizer),
            lower_case=bool(settings.get("do_lower_case", False)),
            prompt=text_prompt,
        ),
    ).eval()


def load_tokenizer(name: str, *, revision: str | None = None, trust_remote_code: bool = False) -> Any:
    """The tokenizer of a model, whose weights stay closed."""
    from transformers import AutoTokenizer

    folder = locate_model(name, revision=revision)
    backbone_folder = folder / read_modules(folder)[0].get("path", "")
    try:
        return AutoTokenizer.from_pretrained(backbone_folder, use_fast=True, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise fail("E402", f"the tokenizer of '{backbone_folder}' does not load: {error}") from error


def load_transformer(
    folder: Path, *, trust_remote_code: bool = False, dtype: torch.dtype = torch.float32
) -> tuple[Any, Any]:
    """The transformer backbone, without a pooler head, and its fast tokenizer; checked against each other."""
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    raw = read_json(folder / "config.json", {})
    if "auto_map" in raw and not trust_remote_code:
        raise fail(
            "E402",
            f"'{folder}' brings Python code of its own (auto_map in config.json), which is not run",
            remedy="set trust_remote_code=true if you trust its authors",
        )
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
        # Dropout at load time is the student's choice; a pooler would be an untrained or unused head.
        extra = {"add_pooling_layer": False} if config.model_type in _WITH_POOLER else {}
        backbone, loading = AutoModel.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            output_loading_info=True,
            trust_remote_code=trust_remote_code,
            **extra,
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, use_fast=True, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise fail("E402", f"'{folder}' does not load: {error}") from error
    # transformers fills missing weights with random numbers; only a pooler's, which is never used, may be missing.
    if missing := sorted(key for key in loading["missing_keys"] if not key.startswith("pooler.")):
        raise fail("E402", f"'{folder}': model.safetensors lacks {len(missing)} weights, e.g. {missing[0]}")
    rows = backbone.get_input_embeddings().weight.shape[0]
    # Without a vocabulary file that it can convert, transformers makes a tokenizer of control tokens alone.
    if 2 * len(tokenizer) < rows:
        raise fail(
            "E406",
            f"'{folder}': tokenizer has {len(tokenizer):,} ids, embedding has {rows:,} rows",
            remedy="the folder needs tokenizer.json, or the vocabulary its tokenizer was made from",
        )
    if len(tokenizer) > rows:
        raise fail("E406", f"'{folder}': tokenizer has {len(tokenizer):,} ids, embedding has {rows:,} rows")
    return backbone, tokenizer


_WITH_POOLER = frozenset({"bert", "roberta", "xlm-roberta", "camembert", "xlm-roberta-xl", "ernie", "data2vec-text"})


def model_max_length(backbone: Any, tokenizer: Any) -> int:
    """The longest input in tokens that positions allow."""
    positions = getattr(backbone.config, "max_position_embeddings", None) or DEFAULT_MAX_LENGTH
    # RoBERTa counts positions from pad_id + 1, so two of its rows are never used.
    if backbone.config.model_type in {"roberta", "xlm-roberta", "camembert"}:
        positions -= (backbone.config.pad_token_id or 0) + 1
    return int(min(positions, tokenizer.model_max_length))


def _read_heads(folder: Path, modules: list[dict[str, Any]]) -> tuple[Pooling | None, list[Dense], bool]:
    pooling: Pooling | None = None
    denses: list[Dense] = []
    normalize = False
    for module in modules:
        kind = module["type"].rsplit(".", 1)[-1]
        path = folder / module.get("path", "")
        if kind == "Pooling":
            pooling = read_pooling(path)
        elif kind == "Dense":
            denses.append(_read_dense(path))
        elif kind == "Normalize":
            normalize = True
        elif kind != "Dropout":
            raise fail("E402", f"{folder}/modules.json: module type '{module['type']}' is not supported")
        if normalize and kind == "Dense":
            raise fail("E402", f"{folder}/modules.json: a Dense after Normalize is not supported")
    return pooling, denses, normalize


def _read_dense(path: Path) -> Dense:
    config = read_json(path / "config.json", None)
    weights = path / "model.safetensors"
    if config is None or not weights.is_file():
        raise fail("E402", f"{path}: a Dense module needs config.json and model.safetensors")
    activation = str(config.get("activation_function", "torch.nn.modules.linear.Identity")).rsplit(".", 1)[-1]
    try:
        dense = Dense(config["in_features"], config["out_features"], bias=config["bias"], activation=activation)
    except KeyError as error:
        raise fail("E402", f"{path}/config.json: {error} is missing or no supported activation") from error
    try:
        dense.load_state_dict(load_file(weights), strict=True)
    except (RuntimeError, SafetensorError) as error:
        raise fail("E402", f"{weights} does not load: {error}") from error
    return dense


def save_encoder(encoder: SentenceEncoder, folder: Path, *, card: str = "") -> None:
    """Write `encoder` as a sentence-transformers folder; an existing folder is replaced in one step.

    Args:
        encoder: its weights are saved in fp32.
        folder: appears complete or not at all.
        card: text of the model card README.md.
    """
    with replaced_folder(folder) as temporary:
        if has_adapter(encoder.backbone):
            encoder.backbone.save_pretrained(temporary, state_dict=merged_state(encoder.backbone))  # type: ignore[operator]
            save_adapter(encoder.backbone, temporary / ADAPTER_FOLDER)
        else:
            encoder.backbone.save_pretrained(temporary, safe_serialization=True)  # type: ignore[operator]
        encoder.tokenizer.save_pretrained(temporary)
        _mend_tokenizer_config(temporary / "tokenizer_config.json")
        modules: list[tuple[str, str]] = [("", "Transformer")]
        for kind, module in _heads(encoder):
            path = f"{len(modules)}_{kind}"
            modules.append((path, kind))
            (temporary / path).mkdir()
            _write_head(temporary / path, module)
        _write_json(temporary / "modules.json", _modules_json(modules))
        text = {"max_seq_length": encoder.text.max_length, "do_lower_case": encoder.text.lower_case}
        _write_json(temporary / "sentence_bert_config.json", text)
        _write_json(
            temporary / "config_sentence_transformers.json", _prompts_json(encoder) | {"similarity_fn_name": "cosine"}
        )
        (temporary / "README.md").write_text(card, encoding="utf-8")
        for file in temporary.rglob("*.safetensors"):
            file.chmod(0o644)  # safetensors creates files that only their owner can read


def _prompts_json(encoder: SentenceEncoder) -> dict[str, Any]:
    prompt = encoder.text.prompt
    return {"prompts": {"default": prompt}, "default_prompt_name": "default"} if prompt else {"prompts": {}}


def _heads(encoder: SentenceEncoder) -> Iterator[tuple[str, Any]]:
    yield "Pooling", (encoder.pooling, int(encoder.backbone.config.hidden_size))  # type: ignore[union-attr, arg-type]
    for dense in encoder.denses:
        yield "Dense", dense
    if encoder.normalize:
        yield "Normalize", None


def _modules_json(modules: list[tuple[str, str]]) -> list[dict[str, Any]]:
    return [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(modules)
    ]


def _write_head(path: Path, module: Any) -> None:
    if isinstance(module, Dense):
        linear = module.linear
        activation = type(module.activation)
        _write_json(
            path / "config.json",
            {
                "in_features": linear.in_features,
                "out_features": linear.out_features,
                "bias": linear.bias is not None,
                "activation_function": f"{activation.__module__}.{activation.__name__}",
            },
        )
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
        save_file(state, path / "model.safetensors", metadata={"format": "pt"})
    elif module is not None:
        pooling, dimension = module
        modes = {key: mode is pooling for mode, key in POOLING_KEYS.items()}
        _write_json(path / "config.json", {"word_embedding_dimension": dimension, **modes})


def _mend_tokenizer_config(path: Path) -> None:
    """Undo two habits of transformers 5 that stop older readers: its new class name, and a list of extra tokens."""
    config = read_json(path, {})
    if isinstance(config.get("extra_special_tokens"), list):
        config.pop("extra_special_tokens")
    if config.get("tokenizer_class") == "TokenizersBackend":
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
    _write_json(path, config)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
