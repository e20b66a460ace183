"""The documentation says what is there: its tree is the package's, and its links lead somewhere."""

from __future__ import annotations

import ast
import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mlkd.models.spec import EncoderSpec

ROOT = Path(__file__).resolve().parent.parent
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
TREE_LINE = re.compile(r"(?P<indent> *)(?P<name>\S+)(?:\s{2,}(?P<what>.*))?")


def tree_block() -> str:
    match = re.search(r"^## Tree\n\n```text\n(.*?)^```$", ARCHITECTURE, re.DOTALL | re.MULTILINE)
    assert match, "docs/architecture.md needs a block fenced by ```text below '## Tree'"
    return match[1]


def tree_entries() -> dict[str, str]:
    """Path, folders with a slash behind them -> what is said of it; the path follows from the indentation."""
    entries: dict[str, str] = {}
    parents: list[str] = []
    for row in tree_block().splitlines():
        match = TREE_LINE.fullmatch(row)
        assert match, row
        depth = len(match["indent"]) // 2
        parents = [*parents[:depth], match["name"]]
        entries["".join(parents)] = match["what"] or ""
    return entries


def tracked() -> list[str]:
    """Files of the repository, those not yet committed too; all files where this is no repository."""
    done = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode == 0:
        return [name for name in done.stdout.splitlines() if (ROOT / name).is_file()]
    return [str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if path.is_file()]


def test_tree_lists_what_exists() -> None:
    expected = {"configs/", "mlkd/", "scripts/"}
    for name in tracked():
        path = Path(name)
        if path.parts[0] == "configs" and len(path.parts) > 2:
            expected.add(f"configs/{path.parts[1]}/")
        elif path.parts[0] == "scripts" and len(path.parts) == 2:
            expected.add(name)
        elif path.parts[0] == "mlkd" and path.suffix == ".py":
            expected.add(f"{path.parent}/" if path.name.startswith("__") else name)
    assert set(tree_entries()) == expected


def test_each_module_is_described_by_its_docstring() -> None:
    for name, what in tree_entries().items():
        if name.startswith(("mlkd/", "scripts/")) and name.endswith(".py"):
            docstring = ast.get_docstring(ast.parse((ROOT / name).read_text(encoding="utf-8"))) or ""
            assert what == docstring.split("\n")[0], name
            assert what


def test_script_that_writes_the_tree_agrees() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/package_tree.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\((?!https?://|mailto:|#)([^)\s#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / link).exists(), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_page_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= anchors


def test_the_readme_leads_to_every_page() -> None:
    linked = set(re.findall(r"\]\((docs/[^)\s#]+)", README))
    assert linked == {f"docs/{page.name}" for page in PAGES if page.parent.name == "docs"}


def test_every_module_named_in_the_pages_exists() -> None:
    for page in PAGES:
        for name in re.findall(r"`((?:mlkd|configs|scripts|tests)/[\w/.]+)`", page.read_text(encoding="utf-8")):
            assert (ROOT / name).exists(), f"{page.name}: {name}"


def test_keys_of_an_encoder_are_documented() -> None:
    """The table of docs/evaluation.md is that of the schema."""
    text = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    table = text.partition("## Encoders")[2].partition("## Mining")[0]
    keys = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert sorted(keys) == sorted(field.name for field in dataclasses.fields(EncoderSpec))
