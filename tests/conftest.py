"""Model folders of a few thousand weights, and text to put through them."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mlkd.models.pooling import Pooling
from mlkd.models.sentence_encoder import Dense, SentenceEncoder, TextSettings
from mlkd.models.serialization import load_transformer

# A shell without job control starts background commands with SIGINT ignored, and children inherit that: the tests of
# Ctrl-C would then test nothing.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

HIDDEN = 16
MAX_LENGTH = 24
SPECIAL_WORDPIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def make_sentences(count: int, seed: int) -> list[str]:
    """Distinct sentences of 1 to 20 words from a small lexicon, some capitals, digits, umlauts and Cyrillic."""
    words_rng = random.Random(0)
    onsets, vowels = ["b", "kr", "l", "sch", "t", "w", "f", "g", "pl", "д", "ж", "м"], ["a", "ei", "ü", "o", "i", "у"]
    parts = [onsets, vowels, ["", "n", "st", "r"]] * 3
    words = ["".join(words_rng.choice(part) for part in parts[: words_rng.choice([2, 3, 5, 9])]) for _ in range(400)]
    rng = random.Random(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        sentence = " ".join(rng.choices(words, k=rng.choice([1, 2, 4, 7, 12, 20])))
        found[sentence.capitalize() + rng.choice(["", ".", "!", " 42", ", 7."])] = None
    return list(found)


@pytest.fixture(scope="session")
def sentences() -> list[str]:
    """Sentences of uneven length, in no order."""
    return make_sentences(40, seed=1)


@pytest.fixture(scope="session")
def corpus_texts() -> list[str]:
    """Enough text to train a small vocabulary on; holds none of `sentences`."""
    held_out = set(make_sentences(40, seed=1))
    return [s for s in make_sentences(600, seed=2) if s not in held_out]


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain transformers folder: BERT of two layers with a lower-casing WordPiece tokenizer."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    letters = sorted(set("".join(make_sentences(600, seed=2)).lower()) - {" "})
    pieces = [*SPECIAL_WORDPIECES, *letters, *(f"##{letter}" for letter in letters), "schei", "##un", "кр"]
    ids = {piece: i for i, piece in enumerate(pieces)}
    backend = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=False)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])],
    )
    names = dict(
        zip(["pad_token", "unk_token", "cls_token", "sep_token", "mask_token"], SPECIAL_WORDPIECES, strict=True)
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=MAX_LENGTH, **names)
    torch.manual_seed(7)
    backbone = BertModel(
        BertConfig(
            vocab_size=len(pieces),
            hidden_size=HIDDEN,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=MAX_LENGTH,
            hidden_dropout_prob=0.1,
            attention_probs_dropout_prob=0.1,
            initializer_range=0.3,  # so that sentences differ by more than rounding
        )
    )
    folder = tmp_path_factory.mktemp("models") / "tiny-bert"
    backbone.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def make_encoder(tiny_bert: Path) -> Callable[..., SentenceEncoder]:
    """The tiny BERT under the heads that are asked for; a new one at each call."""

    def make(
        pooling: Pooling = Pooling.mean,
        *,
        dense: dict[str, Any] | None = None,
        normalize: bool = False,
        lower_case: bool = False,
        max_length: int = MAX_LENGTH,
    ) -> SentenceEncoder:
        backbone, tokenizer = load_transformer(tiny_bert)
        torch.manual_seed(3)
        return SentenceEncoder(
            backbone,
            tokenizer,
            pooling=pooling,
            denses=[] if dense is None else [Dense(HIDDEN, **dense)],
            normalize=normalize,
            text=TextSettings(max_length=max_length, lower_case=lower_case),
        ).eval()

    return make
