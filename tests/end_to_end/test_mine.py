"""mlkd-mine on two files of sentences: the pairs, the shards that share the work, kills, and what is refused."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlkd.config.mine_schema import MineConfig
from mlkd.errors import MlkdError
from mlkd.knn.margins import Margin
from mlkd.knn.neighbours import NeighbourSearch
from mlkd.knn.retrieval import Retrieval, retrieve
from mlkd.mining import neighbour_blocks as neighbours
from mlkd.mining import shards
from mlkd.mining import vector_blocks as vectors
from mlkd.mining.run import mine
from mlkd.mining.shards import UnfinishedError
from mlkd.models.serialization import load_encoder
from mlkd.runtime.devices import Device, Hardware

Call = Callable[..., tuple[int, str, str]]
HARDWARE = {"hardware": Hardware(device=Device.cpu, threads=1), "search": NeighbourSearch(device="cpu")}


@pytest.fixture(scope="module")
def corpus(toy: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """German and English, of which two thirds are translations; with equal lines and blank ones, one side packed."""
    folder = tmp_path_factory.mktemp("corpus")
    rows = [line.split("\t") for line in (toy.root / "train/en-de.tsv").read_text().splitlines()[1:]]
    german = [row[1] for n, row in enumerate(rows) if n % 3 != 1]
    english = [row[0] for n, row in enumerate(rows) if n % 3 != 2]
    german[5:5] = [german[0], "", german[2]]
    (folder / "de.txt.gz").write_bytes(gzip.compress("".join(f"{line}\n" for line in german).encode()))
    (folder / "en.txt").write_text("".join(f"{line}\n" for line in [*reversed(english), english[3]]))
    return folder


@pytest.fixture
def settings(toy: Any, corpus: Path, tmp_path: Path) -> dict[str, Any]:
    """Of a MineConfig whose output and cache are this test's own."""
    files = {"source": str(corpus / "de.txt.gz"), "target": str(corpus / "en.txt")}
    places = {"output": str(tmp_path / "mined.tsv"), "cache_dir": str(tmp_path / "cache")}
    return {"encoder": str(toy.teacher), **files, **places, **HARDWARE}


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks of each kind a side."""
    monkeypatch.setattr(vectors, "BLOCK_SENTENCES", 7)
    monkeypatch.setattr(neighbours, "BLOCK_SENTENCES", 5)


def quiet(line: str) -> None:
    pass


def rows_of(path: str | Path) -> list[list[str]]:
    text = gzip.decompress(Path(path).read_bytes()).decode() if str(path).endswith(".gz") else Path(path).read_text()
    return [line.split("\t") for line in text.splitlines()]


def test_pairs_are_those_of_the_engine_best_first(settings: dict[str, Any], toy: Any, corpus: Path) -> None:
    mined = mine(MineConfig(**settings, line_numbers=True), quiet)
    found = rows_of(settings["output"])
    german = gzip.decompress((corpus / "de.txt.gz").read_bytes()).decode().split("\n")[:-1]
    english = (corpus / "en.txt").read_text().split("\n")[:-1]
    distinct = [[t for t in dict.fromkeys(side) if t] for side in (german, english)]
    encoder = load_encoder(str(toy.teacher))
    forward, backward = settings["search"].both_ways(*(encoder.encode(side) for side in distinct), 4)
    expected = retrieve(forward, backward, Margin.ratio, Retrieval.max)
    texts = [(distinct[0][i], distinct[1][j]) for i, j in zip(expected.source, expected.target, strict=True)]
    assert [(row[1], row[2]) for row in found] == texts
    scores = [float(row[0]) for row in found]
    assert scores == sorted(scores, reverse=True)
    assert scores == pytest.approx(expected.score.tolist(), abs=1e-6)
    for _, source, target, source_line, target_line in found:
        assert german[int(source_line) - 1] == source
        assert english[int(target_line) - 1] == target
    assert [row[3] for row in found if row[1] == german[0]] == ["6"]  # of equal lines the last
    assert mined.metadata["source"]["left_out"] == {"duplicate": 2, "blank": 1}
    assert mined.metadata["target"]["left_out"] == {"duplicate": 1}
    assert mined.metadata["pairs"] == len(found)


@pytest.mark.usefixtures("small_blocks")
def test_the_number_of_shards_changes_nothing(settings: dict[str, Any], tmp_path: Path) -> None:
    outputs = set()
    for num_shards in (1, 2, 5):
        places = {"output": str(tmp_path / f"{num_shards}.tsv.gz"), "cache_dir": str(tmp_path / f"cache{num_shards}")}
        configs = [
            MineConfig(**settings | places, num_shards=num_shards, shard=shard, wait_minutes=0)
            for shard in range(num_shards)
        ]
        for config in configs[:-1]:
            with pytest.raises(UnfinishedError, match=rf"E330.*blocks are not encoded, by shards .*{num_shards - 1}"):
                mine(config, quiet)
        for config in [configs[-1], *configs[:-2]]:
            assert (mine(config, quiet).output is None) == (num_shards > 1)
        if num_shards > 1:
            assert not Path(places["output"]).exists()
            assert mine(configs[-2], quiet).output is not None
        outputs.add(Path(places["output"]).read_bytes())
    assert len(outputs) == 1
    assert len(rows_of(tmp_path / "5.tsv.gz")) > 20


@pytest.mark.usefixtures("small_blocks")
def test_shards_that_run_together_wait_for_each_other(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "POLL_S", 0.01)
    mine(MineConfig(**settings), quiet)
    together = settings | {"output": str(tmp_path / "together.tsv"), "cache_dir": str(tmp_path / "together")}
    found: list[Any] = []
    threads = [
        threading.Thread(
            target=lambda n=shard: found.append(mine(MineConfig(**together, num_shards=3, shard=n), quiet))
        )
        for shard in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 3
    assert any(mined.output is not None for mined in found)
    assert (tmp_path / "together.tsv").read_bytes() == Path(settings["output"]).read_bytes()


KILLED = """
import os, signal, sys
from mlkd.mining import neighbour_blocks as neighbours
from mlkd.mining import vector_blocks as vectors
from mlkd.cli.main import run
vectors.BLOCK_SENTENCES, neighbours.BLOCK_SENTENCES = 7, 5
where, count = sys.argv[1], int(sys.argv[2])
module = {"vectors": vectors, "neighbours": neighbours}[where]
write, written = module.write_array, []
def write_then_die(path, array):
    if len(written) == count:
        (path.parent / f".{path.name}.half.tmp").write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    written.append(path)
    write(path, array)
