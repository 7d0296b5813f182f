"""Connections: requests that are slow or invalid, or too many, are answered without the application."""

import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from cllm4rec.service.limits import UNQUEUED_PATHS, busy

HEADER_SECONDS = 10.0  # in which the headers of a request have to arrive
PLAIN_HEAD = re.compile(
    rb"(?:GET|POST) (/[!-$&-~]*) HTTP/1\.1\r\n"  # a path without %
    rb"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~\x80-\xff]*\r\n)+"
)
LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,20})[ \t]*\r\n")
CLOSES = re.compile(rb"\r\nconnection:[^\r]*\bclose\b")
BUSY = busy()
BUSY_HEADERS = b"".join(b"%s: %s\r\n" % header for header in BUSY.raw_headers)


class JoinedWrites:
    """A transport that sends together what is written in one turn of the event loop.

    The library writes head and body of an answer apart. Two sends would wake the client twice.

    Args:
        transport: of a connection; it has all other methods.
        loop: the event loop.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._parts: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send data at the end of the turn."""
        if not self._parts:
            self._loop.call_soon(self._send)
        self._parts.append(data)

    def close(self) -> None:
        """Send what was written, and close."""
        self._send()
        self._transport.close()

    def _send(self) -> None:
        parts, self._parts = self._parts, []
        if parts and not self._transport.is_closing():
            self._transport.write(b"".join(parts))


@dataclass
class Overload:
    """When connections refuse requests by themselves.

    Attributes:
        is_full: whether no further request may wait, given the number that were read and do not wait yet.
        count_refusal: called with the path of each request that is refused.
        n_arriving: requests of all connections that were read and will wait, but whose tasks have not gone on
            yet: a task begins after the head, and goes on after a body that came later.
    """

    is_full: Callable[[int], bool]
    count_refusal: Callable[[str], None]
    n_arriving: int = 0


class Connection(H11Protocol):
    """A connection that is given `HEADER_SECONDS` for the headers of each request that has begun.

    While no further request may wait, it refuses plain ones by itself. That costs much less than a refusal by
    the application, which leaves time for lists.

    Args:
        overload: of the service.
    """

    _header_timer: asyncio.TimerHandle | None = None

    def __init__(self, *args: Any, overload: Overload, **named: Any) -> None:
        super().__init__(*args, **named)
        self._overload = overload

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(JoinedWrites(transport, self.loop))  # type: ignore[arg-type]
        self._start_header_timer()

    def data_received(self, data: bytes) -> None:
        overload, n_tasks, cycle = self._overload, len(self.tasks), self.cycle
        if overload.is_full(overload.n_arriving) and self._refused(data):
            return
        waits_for_body = cycle is not None and cycle.more_body
        super().data_received(data)
        n_going_on = len(self.tasks) - n_tasks
        if waits_for_body and cycle is not None and not cycle.more_body:
            n_going_on += 1
        if n_going_on and self.scope["path"] not in UNQUEUED_PATHS:
            overload.n_arriving += n_going_on
            self.loop.call_soon(self._arrived, n_going_on)  # after the next step of their tasks
        if self.conn.their_state is not h11.IDLE:
            self._stop_header_timer()
        elif self._header_timer is None:
            self._start_header_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_header_timer()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no request. The library's text says less."""
        self._refuse(400, "this is no request of HTTP/1.1, or its headers are larger than 64 KiB")

    def _arrived(self, number: int) -> None:
        self._overload.n_arriving -= number

    def _refused(self, data: bytes) -> bool:
        """Answer that too many requests wait, if the data is one whole, plain request that would wait.

        All else is left to the library: requests in parts, other methods, bodies in chunks, and headers that
        two readers might not read alike.
        """
        is_idle = self.conn.our_state is h11.IDLE and self.conn.trailing_data == (b"", False)
        head, end, body = data.partition(b"\r\n\r\n")
        head += b"\r\n"
        plain = PLAIN_HEAD.fullmatch(head) if is_idle and end and not self.flow.write_paused else None
        if plain is None:
            return False
        path, head = plain[1].partition(b"?")[0].decode(), head.lower()
        lengths = LENGTH.findall(head)
        if (
            path in UNQUEUED_PATHS
            or head.count(b"\r\nhost:") != 1
            or head.count(b"\r\ncontent-length:") != len(lengths)
            or len(lengths) > 1
            or int(lengths[0] if lengths else 0) != len(body)
            or b"\r\ntransfer-encoding:" in head
            or b"\r\nexpect:" in head
        ):
            return False
        self._stop_header_timer()
        self._unset_keepalive_if_required()
        headers = [b"%s: %s\r\n" % header for header in self.server_state.default_headers]
        closes = CLOSES.search(head) is not None
        if closes:
            headers.append(b"connection: close\r\n")
        start = b"HTTP/1.1 503 %s\r\n" % STATUS_PHRASES[503]
        self.transport.write(b"".join([start, *headers, BUSY_HEADERS, b"\r\n", BUSY.body]))
        self._overload.count_refusal(path)
        if closes:
            self.transport.close()
        else:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
        return True

    def _start_header_timer(self) -> None:
        self._header_timer = self.loop.call_later(HEADER_SECONDS, self._too_slow)

    def _stop_header_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _too_slow(self) -> None:
        self._header_timer = None
        self._refuse(408, f"the headers did not arrive within {HEADER_SECONDS:g} seconds: send them faster")

    def _refuse(self, status: int, sentence: str) -> None:
        """Answer without a request, and close."""
        self._stop_header_timer()
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
