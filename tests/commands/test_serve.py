"""The command serve: listens on loopback, loads the run anew, and ends with status 0."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from cllm4rec.service.server import _listening, _only_host
from tests.support.commands import refusal


class Running:
    """A service under way.

    Attributes:
        process: of the command.
        address: where it listens.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.address = self.line("serving on ").removeprefix("serving on ")

    def line(self, beginning: str) -> str:
        """The next line of standard error with this beginning."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if line.startswith(beginning):
                return line.strip()
        raise AssertionError(f"it ended with status {self.process.wait()}")

    def post(
        self, path: str, body: object, token: str | None = None, host: str | None = None
    ) -> dict[str, object]:
        """The answer to a request."""
        headers = {"Content-Type": "application/json"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        if host is not None:
            headers["Host"] = host
        request = Request(self.address + path, json.dumps(body).encode(), headers)
        with urlopen(request, timeout=20) as answer:
            found: dict[str, object] = json.load(answer)
            return found


@contextmanager
def serving(run: Path, *flags: object) -> Iterator[Running]:
    line = [sys.executable, "-m", "cllm4rec", "serve", "--run", run, "--port", 0, *flags]
    with subprocess.Popen(list(map(str, line)), stderr=subprocess.PIPE, text=True) as process:
        try:
            yield Running(process)
        finally:
            process.kill()


def test_a_run_is_served_until_a_signal(popularity_workspace: Path, tmp_path: Path) -> None:
    shutil.copytree(popularity_workspace / "run", tmp_path / "run")
    (tmp_path / "token").write_text("secret\n")
    with serving(tmp_path / "run", "--token-file", tmp_path / "token") as running:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", running.address)
        users = (popularity_workspace / "events.csv").read_text().splitlines()[1].split(",")
        body = {"user": users[0], "k": 2}
        answer = running.post("/recommend", body, "secret")
        assert len(answer["items"]) == 2  # type: ignore[arg-type]
        assert running.post("/recommend", body, "secret", "lists.example") == answer
        with pytest.raises(HTTPError, match="401"):
            running.post("/recommend", body)
        running.process.send_signal(signal.SIGHUP)
        assert running.line("the run was").startswith("the run was loaded anew")
        assert running.post("/recommend", body, "secret") == answer
        shutil.rmtree(tmp_path / "run")
        running.process.send_signal(signal.SIGHUP)
        assert "the old one is served" in running.line("the run was not loaded")
        assert running.post("/recommend", body, "secret") == answer
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(20) == 0


def test_a_run_without_its_dataset_serves_histories(popularity_workspace: Path, tmp_path: Path) -> None:
    shutil.copytree(popularity_workspace / "data", tmp_path / "data")
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    flags = ("--system", "popularity", "--dataset", tmp_path / "data", "--output", tmp_path / "run")
    command = [sys.executable, "-m", "cllm4rec", "pretrain", *map(str, flags)]
    subprocess.run(command, check=True, capture_output=True, env=environment)
    shutil.rmtree(tmp_path / "data")
    item = (popularity_workspace / "items.csv").read_text().splitlines()[1].split(",")[0]
    with serving(tmp_path / "run") as running:
        assert len(running.post("/recommend", {"history": [item], "k": 2})["items"]) == 2  # type: ignore[arg-type]
        with pytest.raises(HTTPError, match="400"):
            running.post("/recommend", {"user": "u0"})
        with pytest.raises(HTTPError, match="400"):
            running.post("/recommend", {"history": [item], "k": 2}, host="lists.example")


@pytest.mark.parametrize("content", [None, "", "two words", "é"])
def test_tokens_that_cannot_be_used_are_refused(
    content: str | None, popularity_workspace: Path, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content, encoding="utf-8")
    line = refusal("serve", "--run", popularity_workspace / "run", "--token-file", file)
    assert line.startswith(
        f"{file}: there is no such file" if content is None else f"{file}: expected one token"
    )


def test_a_port_in_use_is_refused_in_one_line(popularity_workspace: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = [sys.executable, "-m", "cllm4rec", "serve", "--run", str(popularity_workspace / "run")]
        result = subprocess.run([*line, "--port", str(port)], capture_output=True, text=True, timeout=60)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: cannot listen on 127.0.0.1, port {port} (Address already in use): give")


@pytest.mark.parametrize("missing", [["uvicorn"], ["prometheus_client"], ["fastapi", "starlette"]])
def test_a_missing_library_is_named(
    missing: list[str], popularity_workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    libraries = ("cllm4rec.service", "fastapi", "starlette", "prometheus_client", "uvicorn")
    for name in [name for name in sys.modules if name.startswith(libraries)]:
        monkeypatch.delitem(sys.modules, name)
    for name in missing:
        monkeypatch.setitem(sys.modules, name, None)
    line = refusal("serve", "--run", popularity_workspace / "run")
    assert line.startswith(
        f"the service needs {missing[0]}, which is not installed: pip install fastapi uvicorn"
    )


@pytest.mark.parametrize("host", ["127.1", "LOCALHOST"])
def test_other_forms_of_a_loopback_address_are_local_too(host: str, popularity_workspace: Path) -> None:
    with serving(popularity_workspace / "run", "--host", host) as running:
        body = {"history": [], "k": 1}
        for wrong in ("lists.example", "localhost.example"):
            with pytest.raises(HTTPError, match="400"):
                running.post("/recommend", body, host=wrong)
        for right in (host, "localhost", "127.0.0.1:8000"):
            with urlopen(Request(f"{running.address}/health", headers={"Host": right}), timeout=20) as answer:
                assert answer.status == 200


def test_a_service_that_is_open_to_all_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    assert _only_host("shop", "127.0.1.1", None) == "shop"
    assert _only_host("shop", "192.0.2.1", "secret") is None
    assert _only_host("shop", "127.0.1.1", "secret") is None
    assert not caplog.text
    assert _only_host("shop", "192.0.2.1", None) is None
    assert "anybody who reaches shop may use the service: --token-file names a token" in caplog.text


def test_answers_do_not_wait_for_acknowledgements() -> None:
    """Connections inherit TCP_NODELAY from the listening socket."""
    with _listening("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
