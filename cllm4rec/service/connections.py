"""Connections: requests that are slow or invalid, or too many, are answered without the application."""

import asyncio
import json
import re
from collections.abc import Callable
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from cllm4rec.service.limits import UNQUEUED_PATHS, busy

HEADER_SECONDS = 10.0  # in which the headers of a request have to arrive
REQUEST_LINE = re.compile(rb"(?:GET|POST) (/[!-~]*) HTTP/1\.1\r\n")
LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)[ \t]*\r\n")
CLOSES = re.compile(rb"\r\nconnection:[^\r]*\bclose\b")
BUSY = busy()
BUSY_HEADERS = b"".join(b"%s: %s\r\n" % header for header in BUSY.raw_headers)


class Connection(H11Protocol):
    """A connection that is given `HEADER_SECONDS` for the headers of each request that has begun.

    While no further request may wait, it refuses plain ones by itself. That takes a fifth of the time of a
    refusal by the application, which leaves time for lists.

    Args:
        is_full: whether no further request may wait, given the number that are under way.
        count_refusal: called with the path of each request that is refused.
    """

    _waiting: asyncio.TimerHandle | None = None  # for headers

    def __init__(
        self, *args: Any, is_full: Callable[[int], bool], count_refusal: Callable[[str], None], **named: Any
    ) -> None:
        super().__init__(*args, **named)
        self._is_full, self._count_refusal = is_full, count_refusal

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        if self._is_full(len(self.tasks)) and self._refused(data):
            return
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._stop_waiting()
        elif self._waiting is None:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no request. The library's text says less."""
        self._refuse(400, "this is no request of HTTP/1.1, or its headers are larger than 64 KiB")

    def _refused(self, data: bytes) -> bool:
        """Answer that too many requests wait, if the data is a whole request that would wait.

        Whatever is less plain is left to the library and the application: a request in parts or one of
        several, other methods, a body in chunks.
        """
        is_idle = self.conn.our_state is h11.IDLE and self.conn.trailing_data == (b"", False)
        line = REQUEST_LINE.match(data) if is_idle else None
        if line is None:
            return False
        path = line[1].partition(b"?")[0].decode()
        head, end, body = data.partition(b"\r\n\r\n")
        head = head.lower() + b"\r\n"
        lengths = LENGTH.findall(head)
        if (
            path in UNQUEUED_PATHS
            or not end
            or head.count(b"\r\ncontent-length:") != len(lengths)
            or len(lengths) > 1
            or int(lengths[0] if lengths else 0) != len(body)
            or b"\r\ntransfer-encoding:" in head
            or b"\r\nexpect:" in head
        ):
            return False
        self._stop_waiting()
        self._unset_keepalive_if_required()
        headers = [b"%s: %s\r\n" % header for header in self.server_state.default_headers]
        closes = CLOSES.search(head) is not None
        if closes:
            headers.append(b"connection: close\r\n")
        start = b"HTTP/1.1 503 %s\r\n" % STATUS_PHRASES[503]
        self.transport.write(b"".join([start, *headers, BUSY_HEADERS, b"\r\n", BUSY.body]))
        self._count_refusal(path)
        if closes:
            self.transport.close()
        else:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
        return True

    def _wait(self) -> None:
        self._waiting = self.loop.call_later(HEADER_SECONDS, self._too_slow)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _too_slow(self) -> None:
        self._waiting = None
        self._refuse(408, f"the headers did not arrive within {HEADER_SECONDS:g} seconds: send them faster")

    def _refuse(self, status: int, sentence: str) -> None:
        """Answer without a request, and close."""
        self._stop_waiting()
        if self.transport.is_closing():
            return
        body = json.dumps({"error": sentence}).encode()
        lines = [
            b"HTTP/1.1 %d %s" % (status, STATUS_PHRASES[status]),
            b"content-type: application/json",
            b"content-length: %d" % len(body),
            b"connection: close",
        ]
        self.transport.write(b"\r\n".join([*lines, b"", body]))
        self.transport.close()
