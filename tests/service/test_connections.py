"""Slow, half-open and invalid requests over sockets."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from cllm4rec import EASE
from cllm4rec.service import connections
from cllm4rec.service.app import Served
from tests.support.services import served_in_a_thread

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


def answer(connection: socket.socket) -> tuple[int, Any]:
    """Status and body of an answer."""
    data = b""
    while b"\r\n\r\n" not in data:
        received = connection.recv(65_536)
        assert received, "the connection was closed without an answer"
        data += received
    head, _, body = data.partition(b"\r\n\r\n")
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")]
    length = int(lengths[0].split(b":")[1])
    while len(body) < length:
        body += connection.recv(65_536)
    return int(head.split()[1]), json.loads(body)


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
