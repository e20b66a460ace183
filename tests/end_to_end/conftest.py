"""A run that takes seconds: a teacher of one layer, two languages of toy sentences, and evaluation files for them."""

from __future__ import annotations

import json
import logging
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from mlkd.cli.main import quiet_libraries, run
from mlkd.config.composition import build_config, compose_config
from mlkd.config.train_schema import TrainConfig
from mlkd.models.pooling import Pooling
from mlkd.models.sentence_encoder import SentenceEncoder, TextSettings
from mlkd.models.serialization import save_encoder
from mlkd.training.run import train

SUBJECTS = {
    "the cat": ("die katze", "el gato"),
    "a dog": ("ein hund", "un perro"),
    "my aunt": ("meine tante", "mi tia"),
}
VERBS = {"sees": ("sieht", "ve"), "buys": ("kauft", "compra"), "loves": ("liebt", "ama"), "paints": ("malt", "pinta")}
OBJECTS = {
    "the moon": ("den mond", "la luna"),
    "five trees": ("fuenf baeume", "cinco arboles"),
    "red wine": ("roten wein", "vino tinto"),
    "the old house": ("das alte haus", "la casa vieja"),
    "some bread": ("etwas brot", "algo de pan"),
    "water": ("wasser", "agua"),
}
LANGUAGES = ("de", "es")
HELD_OUT = 7  # every so many sentences one is for evaluation


def sentences() -> list[tuple[str, ...]]:
    """All (English, German, Spanish) sentences, in a fixed order that mixes them."""
    rows = []
    for parts in product(SUBJECTS.items(), VERBS.items(), OBJECTS.items()):
        english = " ".join(key for key, _ in parts)
        rows.append((english, *(" ".join(value[i] for _, value in parts) for i in range(len(LANGUAGES)))))
    return [rows[(31 * n) % len(rows)] for n in range(len(rows))]


