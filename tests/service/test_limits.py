"""Token, slow bodies, the queue's limit, and metrics."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from prometheus_client import generate_latest
from starlette.testclient import TestClient
from starlette.types import Message

from cllm4rec import EASE
from cllm4rec.models.explanation import Explanation
from cllm4rec.service import limits
from cllm4rec.service.app import MOST_EXPLANATIONS, Served, application
from cllm4rec.service.requests import ListRequest
from tests.support.services import Slow, wait_until


def test_requests_bear_the_token(ease: EASE) -> None:
    with TestClient(application(Served(ease, "run", token="secret"))) as client:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "secret"}):
            answer = client.get("/items", headers=headers)
            assert answer.status_code == 401
            assert answer.json()["error"].startswith("the token is missing or wrong")
            assert answer.headers["www-authenticate"] == "Bearer"
        for path in ("/items", "/metrics", "/openapi.json"):
            assert client.get(path).status_code == 401
            assert client.get(path, headers={"Authorization": "Bearer secret"}).status_code == 200
        assert client.get("/health").status_code == 200
        assert client.get("/items", headers={"Authorization": "bearer secret"}).status_code == 200
        described = client.get("/openapi.json", headers={"Authorization": "Bearer secret"}).json()
        (scheme,) = described["components"]["securitySchemes"].values()
        assert scheme == {"type": "http", "scheme": "bearer"}
        assert described["security"] == [{"token": []}]
        assert described["paths"]["/health"]["get"]["security"] == []
        assert "security" not in described["paths"]["/recommend"]["post"]


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8000", "127.0.0.1:8000", "127.0.0.2", "[::1]:8000", "Shop.local:80"]
)
def test_a_local_service_is_reached_under_the_names_of_its_machine(ease: EASE, host: str) -> None:
    with TestClient(application(Served(ease, "run", only_host="shop.local"))) as client:
        assert client.get("/", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["attacker.example:8000", "localhost.example", "192.0.2.1", "[::1", "", "::1"]
)
def test_a_local_service_is_reached_under_no_other_name(ease: EASE, host: str) -> None:
    with TestClient(application(Served(ease, "run", only_host="shop.local"))) as client:
        for path in ("/", "/health", "/users", "/metrics"):
            answer = client.get(path, headers={"Host": host})
            assert answer.status_code == 400
            assert answer.json()["error"].startswith("without a token the service is reached as localhost")
    with TestClient(application(Served(ease, "run"))) as client:
        assert client.get("/health", headers={"Host": host}).status_code == 200


def asked(ease: EASE, path: str, messages: list[Message], served: Served | None = None) -> list[Message]:
    """What a request is answered whose messages these are; then nothing arrives any more."""
    sent: list[Message] = []

    async def receive() -> Message:
        if not messages and not sent:
            await asyncio.sleep(10)
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope: dict[str, Any] = {
        "type": "http", "method": "POST", "path": path, "query_string": b"", "http_version": "1.1",
        "headers": [(b"content-type", b"application/json")], "scheme": "http",
        "server": ("test", 80), "client": ("test", 1),
    }  # fmt: skip
    asyncio.run(application(served or Served(ease, "run"))(scope, receive, send))
    return sent


def test_a_client_that_goes_away_within_its_body_is_no_defect(ease: EASE) -> None:
    served = Served(ease, "run")
    messages: list[Message] = [
        {"type": "http.request", "body": b"{", "more_body": True},
        {"type": "http.disconnect"},
    ]
    assert asked(ease, "/recommend", messages, served) == []
    text = generate_latest(served.registry).decode()
    assert 'cllm4rec_requests_total{path="/recommend",status="499"} 1.0' in text


def test_long_headers_are_refused(ease: EASE) -> None:
    with TestClient(application(Served(ease, "run"))) as client:
        assert client.get("/health", headers={"Long": "a" * 60_000}).status_code == 200
        refused = client.get("/health", headers={"Long": "a" * 66_000})
        assert refused.status_code == 431
        assert refused.json() == {"error": "the headers are larger than 64 KiB: send less"}


def test_answers_of_a_service_that_ends_close_their_connections(ease: EASE) -> None:
    body: Message = {"type": "http.request", "body": b'{"user": 4}', "more_body": False}
    for is_ending in (False, True):
        served = Served(ease, "run", is_ending=is_ending)
        start, _ = asked(ease, "/recommend", [dict(body)], served)
        assert start["status"] == 200
        assert ((b"connection", b"close") in start["headers"]) == is_ending


def test_a_body_that_does_not_arrive_is_given_up(ease: EASE, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BODY_SECONDS", 0.05)
    sent = asked(ease, "/recommend", [])
    assert sent[0]["status"] == 408
    assert b"did not arrive within 0.05 seconds" in sent[1]["body"]


def test_a_full_queue_is_refused_and_recovers(ease: EASE) -> None:
    slow, answers = Slow(ease), list[int]()
    with TestClient(application(Served(slow, "run", most_waiting=1, most_in_batch=1))) as client:

        def ask() -> None:
            answers.append(client.post("/recommend", json={"user": 4}).status_code)

        first = threading.Thread(target=ask)
        first.start()
        assert slow.began.wait(10)
        second = threading.Thread(target=ask)
        second.start()
        wait_until(lambda: "cllm4rec_waiting 1.0" in client.get("/metrics").text)
        refused = client.post("/recommend", json={"user": 4})
        assert refused.status_code == 503
        assert refused.json()["error"].startswith("too many requests wait")
        assert refused.headers["retry-after"] == "1"
        assert client.post("/recommend", content=b"no JSON").status_code == 503  # its body is not read
        assert client.get("/health").status_code == 200
        slow.may_go.set()
        first.join()
        second.join()
        assert answers == [200, 200]
        assert client.post("/recommend", json={"user": 4}).status_code == 200
        text = client.get("/metrics").text
    assert 'cllm4rec_requests_total{path="/recommend",status="200"} 3.0' in text
    assert 'cllm4rec_requests_total{path="/recommend",status="503"} 2.0' in text


class SlowToExplain(EASE):
    """Explains when it may."""

    def __init__(self, ease: EASE) -> None:
        vars(self).update(vars(ease))
        self.may_go = threading.Event()

    def explain(self, *arguments: Any, **options: Any) -> Explanation:
        assert self.may_go.wait(10)
        return super().explain(*arguments, **options)


def test_lists_go_on_beside_explanations(ease: EASE) -> None:
    slow, item = SlowToExplain(ease), int(ease.recommend([4])["item_id"][0])
    n_served = MOST_EXPLANATIONS + 1  # one is computed, the others wait
    with TestClient(application(Served(slow, "run"))) as client, ThreadPoolExecutor(n_served) as pool:

        def ask() -> int:
            return client.post("/explain", json={"user": 4, "item": item}).status_code

        explained = [pool.submit(ask) for _ in range(n_served)]
        wait_until(lambda: f"cllm4rec_waiting {MOST_EXPLANATIONS}.0" in client.get("/metrics").text)
        assert client.post("/recommend", json={"user": 4}).status_code == 200
        assert client.get("/items").status_code == 200
        assert ask() == 503
        slow.may_go.set()
        assert [each.result() for each in explained] == [200] * n_served


def test_unknown_paths_share_a_line_of_the_metrics(ease: EASE) -> None:
    with TestClient(application(Served(ease, "run"))) as client:
        for number in range(3):
            client.get(f"/{number}")
            assert client.post(f"/{number}", headers={"Content-Length": str(10**9)}).status_code == 413
        text = client.get("/metrics").text
    for status in (404, 413):
        assert f'cllm4rec_requests_total{{path="other",status="{status}"}} 3.0' in text
    assert 'path="/1"' not in text


def test_a_model_may_be_replaced(ease: EASE) -> None:
    served = Served(ease, "run")
    with TestClient(application(served)) as client:
        before = client.post("/recommend", json=ListRequest(history=[1]).model_dump()).json()
        served.model = Slow(ease)
        served.model.may_go.set()
        assert client.post("/recommend", json={"history": [1]}).json() == before
        assert served.model.began.is_set()


class Broken(EASE):
    """Fails."""

    def __init__(self, ease: EASE) -> None:
        vars(self).update(vars(ease))

    def _ranked(self, *arguments: Any) -> Any:
        raise RuntimeError("broken")


def test_a_defect_is_a_sentence_and_the_service_goes_on(ease: EASE) -> None:
    served = Served(Broken(ease), "run")
    with TestClient(application(served), raise_server_exceptions=False) as client:
        answer = client.post("/recommend", json={"user": 4})
        assert answer.status_code == 500
        assert answer.json()["error"].startswith("the service failed")
        assert "broken" not in answer.text
        served.model = ease
        assert client.post("/recommend", json={"user": 4}).status_code == 200
        assert 'cllm4rec_requests_total{path="/recommend",status="500"} 1.0' in client.get("/metrics").text
