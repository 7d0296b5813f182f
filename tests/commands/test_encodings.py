"""Text files are read and written as UTF-8, whatever the encoding of the system."""

import subprocess
import sys
from pathlib import Path

import pytest

import cllm4rec
from cllm4rec.data.synthetic import taste_world

PACKAGE = Path(cllm4rec.__file__).parent
# Warnings, since errors would stop the libraries too.
STRICT = ("-X", "warn_default_encoding", "-W", "always::EncodingWarning")
COMMANDS = (
    ("prepare", "--interactions", "events.csv", "--items", "items.csv", "--output", "data"),
    ("pretrain", "--dataset", "data", "--output", "run", "--epochs", "1"),
    ("finetune", "--run", "run", "--epochs", "1"),
    ("evaluate", "--run", "run", "--per-user", "users.csv"),
    ("recommend", "--run", "run", "--all", "--verify", "--output", "lists.csv"),
)


@pytest.mark.slow
def test_no_command_depends_on_the_encoding_of_the_system(tmp_path: Path) -> None:
    world = taste_world(4, n_users=40, n_items=30, n_events=10)
    world.events.write_csv(tmp_path / "events.csv")
    world.items.write_csv(tmp_path / "items.csv")
    for command, *flags in COMMANDS:
        line = [sys.executable, *STRICT, "-m", f"cllm4rec.{command}", *flags]
        ended = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
        assert ended.returncode == 0, ended.stderr
        warned = [text for text in ended.stderr.splitlines() if "EncodingWarning" in text]
        assert not [text for text in warned if text.startswith(str(PACKAGE))]
