"""Vocabulary training: SentencePiece Unigram on the run's own corpus, as a fast tokenizer.

SentencePiece trains (Kudo 2018); the pieces then go into a `tokenizers` Unigram model with the same normaliser, and
both must segment a sample of the corpus alike, or the vocabulary is refused.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlkd.errors import MlkdError, fail, out_of_range
from mlkd.runtime.atomic_files import remove_stale, write_bytes
from mlkd.runtime.hashing import fingerprint

SPECIAL_TOKENS = ("<pad>", "<s>", "</s>", "<unk>", "<mask>")
CHECKED_TEXTS = 500
MIN_SIZE = 300
MAX_UNKNOWN_SHARE = 0.01
NEVER_CHOSEN = -1000.0
TRAINER_VERSION = 2  # raised where the same settings give another vocabulary


@dataclass(kw_only=True, slots=True)
class Vocabulary:
    """How a student's own vocabulary is trained.

    Args:
        size: pieces, special tokens included; at least 300.
        character_coverage: share of the corpus' characters that get a piece of their own, in (0, 1]; 0.9995 is
            SentencePiece's advice for rich scripts.
        fold_case: lower-case texts before segmentation (rule nmt_nfkc_cf instead of nmt_nfkc); helps small corpora.
        max_sentences: trained on at most this many distinct texts, evenly spaced over the corpus.
    """

    size: int = 32000
    character_coverage: float = 0.9995
    fold_case: bool = False
    max_sentences: int = 2_000_000

    def __post_init__(self) -> None:
        problems = [
            *out_of_range(self, "size", ge=MIN_SIZE),
            *out_of_range(self, "character_coverage", gt=0, le=1),
            *out_of_range(self, "max_sentences", ge=1),
        ]
        if problems:
            raise MlkdError(problems)

    def open_or_train(self, cache_dir: Path, texts: Iterable[str], *, max_length: int) -> Any:
        """The vocabulary of `texts` from `cache_dir`, trained if it is not there, as a transformers fast tokenizer.

        Args:
            cache_dir: shared by runs; the file is named by texts and settings.
            texts: the corpus, both sides; order does not matter.
            max_length: recorded in the tokenizer as the model's maximum.

        Raises:
            MlkdError: E405 where the corpus cannot fill the vocabulary, naming the largest possible size.
        """
        distinct = sorted(set(texts))
        sample = distinct[:: max(1, len(distinct) // self.max_sentences)][: self.max_sentences]
        key = hashlib.sha256(f"{TRAINER_VERSION} {self} {fingerprint(sample)}".encode()).hexdigest()[:24]
        path = cache_dir / "vocabularies" / f"{key}.model"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            remove_stale(path.parent)
            write_bytes(path, self._train_sentencepiece(sample))
        proto = path.read_bytes()
        tokenizer = to_fast_tokenizer(proto, max_length=max_length)
        check_same_segmentation(proto, tokenizer, sample[:: max(1, len(sample) // CHECKED_TEXTS)])
        return tokenizer

    def _train_sentencepiece(self, sample: Sequence[str]) -> bytes:
        import sentencepiece

        stream = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(sample),
                model_writer=stream,
                model_type="unigram",
                vocab_size=self.size,
                character_coverage=self.character_coverage,
                normalization_rule_name="nmt_nfkc_cf" if self.fold_case else "nmt_nfkc",
                pad_id=0,
                bos_id=1,
                eos_id=2,
                unk_id=3,
                pad_piece="<pad>",
                control_symbols=["<mask>"],
                # Else a control token spelled out in a text would be cheaper than its unknown characters.
                required_chars="".join(sorted(set("".join(SPECIAL_TOKENS)))),
                max_sentence_length=1_000_000,
                # More threads change the order of floating-point sums and so, rarely, the vocabulary.
                num_threads=1,
                minloglevel=2,
            )
        except RuntimeError as error:
            raise self._size_error(str(error)) from error
        return stream.getvalue()

    def _size_error(self, message: str) -> MlkdError:
        """What SentencePiece's refusal `message` means for the settings."""
        where = "student.vocabulary.size"
        if most := re.search(r"<= (\d+)", message):
            return fail(
                "E405",
                f"vocabulary size {self.size} is more than this corpus can fill: at most {most[1]}",
                where=where,
                remedy=f"set student.vocabulary.size={most[1]}, or train on more text"
                if int(most[1]) >= MIN_SIZE
                else "train on more text",
            )
        if least := re.search(r"smaller than required_chars\. \d+ vs (\d+)", message):
            return fail(
                "E405",
                f"vocabulary size {self.size} is less than this corpus has characters: at least {least[1]}",
                where=where,
                remedy=f"set student.vocabulary.size={least[1]} or more, or lower its character_coverage",
            )
        return fail("E405", f"no vocabulary of size {self.size} can be trained on this corpus: {message}", where=where)


def to_fast_tokenizer(proto: bytes, *, max_length: int) -> Any:
    """A `PreTrainedTokenizerFast` with the pieces, scores and normaliser of a serialized SentencePiece model."""
    import tokenizers
    from sentencepiece import sentencepiece_model_pb2
    from tokenizers import decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    model = sentencepiece_model_pb2.ModelProto.FromString(proto)
    # SentencePiece never matches control pieces in text; Unigram would, at their score of 0: price them out.
    pieces = [(p.piece, NEVER_CHOSEN if p.piece in SPECIAL_TOKENS else p.score) for p in model.pieces]
    unk_id = [p.piece for p in model.pieces].index("<unk>")
    tokenizer = tokenizers.Tokenizer(models.Unigram(pieces, unk_id=unk_id, byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Precompiled(model.normalizer_spec.precompiled_charsmap),
            normalizers.Replace(tokenizers.Regex(" {2,}"), " "),
            normalizers.Strip(),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    bos, eos = "<s>", "</s>"
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A {eos}",
        pair=f"{bos} $A {eos} $B {eos}",
        special_tokens=[(bos, tokenizer.token_to_id(bos)), (eos, tokenizer.token_to_id(eos))],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=max_length,
        pad_token="<pad>",
        bos_token=bos,
        eos_token=eos,
        cls_token=bos,
        sep_token=eos,
        unk_token="<unk>",
        mask_token="<mask>",
    )


def check_same_segmentation(proto: bytes, tokenizer: Any, texts: Sequence[str]) -> None:
    """Raise E405 unless the fast tokenizer segments `texts` as SentencePiece does and knows nearly all of them."""
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_proto=proto)
    if len(tokenizer) != processor.get_piece_size():
        raise fail("E405", f"conversion kept {len(tokenizer):,} of {processor.get_piece_size():,} pieces")
    expected = processor.encode(list(texts))
    actual = tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
    # Equal scores may be segmented either way; more than a rare tie is a wrong conversion.
    different = sum(e != a for e, a in zip(expected, actual, strict=True))
    if different > 0.01 * len(texts) + 1:
        raise fail("E405", f"conversion changed the segmentation of {different} of {len(texts)} texts")
    unknown = sum(ids.count(tokenizer.unk_token_id) for ids in actual)
    total = sum(map(len, actual))
    if unknown > MAX_UNKNOWN_SHARE * total:
        raise fail("E405", f"{unknown:,} of {total:,} tokens of the corpus are unknown to its own vocabulary")
