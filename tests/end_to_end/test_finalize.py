"""Finalizing a run: best student beside untrained student and teacher; done again, it gives the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from mlkd.config.composition import as_yaml
from mlkd.data.pairs import LanguagePair
from mlkd.models.model_folder import folder_sha256
from mlkd.runtime.run_folder import RunFolder
from mlkd.training.finalize import aligned_texts, finalize
from mlkd.training.model_card import ModelCard
from mlkd.training.preflight import run_preflight
from mlkd.training.setup import set_up


def test_done_again_it_gives_the_same(
    toy: Any, trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = toy.config(trained.parent)
    folder = Path(shutil.copytree(trained, tmp_path / "run"))
    before = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    for name in ("results.json", "results.md", "report.html", "eval/student.json"):
        (folder / name).unlink()
    preflight = run_preflight(config)
    asked = []
    setup = set_up(config, preflight)
    finalize(config.teacher.model, preflight, setup, RunFolder(folder), lambda: asked.append(1))
    after = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert after["scores"] == before["scores"]
    assert after["comparisons"] == before["comparisons"]
    assert after["describe"]["teacher"]["sha256"] == folder_sha256(toy.teacher)
    assert after["describe"]["teacher"]["dimension"] == 16
    assert list(after["describe"]) == ["student", "untrained", "teacher"]
    assert len(asked) == 2
    assert (folder / "report.html").is_file()
    assert "student:" in capfd.readouterr().out
    assert "tatoeba_file" in as_yaml(config)


def test_an_interruption_between_encoders_writes_no_results(toy: Any, trained: Path, tmp_path: Path) -> None:
    config = toy.config(trained.parent)
    folder = Path(shutil.copytree(trained, tmp_path / "run"))
    (folder / "results.json").unlink()
    preflight = run_preflight(config)

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finalize(config.teacher.model, preflight, set_up(config, preflight), RunFolder(folder), stop)
    assert not (folder / "results.json").exists()


def pair(language: str, rows: list[tuple[str, str]]) -> LanguagePair:
    return LanguagePair("en", language, [source for source, _ in rows], [target for _, target in rows])


def test_sentences_that_all_languages_share_are_drawn() -> None:
    german = pair("de", [(f"s{n}", f"d{n}") for n in range(10)])
    french = pair("fr", [(f"s{n}", f"f{n}") for n in range(9, -1, -1)])
    texts = aligned_texts([german, french])
    assert texts["en"] == [f"s{n}" for n in range(10)]
    assert texts["de"] == [f"d{n}" for n in range(10)]
    assert texts["fr"] == [f"f{n}" for n in range(10)]


def test_the_largest_pair_is_drawn_where_too_few_are_shared() -> None:
    german = pair("de", [(f"s{n}", f"d{n}") for n in range(9)])
    french = pair("fr", [(f"other {n}", f"f{n}") for n in range(8)])
    assert aligned_texts([french, german]) == {"en": german.source, "de": german.target}
    assert aligned_texts([pair("de", [("a", "b")] * 20)]) == {}
    assert aligned_texts([]) == {}


def test_model_card() -> None:
    text = ModelCard("mine", "LaBSE", ["en", "de"], 384, 12345, 100).text(50)
    assert text.startswith("---\nlibrary_name: sentence-transformers\n")
    assert "# mine\n" in text
    assert "for en, de, 384 dimensions" in text
    assert "`LaBSE` on 12,345 sentence pairs\n(step 50 of 100)." in text
