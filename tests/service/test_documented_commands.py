"""The commands of docs/serving.md, run on the bookshop."""

import json
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.commands.test_serve import serving
from tests.support.commands import call

ROOT = Path(__file__).parents[2]


def commands() -> list[list[str]]:
    """The words of the lines of the page that begin with cllm4rec or curl; a backslash goes on."""
    text = (ROOT / "docs" / "serving.md").read_text().replace("\\\n", "")
    lines = [shlex.split(line) for line in text.splitlines() if line.startswith("    ")]
    return [words for words in lines if words[0] in ("cllm4rec", "curl")]


@pytest.mark.slow
def test_the_commands_of_the_page_serve_a_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("events.csv", "items.csv"):
        shutil.copy(ROOT / "datasets" / "bookshop" / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    *prepared, serve, curl = commands()
    assert [words[1] for words in prepared] == ["prepare", "pretrain", "finetune"]
    for _, command, *flags in prepared:
        shorter = ["--epochs", "1"] if command in ("pretrain", "finetune") else []
        call(command, *flags, *shorter)
    assert serve[:2] == ["cllm4rec", "serve"]
    if shutil.which("curl") is None:
        pytest.skip("no curl")
    assert curl[-1] == "http://127.0.0.1:8000/recommend"
    with serving(tmp_path / serve[serve.index("--run") + 1]) as running:
        line = [*curl[:-1], f"{running.address}/recommend"]
        items = json.loads(subprocess.run(line, capture_output=True, check=True).stdout)["items"]
    assert isinstance(items, list)
    assert [item["rank"] for item in items] == [1, 2, 3]
    assert all(item["title"] for item in items)
