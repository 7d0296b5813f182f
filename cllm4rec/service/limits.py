"""What stands before every path: the token, the limits of a body, and the metrics."""

import asyncio
import hmac
import ipaddress
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cllm4rec.service.page import PATHS as PAGE_PATHS

MOST_BYTES = 4 << 20  # of a body
MOST_HEADER_BYTES = 64 << 10  # of all headers; the library refuses longer ones that come in parts
GONE = 499  # status in the metrics of a request whose client has gone; it gets no answer
BODY_SECONDS = 10.0  # in which a body has to arrive
OPEN_PATHS = ("/health", *PAGE_PATHS)  # that need no token
UNQUEUED_PATHS = (*OPEN_PATHS, "/metrics", "/openapi.json")  # that wait for no batch


class Metrics:
    """What Prometheus reads from /metrics.

    Attributes:
        paths: that are counted by their names; all others are "other".
    """

    def __init__(self, registry: CollectorRegistry, n_waiting: Callable[[], int]) -> None:
        self.paths = frozenset[str]()
        of_path = ["path", "status"]
        self.requests = Counter(
            "cllm4rec_requests", "Requests by path and status.", of_path, registry=registry
        )
        self.seconds = Histogram("cllm4rec_seconds", "Seconds of a request.", ["path"], registry=registry)
        waiting = Gauge("cllm4rec_waiting", "Requests that wait for a batch.", registry=registry)
        waiting.set_function(n_waiting)

    def count(self, path: str, status: int, seconds: float | None = None) -> None:
        """Count a request, and its seconds unless they are None."""
        counted = path if path in self.paths else "other"
        self.requests.labels(counted, status).inc()
        if seconds is not None:
            self.seconds.labels(counted).observe(seconds)


def problem(status: int, sentence: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """An answer that says what is wrong, and what to do. Backticks around names of fields are left out."""
    return JSONResponse({"error": sentence.replace("`", "")}, status, headers)


def busy() -> JSONResponse:
    """The answer to a request for which there is no room in the queue."""
    return problem(503, "too many requests wait: try again in a second", {"Retry-After": "1"})


def is_loopback(host: str) -> bool:
    """Whether a host is `localhost` or a loopback address; other names are not looked up."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Limits:
    """Checks host and token, reads the body within its limits, and counts requests.

    Requests that a full queue could not take are refused before their body is read. That costs little, so
    that the requests in the queue are answered meanwhile.

    Args:
        app: what answers the requests that may go on.
        token: that they have to bear; None for none.
        only_host: host that requests have to name, unless they name a loopback one; None: any host. It keeps
            a web page from reading answers by giving its own name the address 127.0.0.1 (DNS rebinding).
        metrics: that are counted.
        is_full: whether no further request may wait.
        is_ending: whether the service ends after the requests under way; answers then close connections.
    """

    def __init__(
        self,
        app: ASGIApp,
        token: str | None,
        only_host: str | None,
        metrics: Metrics,
        is_full: Callable[[], bool],
        is_ending: Callable[[], bool],
    ) -> None:
        self.app, self.token, self.only_host, self.metrics = app, token, only_host, metrics
        self.is_full, self.is_ending = is_full, is_ending

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request, began, status = Request(scope, receive), time.perf_counter(), 500
        path: str = scope["path"]

        async def send_counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self.is_ending():
                    headers = [*message.get("headers", ()), (b"connection", b"close")]
                    message = {**message, "headers": headers}
            await send(message)

        try:
            answer = _long_headers(request) or self._misdirected(request) or self._unauthorised(request)
            if answer is None and path not in UNQUEUED_PATHS and self.is_full():
                answer = busy()
            body = await _body(request) if answer is None else b""
            if isinstance(body, bytes) and answer is None:
                await self.app(scope, replayed(body, receive), send_counted)
            else:
                refused = answer if answer is not None else body
                assert isinstance(refused, JSONResponse)
                await refused(scope, receive, send_counted)
        except ClientDisconnect:  # within its body
            status = GONE
        finally:
            self.metrics.count(path, status, time.perf_counter() - began)

    def _misdirected(self, request: Request) -> JSONResponse | None:
        """The answer to a request for another host; None if it may go on."""
        if self.only_host is None:
            return None
        try:
            host = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""  # in lower case
            if is_loopback(host) or host == self.only_host.lower():
                return None
        except ValueError:  # the header holds no host
            pass
        sentence = (
            "without a token the service is reached as localhost or 127.0.0.1 alone, not under another name"
        )
        return problem(400, f"{sentence}: start it with --token-file, or let the proxy send Host: localhost")

    def _unauthorised(self, request: Request) -> JSONResponse | None:
        """The answer to a request without the token; None if it may go on."""
        if self.token is None or request.scope["path"] in OPEN_PATHS:
            return None
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(given.encode(), self.token.encode()):
            return None
        sentence = "the token is missing or wrong: send the header Authorization: Bearer TOKEN"
        return problem(401, sentence, {"WWW-Authenticate": "Bearer"})


def _long_headers(request: Request) -> JSONResponse | None:
    """The answer to a request with too many or too long headers; None if it may go on."""
    if sum(len(name) + len(value) for name, value in request.scope["headers"]) <= MOST_HEADER_BYTES:
        return None
    return problem(431, f"the headers are larger than {MOST_HEADER_BYTES >> 10} KiB: send less")


async def _body(request: Request) -> bytes | JSONResponse:
    """The body of a request; an answer if it is too large or too slow."""
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > MOST_BYTES:
        return _too_large()
    parts, size = [], 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                size += len(part)
                if size > MOST_BYTES:
                    return _too_large()
                parts.append(part)
    except TimeoutError:
        return problem(408, f"the body did not arrive within {BODY_SECONDS:g} seconds: send it faster")
    return b"".join(parts)


def _too_large() -> JSONResponse:
    return problem(413, f"the body is larger than {MOST_BYTES >> 20} MiB: send less")


def replayed(body: bytes, receive: Receive) -> Receive:
    """Gives the body that was read, and then what `receive` gives."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
