"""The files that docs name exist, and links within the repository lead somewhere."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(path for folder in (".", "docs", "datasets") for path in (ROOT / folder).glob("*.md"))


def relative(page: Path) -> str:
    """Path of a page from the root."""
    return page.relative_to(ROOT).as_posix()


def exists(name: str) -> bool:
    """Whether a path is that of a file, from the root or within the package, its models or its readers."""
    folders = (
        "",
        "cllm4rec",
        "cllm4rec/training",
        "cllm4rec/data/readers",
        "experiments/benchmarks",
        "tests",
    )
    return any((ROOT / folder / name).is_file() for folder in folders)


def test_the_pages_were_found() -> None:
    assert {"README.md", "docs/papers.md", "datasets/README.md"} <= set(map(relative, PAGES))


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_modules_that_a_page_names_exist(page: Path) -> None:
    # `prepare.py pretrain.py ...` in the tree, `data/splits.py` in prose
    names = set(re.findall(r"(?<![\w*])[\w/]+\.pyi?\b", page.read_text()))
    assert sorted(name for name in names if not exists(name)) == []


def test_functions_that_a_table_names_exist() -> None:
    text = (ROOT / "docs" / "papers.md").read_text()
    rows = re.findall(r"\| `([\w/]+\.py)` \| `([\w.]+)` \|", text)
    assert len(rows) > 20
    for file, name in rows:
        part: ast.AST = ast.parse((ROOT / "cllm4rec" / file).read_text())
        for each in name.split("."):
            found = [node for node in ast.iter_child_nodes(part) if getattr(node, "name", None) == each]
            assert found, f"{file} has no {name}"
            part = found[0]


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_lines_have_at_most_110_columns_but_in_tables(page: Path) -> None:
    lines = enumerate(page.read_text().splitlines(), start=1)
    assert [n for n, line in lines if len(line) > 110 and not line.lstrip().startswith("|")] == []


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_relative_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []
