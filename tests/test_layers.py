"""The layers import downward only, and files and functions stay small enough to be read."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

import cllm4rec
from cllm4rec.commands.dispatch import COMMANDS

PACKAGE = Path(__file__).parents[1] / "cllm4rec"
BELOW: dict[str, set[str]] = {  # layer -> the layers that it may import from, beside itself
    "settings": set(),
    "messages": set(),
    "files": {"messages"},
    "data": {"messages", "files"},
    "corpora": {"messages", "files", "data"},
    "list_filters": {"settings", "messages", "files", "data"},
    "ranking": set(),
    "metrics": {"messages"},
    "evaluation": {"messages", "data", "ranking", "metrics"},
    "training": {"settings", "messages", "files", "data", "corpora", "evaluation"},
    "models": {
        *("settings", "messages", "files", "data", "corpora"),
        *("list_filters", "ranking", "evaluation", "training"),
    },
    "service": {"messages", "data", "models"},
    "commands": {
        *(
            "service",
            "settings",
            "messages",
            "files",
            "data",
            "list_filters",
            "ranking",
            "metrics",
            "evaluation",
        ),
        *("training", "models"),
    },
}
LINES_A_FILE, LINES_A_FUNCTION, LINES_A_TEST_FILE = 300, 60, 400


@functools.cache
def modules() -> dict[str, ast.Module]:
    """Name of each module of the package -> its syntax tree."""
    found: dict[str, ast.Module] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        found[name] = ast.parse(path.read_text())
    return found


def layer(module: str) -> str | None:
    """The layer of a module; None for the package itself, which every import passes through."""
    first = module.split(".")[1] if "." in module else None
    return "commands" if first in (*COMMANDS, "__main__") else first


def imports_of(module: str) -> set[str]:
    """The modules of this package that a module imports, inside functions too."""
    found: set[str] = set()
    for node in ast.walk(modules()[module]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}, line {node.lineno}: import by the full name"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in modules() else str(node.module) for name in names}
    return found & set(modules()) - {module}


def named_in(module: str) -> set[str]:
    """The modules that a module names in texts, to import them when they are asked for."""
    texts = {node.value for node in ast.walk(modules()[module]) if isinstance(node, ast.Constant)}
    return texts & set(modules()) - {module, "cllm4rec"}  # which is also the name of a system


def test_the_package_was_found() -> None:
    assert len(modules()) > 20
    assert {layer(module) for module in modules()} - {None} == set(BELOW)
    assert "cllm4rec.data.dataset" in imports_of("cllm4rec.evaluation.full_ranking")


def test_every_module_belongs_to_a_layer() -> None:
    homeless = [module for module in modules() if "." in module and layer(module) not in BELOW]
    assert not homeless, "give them a layer here and in docs, or put them into one"


@pytest.mark.parametrize("of", BELOW)
def test_layers_import_downward_only(of: str) -> None:
    upward = [
        f"{module} imports {other}"
        for module in modules()
        if layer(module) == of
        for other in sorted(imports_of(module) | named_in(module))
        if layer(other) not in BELOW[of] | {of, None}
    ]
    assert not upward


def test_no_layer_imports_the_package_as_a_whole() -> None:
    """`from cllm4rec import X` would tie a layer to all other layers through the public names.

    `cllm4rec --version` and the description of the service need the version.
    """
    found = [module for module in modules() if "cllm4rec" in imports_of(module)]
    assert found == ["cllm4rec.commands.dispatch", "cllm4rec.service.app"]


def test_there_are_no_import_cycles() -> None:
    left = {module: imports_of(module) for module in modules()}
    while ready := {module for module, needs in left.items() if not needs & set(left)}:
        left = {module: needs for module, needs in left.items() if module not in ready}
    assert not left, "these import one another"


def test_importing_the_package_imports_nothing_heavy() -> None:
    heavy = {"torch", "transformers", "polars", "numpy"}
    code = f"import sys, cllm4rec; sys.exit(' '.join({heavy} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_public_name_is_there_when_asked_for() -> None:
    assert len(cllm4rec.__all__) > 5
    assert all(getattr(cllm4rec, name) is not None for name in cllm4rec.__all__)
    with pytest.raises(AttributeError, match="No cllm4rec attribute Oracle"):
        _ = cllm4rec.Oracle


def test_files_are_short() -> None:
    lengths = {
        str(path.relative_to(PACKAGE)): len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")
    }
    assert {name: n for name, n in lengths.items() if n > LINES_A_FILE} == {}


def test_test_files_are_short() -> None:
    lengths = {path.name: len(path.read_text().splitlines()) for path in Path(__file__).parent.rglob("*.py")}
    assert {name: n for name, n in lengths.items() if n > LINES_A_TEST_FILE} == {}


def test_functions_are_short() -> None:
    lengths = {
        f"{module}.{node.name}, line {node.lineno}": (node.end_lineno or node.lineno) - node.lineno + 1
        for module, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name: n for name, n in lengths.items() if n > LINES_A_FUNCTION} == {}