def word_tokenizer(words: Sequence[str]) -> Any:
    """A fast tokenizer that knows each word."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    pieces = ["<pad>", "<s>", "</s>", "<unk>", *sorted(set(words))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(pieces)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=32, pad_token="<pad>", unk_token="<unk>", bos_token="<s>",
        eos_token="</s>",
    )  # fmt: skip


def make_encoder(*, hidden: int, normalize: bool, seed: int) -> SentenceEncoder:
    """A BERT of one layer with weights large enough for its sentences to differ."""
    from transformers import BertConfig, BertModel

    tokenizer = word_tokenizer([word for row in sentences() for text in row for word in text.split()])
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(tokenizer), pad_token_id=0, hidden_size=hidden, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=2 * hidden, max_position_embeddings=32, type_vocab_size=1, initializer_range=0.3,
    )  # fmt: skip
    backbone = BertModel(config, add_pooling_layer=False)
    text = TextSettings(max_length=32)
    return SentenceEncoder(backbone, tokenizer, pooling=Pooling.mean, normalize=normalize, text=text).eval()


@dataclass(frozen=True)
class Toy:
    """Files of a small experiment; `values` and `arguments` make a command of them."""

    root: Path
    teacher: Path
    is_scored: bool = True

    @property
    def unscored(self) -> Toy:
        """The same experiment without tasks."""
        return replace(self, is_scored=False)

    @property
    def overrides(self) -> list[str]:
        """What every small run has in common, but where it goes."""
        scored = [
            "task=[tatoeba_file]", f"task.tatoeba_file.path='{self.root}/dev/en-{{language}}.tsv'",
            "task.tatoeba_file.languages=[de,es]", "evaluation.metric=tatoeba_file/mean/accuracy",
        ]  # fmt: skip
        return [
            "teacher=folder", f"teacher.model='{self.teacher}'",
            "student=thin_deep", f"student.tokenizer='{self.teacher}'",
            "student.num_layers=1", "student.hidden_size=16",
            "student.num_attention_heads=2", "student.intermediate_size=32", "student.max_length=32",
            "data=tsv", f"data.path='{self.root}/train/en-{{language}}.tsv'", "data.languages=[de,es]",
            "data.dev_pairs=10", "data.max_dev_share=0.2",
            "loss=mse", "optim.lr=0.01", "optim.batch_size=16", "optim.epochs=null", "optim.max_steps=20",
            "optim.warmup_ratio=0.1", "hardware=cpu", "hardware.threads=1",
            *(scored if self.is_scored else ["task=[]", "evaluation.metric=''"]),
            "evaluation.every_steps=5", "checkpoint.every_steps=5", "log_every_steps=1",
            f"cache_dir='{self.root}/cache'", "name=toy",
        ]  # fmt: skip

    def command(self, output: Path, *more: str) -> list[str]:
        """The arguments of mlkd-train for a run under `output`."""
        return [*self.overrides, f"output_dir='{output}'", *more]

    def config(self, output: Path, *more: str) -> TrainConfig:
        """The same as a live configuration."""
        return build_config(compose_config("train", self.command(output, *more)), TrainConfig)


def write_tsv(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["\t".join(map(str, row)) for row in [header, *rows]]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_bucc(folder: Path, pairs: Sequence[tuple[str, ...]]) -> None:
    """de-en corpora of which every second sentence has its translation on the other side."""
    folder.mkdir(parents=True)
    english = [(f"en-{n:06}", row[0]) for n, row in enumerate(pairs) if n % 3 != 1]
    german = [(f"de-{n:06}", row[1]) for n, row in enumerate(pairs) if n % 3 != 2]
    gold = [(f"de-{n:06}", f"en-{n:06}") for n in range(0, len(pairs), 3)]
    for side, rows in (("en", english), ("de", german), ("gold", gold)):
        (folder / f"de-en.test.{side}").write_text("".join(f"{a}\t{b}\n" for a, b in rows), encoding="utf-8")


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """Made once: training and evaluation files, a unit-norm teacher of 16 dimensions, and a cache that runs share."""
    quiet_libraries()
    root = tmp_path_factory.mktemp("toy")
    rows = sentences()
    train = [row for n, row in enumerate(rows) if n % HELD_OUT]
    dev = [row for n, row in enumerate(rows) if n % HELD_OUT == 0]
    for position, language in enumerate(LANGUAGES, start=1):
        write_tsv(root / f"train/en-{language}.tsv", ["en", language], [(row[0], row[position]) for row in train])
        write_tsv(root / f"dev/en-{language}.tsv", ["en", language], [(row[0], row[position]) for row in dev])
        graded = [(a[0], b[position], 5 if a is b else len(set(a[0].split()) & set(b[0].split())))
                  for a, b in zip(dev, [*dev[:5], *dev[6:], dev[5]], strict=True)]  # fmt: skip
        write_tsv(root / f"sts/en-{language}.tsv", ["sentence1", "sentence2", "score"], graded)
    write_bucc(root / "bucc", rows[:30])
    save_encoder(make_encoder(hidden=16, normalize=True, seed=0), root / "teacher")
    return Toy(root, root / "teacher")


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    """Runs set the thread count of the process: put it back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def trained(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of 20 steps."""
    threads = torch.get_num_threads()
    output = tmp_path_factory.mktemp("trained")
    try:
        return train(toy.config(output), output / "run", toy.overrides)
    finally:
        torch.set_num_threads(threads)


@pytest.fixture
def mlkd(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """Call a command in this process; gives its exit code, stdout and stderr."""
    monkeypatch.setattr("sys.argv", ["mlkd"])
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)

    handlers = logging.getLogger().handlers
    before = list(handlers)

    def call(kind: str, *arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        try:
            code = run(kind, list(arguments))
        finally:
            # Hydra's --info logs to the standard output of this test, which the next one finds closed.
            handlers[:] = before
        out, err = capfd.readouterr()
        return code, out, err

    return call


@pytest.fixture(scope="session")
def start_training() -> Callable[[Sequence[str], pytest.MonkeyPatch], Any]:
    """Start mlkd-train in a process of its own, forked from one that has everything imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["mlkd.training.run", "mlkd.cli.main", "hydra", "transformers.models.bert.modeling_bert"]
    )

    def start(arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> Any:
        from mlkd.cli.main import train_main

        with monkeypatch.context() as patch:
            patch.setattr("sys.argv", ["mlkd-train", *arguments])
            process = context.Process(target=train_main)
            process.start()
        return process

    return start


@pytest.fixture
def read_lines() -> Callable[[Path], list[dict[str, Any]]]:
    """The records of a JSON lines file."""
    return lambda path: [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
