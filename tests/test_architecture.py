"""Imports go one way, what has no place in the package is not there, and the wheel lists every folder."""

from __future__ import annotations

import ast
import importlib
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted((ROOT / "mlkd").rglob("*.py"))
MAX_LINES = 300

# Packages from the ground up: each imports from layers before its own, and from itself.
LAYERS = (
    {"errors", "version"},
    {"runtime", "losses", "knn", "optim", "demo_data"},
    {"data", "distributed"},
    {"models"},
    {"tasks", "teacher"},
    {"config", "report"},
    {"evaluation", "mining"},
    {"training"},
    {"sweeps"},
    {"api", "cli"},
    {"mlkd"},
)
LEVEL = {name: level for level, layer in enumerate(LAYERS) for name in layer}
# Third-party modules that stay where they belong.
ONLY_IN = {
    "hydra": {"config", "sweeps", "cli"},
    "omegaconf": {"config", "sweeps", "cli"},
    "optuna": {"sweeps"},
    "yaml": {"config"},
    "transformers": {"models"},
    "tokenizers": {"models"},
    "sentencepiece": {"models"},
    "peft": {"models"},
    "datasets": {"data"},
    "iso639": {"data"},
    "pyarrow": {"data"},
    "faiss": {"knn"},
    "matplotlib": {"report"},
    "jinja2": {"report"},
    "rich": {"runtime", "report", "sweeps"},
}
# Slow to import, or absent where an extra is: inside functions, so that a configuration is checked in a moment.
IN_FUNCTIONS = {
    "transformers",
    "tokenizers",
    "sentencepiece",
    "datasets",
    "iso639",
    "pyarrow",
    "faiss",
    "matplotlib",
    "scipy",
    "peft",
    "optuna",
}
PICKLE = {"pickle", "dill", "joblib", "shelve", "marshal", "cloudpickle"}


def name_of(path: Path) -> str:
    """The package or top module that a file belongs to."""
    parts = path.relative_to(ROOT / "mlkd").with_suffix("").parts
    return "mlkd" if parts == ("__init__",) else parts[0]


def imports(tree: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield str(node.module), node


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down(path: Path) -> None:
    own = name_of(path)
    assert own in LEVEL, f"{own} has no layer yet: put it into LAYERS"
    for imported, _ in imports(tree_of(path)):
        if imported.split(".")[0] != "mlkd":
            continue
        other = imported.split(".")[1] if "." in imported else "mlkd"
        assert other == own or LEVEL[other] < LEVEL[own], f"{path.name} imports {imported}, which is not below it"


def test_no_module_imports_itself_by_way_of_others() -> None:
    """Cycles inside a package too, imports inside functions among them."""
    names = {path: ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in MODULES}
    below: dict[str, set[str]] = {}
    for path, module in names.items():
        below[module] = set()
        for imported, node in imports(tree_of(path)):
            inside = {f"{imported}.{alias.name}" for alias in getattr(node, "names", [])} & {*names.values()}
            below[module] |= inside or ({imported} if imported.startswith("mlkd.") else set())
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, " -> ".join((*above[above.index(module) :], module))
        if module not in done:
            for name in below.get(module, ()):
                visit(name, (*above, module))
            done.add(module)

    for module in below:
        visit(module, ())


def test_layers_name_what_exists() -> None:
    assert {name_of(path) for path in MODULES} == set(LEVEL)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_libraries_stay_where_they_belong(path: Path) -> None:
    tree = tree_of(path)
    for imported, _ in imports(tree):
        library = imported.split(".")[0]
        assert name_of(path) in ONLY_IN.get(library, {name_of(path)}), f"{path.name} imports {library}"
        assert library not in PICKLE
    at_import = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    eager = {name.split(".")[0] for node in at_import for name, _ in imports(node)} & IN_FUNCTIONS
    assert not eager, f"{path.name} imports {eager} when it is imported"


def test_losses_knn_and_optim_know_arrays_alone() -> None:
    allowed = {"torch", "numpy", "faiss", "mlkd", "__future__"}
    for path in MODULES:
        if name_of(path) in ("losses", "knn", "optim"):
            outside = {n.split(".")[0] for n, _ in imports(tree_of(path))} - allowed
            assert outside <= sys.stdlib_module_names, (path.name, outside)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_loads_code_from_data(path: Path) -> None:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("eval", "exec", "torch.save", "hydra.utils.instantiate", "instantiate"), called
            if called == "torch.load":
                arguments = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert arguments.get("weights_only") == "True"


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.yaml")), ids=lambda p: p.stem)
def test_no_config_names_code(path: Path) -> None:
    assert "_target_" not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_module_size_and_docstring(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES
    sentence = (ast.get_docstring(tree_of(path)) or "").splitlines()
    assert sentence, "a module says what it is in its first line"
    assert sentence[0].endswith((".", "?")), sentence[0]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_names_say_something(path: Path) -> None:
    assert not {"utils", "util", "common", "helpers", "helper", "core", "misc"} & {*path.with_suffix("").parts}


def test_wheel_lists_every_package() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in MODULES}
    assert set(settings["packages"]) == found | {"mlkd.configs"}
    for path in MODULES:
        assert (path.parent / "__init__.py").is_file(), f"{path.parent} is no package"


def test_wheel_takes_every_data_file() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    patterns = settings["package-data"]
    for path in (ROOT / "mlkd").rglob("*"):
        if path.is_file() and path.suffix not in (".py", ".pyc") and "__pycache__" not in path.parts:
            package = ".".join(path.parent.relative_to(ROOT).parts)
            assert any(path.match(pattern) for pattern in patterns.get(package, [])), path


SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_what_scripts_import_exists(script: Path) -> None:
    """Benchmarks run seldom: a name that moved would be missed for long."""
    imports = [node for node in ast.walk(ast.parse(script.read_text("utf-8"))) if isinstance(node, ast.ImportFrom)]
    for node in imports:
        if node.module is not None and node.module.partition(".")[0] == "mlkd":
            module = importlib.import_module(node.module)
            missing = [alias.name for alias in node.names if not hasattr(module, alias.name)]
            assert missing == [], f"{script.name}:{node.lineno}"
