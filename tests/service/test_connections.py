"""Slow, half-open and invalid requests over sockets."""

import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from cllm4rec import EASE
from cllm4rec.service import app, connections, server
from cllm4rec.service.app import Served
from cllm4rec.service.lists import answers_of
from tests.support.services import Slow, served_in_a_thread, wait_until

BODY = b'{"user": 4, "k": 2}'
HEADERS = (b"POST /recommend HTTP/1.1", b"Host: here", b"Content-Type: application/json")
REQUEST = b"\r\n".join([*HEADERS, b"Content-Length: %d" % len(BODY), b"", BODY])


@pytest.fixture
def address(ease: EASE, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
    """Of a service that waits half a second for headers."""
    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.5)
    with served_in_a_thread(Served(ease, "run")) as url:
        host, _, port = url.removeprefix("http://").partition(":")
        yield host, int(port)


@contextmanager
def connected(address: tuple[str, int]) -> Iterator[socket.socket]:
    with socket.create_connection(address, timeout=20) as connection:
        yield connection


def head_and_body(connection: socket.socket) -> tuple[list[bytes], bytes]:
    """The lines of an answer's head without the date, sorted, and its body."""
    data = b""
    while b"\r\n\r\n" not in data:
        received = connection.recv(65_536)
        assert received, "the connection was closed without an answer"
        data += received
    head, _, body = data.partition(b"\r\n\r\n")
    lines = [line for line in head.lower().split(b"\r\n") if not line.startswith(b"date: ")]
    length = next(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length"))
    while len(body) < length:
        body += connection.recv(65_536)
    return sorted(lines), body


def answer(connection: socket.socket) -> tuple[int, Any]:
    """Status and body of an answer."""
    lines, body = head_and_body(connection)
    status = next(line for line in lines if line.startswith(b"http/1.1 "))
    return int(status.split()[1]), json.loads(body)


def is_closed(connection: socket.socket) -> bool:
    return connection.recv(1) == b""


def test_a_connection_without_a_request_is_cut_off(address: tuple[str, int]) -> None:
    with connected(address) as connection:
        status, body = answer(connection)
        assert status == 408
        assert body == {"error": "the headers did not arrive within 0.5 seconds: send them faster"}
        assert is_closed(connection)


def test_headers_that_trickle_are_cut_off(address: tuple[str, int]) -> None:
    with connected(address) as connection:
        connection.settimeout(0.05)
        for byte in REQUEST[:-40] * 100:
            try:
                connection.sendall(bytes([byte]))
                found = connection.recv(65_536)
            except TimeoutError:
                continue
            assert found.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
            return
        raise AssertionError("headers were awaited for ever")


def test_a_second_request_on_a_connection_has_its_own_time(
    address: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEADER_SECONDS", 60.0)
    with connected(address) as connection:
        for _ in range(3):
            connection.sendall(REQUEST[:30])
            connection.sendall(REQUEST[30:])
            status, body = answer(connection)
            assert status == 200 and len(body["items"]) == 2
        monkeypatch.setattr(connections, "HEADER_SECONDS", 0.1)
        connection.sendall(REQUEST[:30])
        assert answer(connection)[0] == 408
        assert is_closed(connection)


def test_long_headers_that_come_at_once_are_refused_too(address: tuple[str, int]) -> None:
    with connected(address) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: here\r\nX: " + b"a" * 70_000 + b"\r\n\r\n")
        status, body = answer(connection)
        assert (status, body) in (
            (431, {"error": "the headers are larger than 64 KiB: send less"}),  # read at once
            (400, {"error": "this is no request of HTTP/1.1, or its headers are larger than 64 KiB"}),
        )


def test_what_is_no_http_gets_a_sentence(address: tuple[str, int]) -> None:
    for sent in (
        b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a" * 70_000,
    ):
        with connected(address) as connection:
            connection.sendall(sent)
            status, body = answer(connection)
            assert status == 400
            assert str(body["error"]).startswith("this is no request of HTTP/1.1")


@pytest.fixture
def busy(ease: EASE, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Slow, tuple[str, int]]]:
    """A service with a request under way and another that waits, as many as may; and its address."""
    slow = Slow(ease)
    monkeypatch.setattr(connections, "HEADER_SECONDS", 2.0)
    monkeypatch.setattr(server, "KEEP_ALIVE_SECONDS", 1)
    with served_in_a_thread(Served(slow, "run", most_waiting=1, most_in_batch=1)) as url:
        host, _, port = url.removeprefix("http://").partition(":")
        place = host, int(port)
        with connected(place) as first, connected(place) as second:
            try:
                first.sendall(REQUEST)
                assert slow.began.wait(10)
                second.sendall(REQUEST)
                wait_until(lambda: b"cllm4rec_waiting 1.0" in text_of(place, "/metrics"))
                yield slow, place
            finally:
                slow.may_go.set()
            assert [answer(connection)[0] for connection in (first, second)] == [200, 200]


def text_of(address: tuple[str, int], path: str) -> bytes:
    """What a service answers to GET on a connection of its own."""
    with connected(address) as connection:
        connection.sendall(b"GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % path.encode())
        return all_of(connection)


def all_of(connection: socket.socket) -> bytes:
    """All that comes until the service closes a connection."""
    return b"".join(iter(lambda: connection.recv(65_536), b""))


def test_a_request_too_many_is_refused_by_the_connection(busy: tuple[Slow, tuple[str, int]]) -> None:
    """As the application refuses it, and the connection goes on."""
    slow, place = busy
    with connected(place) as connection:
        connection.sendall(REQUEST)
        refused = head_and_body(connection)
        assert b"http/1.1 503 service unavailable" in refused[0] and b"retry-after: 1" in refused[0]
        assert json.loads(refused[1]) == {"error": "too many requests wait: try again in a second"}
        connection.sendall(REQUEST[:30])  # in parts: the application answers
        connection.sendall(REQUEST[30:])
        assert head_and_body(connection) == refused
        connection.sendall(b"GET /similar?item=3 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert head_and_body(connection) == refused
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert answer(connection)[0] == 200
        connection.sendall(REQUEST)
        assert head_and_body(connection) == refused
        counts = text_of(place, "/metrics")
        assert b'cllm4rec_requests_total{path="/recommend",status="503"} 3.0' in counts
        assert b'cllm4rec_requests_total{path="/similar",status="503"} 1.0' in counts
        slow.may_go.set()
        wait_until(lambda: b"cllm4rec_waiting 0.0" in text_of(place, "/metrics"))
        connection.sendall(REQUEST)
        assert answer(connection)[0] == 200


def test_a_refused_connection_is_closed_when_its_client_wants_it(
    busy: tuple[Slow, tuple[str, int]],
) -> None:
    _, place = busy
    with connected(place) as connection:
        connection.sendall(REQUEST.replace(b"Host", b"Connection: Close\r\nHost"))
        lines, _ = head_and_body(connection)
        assert b"http/1.1 503 service unavailable" in lines and b"connection: close" in lines
        assert is_closed(connection)


def test_a_refused_connection_that_is_idle_is_closed_without_a_word(
    busy: tuple[Slow, tuple[str, int]],
) -> None:
    """The time for headers is not awaited any more, that of idle connections begins anew."""
    _, place = busy
    with connected(place) as connection:
        for _ in range(4):  # longer than an idle connection is kept
            time.sleep(0.4)
            connection.sendall(REQUEST)
            assert answer(connection)[0] == 503
        assert all_of(connection) == b""


def test_requests_whose_bodies_are_awaited_take_no_place_of_lists(ease: EASE) -> None:
    with (
        served_in_a_thread(Served(ease, "run", token="secret", most_waiting=1, most_in_batch=1)) as url,
        ExitStack() as stack,
    ):
        host, _, port = url.removeprefix("http://").partition(":")
        for _ in range(5):
            slow = stack.enter_context(connected((host, int(port))))
            slow.sendall(b"POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n")
        connection = stack.enter_context(connected((host, int(port))))
        connection.sendall(REQUEST.replace(b"Host", b"Authorization: Bearer secret\r\nHost"))
        assert answer(connection)[0] == 200


@pytest.mark.parametrize("n_first", [0, len(REQUEST) - len(BODY), len(REQUEST) - 5])
def test_requests_that_come_together_are_one_batch(
    n_first: int, ease: EASE, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a list is computed on the event loop, whole requests or the rests of six come."""
    slow = Slow(ease)
    sizes: list[int] = []

    def answered(model: EASE, jobs: list[Any]) -> list[Any]:
        sizes.append(len(jobs))
        return answers_of(model, jobs)

    monkeypatch.setattr(app, "answers_of", answered)
    with served_in_a_thread(Served(slow, "run")) as url, ExitStack() as stack:
        host, _, port = url.removeprefix("http://").partition(":")
        one, *others = [stack.enter_context(connected((host, int(port)))) for _ in range(7)]
        slow.may_go.set()
        one.sendall(REQUEST)
        assert answer(one)[0] == 200
        for connection in others:
            connection.sendall(REQUEST[:n_first])
        text_of((host, int(port)), "/health")  # they were read
        for each in (slow.may_go, slow.began, sizes):
            each.clear()
        one.sendall(REQUEST)
        assert slow.began.wait(10)
        for connection in others:
            connection.sendall(REQUEST[n_first:])
        slow.may_go.set()
        assert [answer(connection)[0] for connection in (one, *others)] == [200] * 7
    assert sizes == [1, 6]


HEAD = b"\r\n".join([*HEADERS, b"Content-Length: 19"])
HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        [REQUEST + REQUEST],
        [REQUEST[:-5], REQUEST[-5:]],
        [REQUEST[:20], REQUEST[20:]],
        [HEAD[:-1], b"9\r\n\r\n" + BODY],
        [HEAD, b"\r\n\r\n" + BODY],
        [REQUEST.replace(b"POST", b"HEAD")],
        [REQUEST.replace(b"POST", b"OPTIONS")],
        [REQUEST.replace(b"Host", b"Expect: 100-continue\r\nHost")],
        [REQUEST.replace(b"Host", b"Content-Length: 3\r\nHost")],
        [REQUEST.replace(b"Length: 1", b"Length: +1")],
        [REQUEST.replace(b"Length: 19", b"Length: " + b"9" * 5_000)],
        [b"\r\n".join([*HEADERS, b"Transfer-Encoding: chunked", b"", b"13", BODY, b"0", b"", b""])],
        [b"POST /recommend HTTP/1.1\r\nHost: here\nContent-Length: %d\r\n\r\n" % len(HEALTH), HEALTH],
        [b"POST /recommend HTTP/1.1\r\nHost: here\r\nContent-Length : %d\r\n\r\n" % len(HEALTH), HEALTH],
        [b"POST /recommend HTTP/1.1\r\nHost: here\nTransfer-Encoding: chunked\r\n\r\n", b"0\r\n\r\n"],
        [b"GET /similar?item=3 HTTP/1.1\r\nHost: here\n\n" + HEALTH],
        [b"GET /similar?item=3 HTTP/1.1\r\n\r\n"],
        [b"GET /similar?item=3 HTTP/1.1\r\nHost: here\r\nHost: there\r\n\r\n"],
        [b"GET /similar?item=3 HTTP/1.1\r\nHost: here\r\nOther: \0\r\n\r\n"],
        [b"GET /similar?item=3 HTTP/1.1\r\nHost: here\r\nother\r\n\r\n"],
        [b"GET /similar?item=3 HTTP/1.1\r\nHost: here\r\nConnection:\r\n close\r\n\r\n"],
        [b"GET /%68ealth HTTP/1.1\r\nHost: here\r\n\r\n"],
        [b"GET http://here/health HTTP/1.1\r\nHost: here\r\n\r\n"],
        [REQUEST.replace(b"HTTP/1.1", b"HTTP/1.0")],
        [b"\r\n" + REQUEST],
    ],
)
def test_what_is_less_plain_is_read_by_the_library_alone(
    busy: tuple[Slow, tuple[str, int]], address: tuple[str, int], sent: list[bytes]
) -> None:
    """A service that refuses finds as many requests in the same bytes as one that is idle."""
    _, full = busy

    def n_answers(place: tuple[str, int]) -> int:
        with connected(place) as connection:
            for data in sent:
                connection.sendall(data)
                time.sleep(0.1)
            try:
                connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                received = all_of(connection)
            except (BrokenPipeError, ConnectionResetError):
                received = b""
        return len(re.findall(rb"HTTP/1\.1 [2-5]\d\d ", received))

    assert n_answers(full) == n_answers(address)
