"""The files that docs name exist, and links within the repository lead somewhere."""

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


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_relative_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []
