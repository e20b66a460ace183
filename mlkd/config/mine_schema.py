"""Schema of mlkd-mine: the encoder, two files, margins, and where the result goes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mlkd.data.formats.tsv import OnBadUtf8
from mlkd.errors import MlkdError, Problem, did_you_mean, out_of_range
from mlkd.knn.margins import Margin
from mlkd.knn.neighbours import Backend, NeighbourSearch
from mlkd.knn.retrieval import Retrieval
from mlkd.models.spec import EncoderSettings, EncoderSpec
from mlkd.runtime.devices import Hardware

OUTPUT_SUFFIXES = (".tsv", ".tsv.gz")


@dataclass(kw_only=True, slots=True)
class MineConfig(EncoderSettings):
    """One mining of two files of sentences, one a line; see EncoderSettings for what the encoder does with them.

    Args:
        encoder: run folder, model folder or hub id of an encoder that knows both languages.
        source: file of sentences, plain or .gz, .xz, .zst, .bz2.
        target: same, in the other language.
        output: score TAB source TAB target, best first; .tsv or .tsv.gz. Facts about it go beside it, `<output>.json`.
        overwrite: replace an output of other settings.
        threshold: least margin score of a pair that is kept; None keeps all.
        line_numbers: add the line numbers of source and target as two more columns, counted from 1.
        margin: how cosines are weighed.
        retrieval: which best neighbours become pairs.
        num_neighbours: k, of each sentence.
        search: how neighbours are searched; exactly, as blocks could not be put together otherwise.
        on_bad_utf8: what to do with a line that is not UTF-8.
        hardware: where and how precisely sentences are encoded.
        num_shards: processes that share the work, each with another `shard`; changes nothing in the result.
        shard: which of them this is, counted from 0.
        wait_minutes: how long to wait for vectors of other shards while none comes in.
        cache_dir: of vectors and neighbours: what an interrupted mining goes on from.

    Source:
        Artetxe & Schwenk 2019, "Margin-based Parallel Corpus Mining with Multilingual Sentence Embeddings".
    """

    encoder: str = ""
    source: str = ""
    target: str = ""
    output: str = "mined.tsv.gz"
    overwrite: bool = False
    threshold: float | None = None
    line_numbers: bool = False
    margin: Margin = Margin.ratio
    retrieval: Retrieval = Retrieval.max
    num_neighbours: int = 4
    search: NeighbourSearch = field(default_factory=NeighbourSearch)
    on_bad_utf8: OnBadUtf8 = OnBadUtf8.error
    hardware: Hardware = field(default_factory=Hardware)
    num_shards: int = 1
    shard: int = 0
    wait_minutes: float = 60.0
    cache_dir: str = "outputs/cache"

    def __post_init__(self) -> None:
        problems = [*self._missing(), *self._out_of_range()]
        if problems:
            raise MlkdError(problems)

    @property
    def spec(self) -> EncoderSpec:
        """The encoder with its settings."""
        return EncoderSpec(model=self.encoder, **self.settings())

    def _missing(self) -> Iterator[Problem]:
        examples = {
            "encoder": "encoder=sentence-transformers/LaBSE or encoder=outputs/demo/<time>",
            "source": "source=news.de.gz",
            "target": "target=news.en.gz",
        }
        for name, example in examples.items():
            if not getattr(self, name):
                yield Problem("E205", f"is required and not set. Example: {example}", name)
        if self.source and self.source == self.target:
            yield Problem(
                "E209", f"is the source file too ('{self.target}'): each sentence would find itself", "target"
            )

    def _out_of_range(self) -> Iterator[Problem]:
        if self.search.backend is Backend.faiss_ivf:
            what = "searches one index of everything, and mining goes block by block; use torch or faiss"
            yield Problem("E209", f"faiss_ivf {what}", "search.backend")
        yield from out_of_range(self, "num_neighbours", "num_shards", ge=1)
        yield from self.setting_problems()
        yield from out_of_range(self, "wait_minutes", ge=0)
        if self.threshold is not None and self.threshold != self.threshold:
            yield Problem("E204", "must be a number (got nan)", "threshold")
        if self.num_shards >= 1 and not 0 <= self.shard < self.num_shards:
            allowed = f"0 to num_shards - 1 = {self.num_shards - 1}"
            yield Problem("E204", f"must be {allowed} (got {self.shard})", "shard")
        if not self.output.endswith(OUTPUT_SUFFIXES):
            ending = "".join(Path(self.output).suffixes[-2:])
            yield Problem(
                "E204",
                f"must end in .tsv or .tsv.gz (got '{self.output}').{did_you_mean(ending, OUTPUT_SUFFIXES)}",
                "output",
            )