module.write_array = write_then_die
sys.exit(run("mine", sys.argv[3:]))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
@pytest.mark.parametrize(("where", "count"), [("vectors", 3), ("neighbours", 5)])
@pytest.mark.usefixtures("small_blocks")
def test_killed_in_the_middle_it_goes_on(
    *, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, count: int
) -> None:
    mine(MineConfig(**settings), quiet)
    places = {"output": str(tmp_path / "killed.tsv"), "cache_dir": str(tmp_path / "killed")}
    texts = {name: settings[name] for name in ("encoder", "source", "target")} | places
    overrides = [*(f"{key}='{value}'" for key, value in texts.items()), "hardware=cpu", "search.device=cpu"]
    command = [sys.executable, "-c", KILLED, where, str(count), *overrides, "hardware.threads=1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not Path(places["output"]).exists()
    already = len(list(tmp_path.glob("killed/mining/**/*.npy")))
    written: list[Path] = []
    for module in (vectors, neighbours):
        write = module.write_array
        monkeypatch.setattr(
            module, "write_array", lambda path, array, write=write: (written.append(path), write(path, array))
        )
    assert mine(MineConfig(**settings | places), quiet).output is not None
    assert (tmp_path / "killed.tsv").read_bytes() == Path(settings["output"]).read_bytes()
    everything = len(list(tmp_path.glob("cache/mining/**/*.npy")))
    # A block of neighbours is two files, of which the first is written again where the second is missing.
    again = count % 2 if where == "neighbours" else 0
    assert len(written) == everything - already + again


def test_threshold_keeps_scores_from_it_on(settings: dict[str, Any], tmp_path: Path) -> None:
    mine(MineConfig(**settings), quiet)
    rows = rows_of(settings["output"])
    threshold = float(rows[9][0])
    expected = [row for row in rows if float(row[0]) >= threshold]
    lines: list[str] = []
    mined = mine(MineConfig(**settings | {"output": str(tmp_path / "best.tsv")}, threshold=threshold), lines.append)
    assert rows_of(tmp_path / "best.tsv") == expected
    assert (mined.metadata["pairs"], mined.metadata["candidates"]) == (len(expected), len(rows))
    assert mined.rates == {"encoded": None, "searched": None}  # only the cut is new
    assert not [line for line in lines if "encoded" in line]


def test_encoders_share_a_cache_but_no_numbers(settings: dict[str, Any], trained: Path, tmp_path: Path) -> None:
    mine(MineConfig(**settings), quiet)
    other = settings | {"encoder": str(trained), "output": str(tmp_path / "other.tsv")}
    mined = mine(MineConfig(**other), quiet)
    alone = other | {"output": str(tmp_path / "alone.tsv"), "cache_dir": str(tmp_path / "alone")}
    mine(MineConfig(**alone), quiet)
    assert mined.rates["encoded"] is not None
    assert mined.rates["searched"] is not None
    assert (tmp_path / "other.tsv").read_bytes() == (tmp_path / "alone.tsv").read_bytes()
    assert (tmp_path / "other.tsv").read_bytes() != Path(settings["output"]).read_bytes()


@pytest.mark.parametrize("margin", list(Margin))
@pytest.mark.parametrize("retrieval", list(Retrieval))
def test_every_margin_and_retrieval(
    settings: dict[str, Any], toy: Any, corpus: Path, margin: Margin, retrieval: Retrieval
) -> None:
    mined = mine(MineConfig(**settings, margin=margin, retrieval=retrieval, num_neighbours=300), quiet)
    sizes = {side: mined.metadata[side]["sentences"] for side in ("source", "target")}
    expected = {Retrieval.forward: sizes["source"], Retrieval.backward: sizes["target"]}
    assert mined.metadata["pairs"] == expected.get(retrieval, mined.metadata["pairs"]) > 0


def test_command_prints_what_it_did(mlkd: Call, settings: dict[str, Any], tmp_path: Path) -> None:
    output = tmp_path / "new folder/out=1.tsv.gz"
    arguments = [f"{key}={settings[key]}" for key in ("encoder", "source", "target", "cache_dir")]
    command = [*arguments, f"output={output}", "hardware=cpu", "hardware.threads=1", "search.device=cpu"]
    code, out, err = mlkd("mine", *command)
    assert code == 0, err
    metadata = json.loads(output.with_name("out=1.tsv.gz.json").read_text())
    assert f"pairs     {metadata['pairs']:,}, of {metadata['candidates']:,} candidates" in out
    assert f"source    {settings['source']}: 44 lines, 41 distinct sentences" in out
    assert f"output    {output}" in out
    assert "left out: 2 duplicate, 1 blank" in err
    first = output.read_bytes()
    code, out, err = mlkd("mine", *command)
    assert code == 0, err
    assert "vectors and neighbours were there" in out
    assert output.read_bytes() == first
    code, _, err = mlkd("mine", *command, "margin=distance")
    assert code == 5
    assert f"error[E514]: output: '{output}' exists, and other files or settings made it" in err
    assert output.read_bytes() == first
    assert mlkd("mine", *command, "margin=distance", "overwrite=true")[0] == 0
    assert output.read_bytes() != first


def test_a_file_of_another_origin_is_not_replaced(settings: dict[str, Any]) -> None:
    Path(settings["output"]).write_text("my own\n")
    with pytest.raises(MlkdError, match=r"E514.*mlkd-mine did not make it"):
        mine(MineConfig(**settings), quiet)
    assert Path(settings["output"]).read_text() == "my own\n"


def test_ctrl_c_says_that_it_can_go_on(mlkd: Call, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(vectors, "write_array", interrupted)
    arguments = [f"{key}={settings[key]}" for key in ("encoder", "source", "target", "cache_dir", "output")]
    code, _, err = mlkd("mine", *arguments, "hardware=cpu", "hardware.threads=1")
    assert code == 130
    assert "the same command goes on" in err


@pytest.mark.parametrize(
    ("arguments", "problems"),
    [
        ([], ["E205]: encoder:", "E205]: source:", "E205]: target:"]),
        (["encoder=x", "source=a", "target=a"], ["E209]: target: is the source file too"]),
        (["encoder=x", "source=a", "target=b", "output=m.gz"], ["E204]: output: must end in .tsv or .tsv.gz"]),
        (["encoder=x", "source=a", "target=b", "num_shards=2", "shard=2"], ["E204]: shard: must be 0 to"]),
        (["encoder=x", "source=a", "target=b", "num_shards=0"], ["E204]: num_shards: must be >= 1 (got 0)"]),
        (["encoder=x", "source=a", "target=b", "num_neighbours=0"], ["E204]: num_neighbours: must be >= 1"]),
        (["encoder=x", "source=a", "target=b", "wait_minutes=-1"], ["E204]: wait_minutes: must be >= 0"]),
        (["encoder=x", "source=a", "target=b", "max_length=1"], ["E204]: max_length: must be >= 4"]),
        (["encoder=x", "source=a", "target=b", "threshold=nan"], ["E204]: threshold: must be a number"]),
        (["encoder=x", "source=a", "target=b", "margin=ration"], ["E203]: margin:", "[ratio, distance, absolute]"]),
        (["encoder=x", "sorce=a", "target=b"], ["E201]: unknown key 'sorce'. Did you mean 'source'?"]),
        (
            ["encoder=x", "source=a", "target=b", "search.backend=faiss_ivf"],
            ["E209]: search.backend: faiss_ivf searches"],
        ),
        (["encoder=x", "source=a", "target=b", "search.block_mb=0"], ["E204]: search.block_mb: must be >= 1"]),
    ],
)
def test_bad_settings(mlkd: Call, arguments: list[str], problems: list[str]) -> None:
    code, out, err = mlkd("mine", *arguments)
    assert (code, out, "Traceback" in err) == (2, "", False)
    assert [problem for problem in problems if problem not in err] == []


def test_everything_that_is_missing_comes_at_once(settings: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    bad = {"encoder": "./no-model", "source": "no.txt", "target": settings["target"] + ".gz"}
    with pytest.raises(MlkdError) as caught:
        mine(MineConfig(**settings | bad | {"output": str(tmp_path / "file/x.tsv")}), quiet)
    assert [problem.code for problem in caught.value.problems] == ["E301", "E301", "E401", "E510"]
    text = str(caught.value)
    assert "error[E301]: source: no such file 'no.txt'" in text
    assert f"Did you mean '{settings['target']}'?" in text
    assert not Path(settings["cache_dir"]).joinpath("mining/neighbours").exists()


@pytest.mark.parametrize(
    ("content", "name", "code"),
    [
        (b"", "a.txt", "E303"),
        (b"\n\n", "a.txt", "E303"),
        (b"ok\n\xff\xfe\n", "a.txt", "E304"),
        ("wide".encode("utf-16"), "a.txt", "E304"),
        (b"\x00" * 50 + b"text", "a.txt", "E306"),
        (gzip.compress(b"some text\n" * 100, mtime=0)[:-12], "a.txt.gz", "E311"),
        (b"<!DOCTYPE html><html></html>", "a.txt", "E312"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a.txt", "E312"),
    ],
)
def test_bad_text_of_both_sides_comes_at_once(
    *, settings: dict[str, Any], tmp_path: Path, content: bytes, name: str, code: str
) -> None:
    for side in ("source", "target"):
        (tmp_path / side).mkdir()
        (tmp_path / side / name).write_bytes(content)
    with pytest.raises(MlkdError) as caught:
        mine(MineConfig(**settings | {s: str(tmp_path / s / name) for s in ("source", "target")}), quiet)
    assert [problem.code for problem in caught.value.problems] == [code, code]
    assert caught.value.exit_code == 3
    assert not Path(settings["output"]).exists()


def test_one_sentence_a_side(settings: dict[str, Any], tmp_path: Path) -> None:
    for side, text in (("source", "die katze sieht den mond"), ("target", "the cat sees the moon")):
        (tmp_path / side).write_text(text)
    mined = mine(MineConfig(**settings | {s: str(tmp_path / s) for s in ("source", "target")}), quiet)
    assert mined.metadata["pairs"] == 1
    ((score, source, target),) = rows_of(settings["output"])
    assert (source, target) == ("die katze sieht den mond", "the cat sees the moon")
    assert float(score) == pytest.approx(1.0)  # the only neighbour is the neighbourhood


def test_help_imports_nothing_heavy() -> None:
    program = """
import sys
from mlkd.cli.main import run
assert run("mine", ["--help"]) == 0
heavy = {"torch", "numpy", "hydra", "omegaconf", "transformers"} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "mlkd-mine encoder=outputs/demo/<time> source=news.de.gz target=news.en.gz" in done.stdout
    assert "hardware: auto, cpu" in done.stdout
