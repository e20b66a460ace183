"""Write the tree of the package into docs/architecture.md: every module with the first line of its docstring.

python scripts/package_tree.py            print the tree
python scripts/package_tree.py --check    fail where docs/architecture.md has another one
python scripts/package_tree.py --write    put it into README.md, between the fences below its heading
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "architecture.md"
HEADING = "## Tree"
WIDTH = 32
BLOCK = re.compile(rf"(^{HEADING}\n\n```text\n)(.*?)(^```$)", re.DOTALL | re.MULTILINE)


def lines() -> Iterator[str]:
    """The tree: configs by group, the package's modules, the scripts; folders before what is in them."""
    yield line(0, "configs/", "one folder a group, one file an option")
    for folder in sorted(path for path in (ROOT / "configs").iterdir() if path.is_dir()):
        options = sorted(path.stem for path in folder.glob("*.yaml"))
        yield line(1, f"{folder.name}/", f"{len(options)} options")
    yield from package(ROOT / "mlkd", 0)
    yield line(0, "scripts/", "for people and for CI; they import mlkd and are never imported by it")
    for path in shown(ROOT / "scripts"):
        yield line(1, path.name, sentence(path))


def package(folder: Path, depth: int) -> Iterator[str]:
    """A package and everything below it, modules before sub-packages."""
    yield line(depth, f"{folder.name}/", sentence(folder / "__init__.py"))
    paths = shown(folder)
    for path in (p for p in paths if p.suffix == ".py" and not p.name.startswith("__")):
        yield line(depth + 1, path.name, sentence(path))
    for path in (p for p in paths if (p / "__init__.py").is_file()):
        yield from package(path, depth + 1)


def shown(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith((".", "__pycache__")))


def sentence(path: Path) -> str:
    """The first line of a module's docstring, or of a shell script's comment."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return (ast.get_docstring(ast.parse(text)) or "").split("\n")[0]
    comments = (row[1:].strip() for row in text.splitlines() if row.startswith("#") and not row.startswith("#!"))
    return next(comments, "")


def line(depth: int, name: str, what: str) -> str:
    start = "  " * depth + name
    return f"{start:<{WIDTH}}{what}".rstrip() if len(start) < WIDTH else f"{start}  {what}".rstrip()


def tree(rows: Iterable[str] | None = None) -> str:
    return "".join(f"{row}\n" for row in (lines() if rows is None else rows))


def block(page: str) -> str | None:
    """The tree that a page has, None where it has none."""
    match = BLOCK.search(page)
    return match[2] if match else None


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    page = PAGE.read_text(encoding="utf-8")
    if not (arguments.check or arguments.write):
        print(tree(), end="")
        return 0
    if block(page) is None:
        print(f"docs/architecture.md has no block fenced by ```text right below '{HEADING}'", file=sys.stderr)
        return 1
    if arguments.write:
        PAGE.write_text(BLOCK.sub(lambda match: match[1] + tree() + match[3], page), encoding="utf-8")
        return 0
    if block(page) != tree():
        print("docs/architecture.md has another tree; run: python scripts/package_tree.py --write", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
