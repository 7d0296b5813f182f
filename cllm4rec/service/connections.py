"""Connections: requests whose headers are slow, missing or invalid are answered, and cut off."""

import asyncio
import json

import h11
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

HEADER_SECONDS = 10.0  # in which the headers of a request have to arrive


class Connection(H11Protocol):
    """A connection that is given `HEADER_SECONDS` for the headers of each request that has begun."""

    _waiting: asyncio.TimerHandle | None = None  # for headers

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
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
