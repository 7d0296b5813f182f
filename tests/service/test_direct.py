"""Lists that are answered without FastAPI's routing are those that it would give, byte for byte."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from cllm4rec import EASE
from cllm4rec.service.app import Served, application
from cllm4rec.service.batches import Batches
from cllm4rec.service.direct import DirectLists
from cllm4rec.service.lists import answers_of

PLAIN, ROUTED = "application/json", "application/json; charset=utf-8"


@pytest.mark.parametrize(
    "body",
    [
        b'{"user": 4}',
        b' {"user": "4", "k": 3} ',
        b'{"history": [1, "2"], "repeats": true, "diversity": 0}',
        b'{"wish": "title 8 not 7, unheard"}',
        b'{"user": 4, "user": 5}',
        '{"user": 4}'.encode("utf-16"),
        b'\xef\xbb\xbf{"user": 4}',
        b'{"user": 4, "k": 3.0}',
        b'{"user": 4, "k": 0}',
        b'{"user": 4, "k": "3"}',
        b'{"user": 4, "diversity": NaN}',
        b'{"user": 4, "history": [1]}',
        b'{"user": 4, "unheard": 1}',
        b'{"user": 99}',
        b'{"history": [99]}',
        b'{"user": 4, "where": "unheard > 1"}',
        b'{"user": "\\ud800"}',
        b'{"wish": "\\ud800"}',
        b'{"user": ' + b"9" * 30 + b"}",
        b'{"user": ' + b"9" * 5_000 + b"}",
        b'{"user": ' + b"[" * 100_000 + b"}",
        b'{"user": 4',
        b'{"user": "\xff"}',
        b"[4]",
        b"4",
        b"",
    ],
    ids=lambda body: str(body[:40]),
)
def test_plain_and_routed_requests_are_answered_alike(body: bytes, client: TestClient) -> None:
    plain, routed = (
        client.post("/recommend", content=body, headers={"Content-Type": kind}) for kind in (PLAIN, ROUTED)
    )
    assert plain.status_code == routed.status_code < 500
    assert plain.content == routed.content
    assert plain.headers == routed.headers


def test_two_content_types_are_read_as_the_application_reads_them(client: TestClient) -> None:
    for kinds in (("text/plain", PLAIN), (PLAIN, "text/plain")):
        headers = [("Content-Type", kind) for kind in kinds]
        status = client.post("/recommend", content=b'{"user": 4}', headers=headers).status_code
        assert status == (200 if kinds[0] == PLAIN else 422)


def test_a_valid_request_does_not_reach_the_application(ease: EASE) -> None:
    async def application_(*_: Any) -> None:
        raise AssertionError

    batches: Batches[Any, Any] = Batches(lambda jobs: answers_of(ease, jobs), 4, 4)
    client = TestClient(DirectLists(application_, batches))
    expected = TestClient(application(Served(ease, "runs/ease"))).post("/recommend", json={"user": 4}).json()
    assert client.post("/recommend", json={"user": 4}).json() == expected
    for path, sent in (
        ("/recommend", {"json": {"user": None}}),
        ("/recommend", {"content": b'{"user": 4}', "headers": {"Content-Type": ROUTED}}),
        ("/explain", {"json": {"user": 4}}),
    ):
        with pytest.raises(AssertionError):
            client.post(path, **sent)
    batches.close()
