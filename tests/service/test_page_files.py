"""The files of the page: headers, what they may not hold, and that the package ships them."""

import configparser
import re
from fnmatch import fnmatch
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from cllm4rec import EASE
from cllm4rec.service import page
from cllm4rec.service.app import Served, application

FOLDER = Path(page.__file__).parent
ROOT = Path(__file__).parents[2]
NAMES = sorted(path.name for path in FOLDER.iterdir() if path.suffix not in (".py", ""))


def test_every_file_is_served_and_shipped() -> None:
    assert sorted(page.FILES.values()) == NAMES
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    patterns = config["options.package_data"]["cllm4rec.service.page"].split(", ")
    assert [name for name in NAMES if not any(fnmatch(name, pattern) for pattern in patterns)] == []


@pytest.mark.parametrize("path", page.PATHS)
def test_files_need_no_token_and_have_strict_headers(path: str, ease: EASE) -> None:
    with TestClient(application(Served(ease, "run", token="secret"))) as client:
        answer, head = client.get(path), client.head(path)
    assert (answer.status_code, head.status_code, head.content) == (200, 200, b"")
    assert answer.content == (FOLDER / page.FILES[path]).read_bytes()
    policy = answer.headers["content-security-policy"].split("; ")
    assert {"default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'"} <= set(
        policy
    )
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"


def test_a_file_that_a_browser_has_is_not_sent_again(ease: EASE) -> None:
    with TestClient(application(Served(ease, "run"))) as client:
        tag = client.get("/page/page.js").headers["etag"]
        again = client.get("/page/page.js", headers={"If-None-Match": tag})
        assert (again.status_code, again.content) == (304, b"")
        assert client.get("/", headers={"If-None-Match": tag}).status_code == 200
        assert client.get("/page/__init__.py").status_code == 404
        assert client.get("/page/../app.py").status_code == 404


@pytest.mark.parametrize("name", NAMES)
def test_files_are_short_and_name_no_other_site(name: str) -> None:
    text = (FOLDER / name).read_text()
    lines = text.splitlines()
    assert len(lines) <= 300
    assert [line for line in lines if len(line) > 120] == []
    assert set(re.findall(r"\w+://[^\s\"'>]+", text)) <= {"http://www.w3.org/2000/svg"}
    written = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|localStorage|cookie"
    )
    assert re.findall(written, text) == []
    assert re.findall(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", text) == []
