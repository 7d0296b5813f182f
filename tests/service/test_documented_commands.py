"""The commands of docs/serving.md, run on the bookshop."""

import json
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.benchmarks import service
from tests.commands.test_serve import serving
from tests.support.commands import call

ROOT = Path(__file__).parents[2]
ADDRESS = "http://127.0.0.1:8000"


def commands() -> dict[str, list[list[str]]]:
    """The words of the indented lines of the page, by program; a backslash goes on."""
    text = (ROOT / "docs" / "serving.md").read_text().replace("\\\n", "")
    found: dict[str, list[list[str]]] = {}
    for line in text.splitlines():
        if line.startswith("    "):
            program, *words = (word for word in shlex.split(line) if not word.startswith("OMP_NUM_THREADS="))
            found.setdefault(program, []).append(words)
    return found


def output_of(program: str, words: list[str], address: str) -> str:
    """What a documented command prints for the service at an address."""
    words = [word.replace(ADDRESS, address) for word in words]
    return subprocess.run([program, *words], capture_output=True, check=True, text=True).stdout


@pytest.mark.slow
def test_the_commands_of_the_page_are_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("events.csv", "items.csv"):
        shutil.copy(ROOT / "datasets" / "bookshop" / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    found = commands()
    assert set(found) == {"cllm4rec", "curl", "pkill", "st", "python"}, "each program is tried below"
    *prepared, (command, *flags) = found["cllm4rec"]
    assert [words[0] for words in prepared] == ["prepare", "pretrain", "finetune"] and command == "serve"
    for each, *of_it in prepared:
        shorter = ["--epochs", "1"] if each in ("pretrain", "finetune") else []
        call(each, *of_it, *shorter)
    schemathesis = str(Path(sys.executable).with_name("st"))
    (curl,), (pkill,), (st,), (benchmark,) = (found[name] for name in ("curl", "pkill", "st", "python"))
    assert benchmark[:2] == ["-m", service.__name__]
    monkeypatch.setattr(sys, "argv", benchmark[1:])
    assert service._arguments().run == Path("RUN")
    if any(shutil.which(program) is None for program in ("curl", "pgrep")):
        pytest.skip("no curl, or no pgrep")
    assert flags[0] == "--run"
    with serving(tmp_path / flags[1], *flags[2:]) as running:
        items = json.loads(output_of("curl", curl, running.address))["items"]
        assert [item["rank"] for item in items] == [1, 2, 3]
        assert all(item["title"] for item in items)
        assert pkill[0] == "-HUP"
        assert str(running.process.pid) in output_of("pgrep", pkill[1:], running.address).split()
        running.process.send_signal(signal.SIGHUP)
        assert running.line("the run was").startswith("the run was loaded anew")
        few = [*st, "--max-examples", "2"]  # the last of a repeated flag counts
        assert "Loaded specification" in output_of(schemathesis, few, running.address)
