"""`make page`: serves the run of the demonstration, and opens its page in the browser."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

import pytest

MAKEFILE = Path(__file__).parents[2] / "Makefile"
PATIENCE = 60  # seconds


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
def test_the_page_of_the_demonstration_is_opened(popularity_workspace: Path, tmp_path: Path) -> None:
    shutil.copytree(popularity_workspace / "run", tmp_path / "demo" / "cllm4rec")
    opened, browser = tmp_path / "opened", tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {opened}.part && mv {opened}.part {opened}\n')
    browser.chmod(0o755)
    made = ["-o", f"{sys.prefix}/ready", "-o", "demo/cllm4rec/finetune"]  # this environment and this run
    line = ["make", "-f", MAKEFILE, *made, f"VENV={sys.prefix}", "page"]
    environment = {**os.environ, "BROWSER": str(browser)}
    with subprocess.Popen(line, cwd=tmp_path, env=environment, start_new_session=True) as process:
        try:
            limit = time.monotonic() + PATIENCE
            while not opened.exists() and process.poll() is None and time.monotonic() < limit:
                time.sleep(0.1)
            address = opened.read_text().strip()
            with urlopen(address, timeout=PATIENCE) as answer:
                assert answer.status == 200
                assert b"<title>" in answer.read()
        finally:
            os.killpg(process.pid, signal.SIGINT)
            process.wait(PATIENCE)
