"""The server process: listens, loads a run anew on SIGHUP, and ends gracefully."""

import asyncio
import gc
import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

import uvicorn

from cllm4rec.messages import error_line
from cllm4rec.models.base import Recommender
from cllm4rec.service.app import Served, application
from cllm4rec.service.connections import Connection
from cllm4rec.service.limits import is_loopback

log = logging.getLogger("cllm4rec")

KEEP_ALIVE_SECONDS = 5  # that an idle connection is kept
SWITCH_SECONDS = 2e-4  # that requests and computation wait for each other; Python's default is 5 ms
BACKLOG = 2048  # connections that wait to be accepted
END_SECONDS = 30  # in which requests under way have to end


class Options(Protocol):
    """What `serve` needs of the flags."""

    run: str
    host: str
    port: int
    most_waiting: int


class Server(uvicorn.Server):
    """A server whose signals are handled by `serve`."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals as they are."""
        yield


def serve(load: Callable[[], Recommender], options: Options, token: str | None) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        load: gives the model; called again on SIGHUP.
        options: of the command.
        token: that requests have to bear; None for none.

    Raises:
        ValueError: the address cannot be listened on, or the run cannot be served.
    """
    listening = _listening(options.host, options.port)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the run is loaded; else it would end the process
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # its warnings are of invalid requests
    only_host = _only_host(options.host, listening.getsockname()[0], token)
    served = Served(load(), options.run, token, only_host, most_waiting=options.most_waiting)
    sys.setswitchinterval(SWITCH_SECONDS)
    spare_collections()
    with listening:
        asyncio.run(_serve(Server(configured(served)), listening, served, load))


def spare_collections() -> None:
    """Leave what is loaded out of further garbage collections, which stop all requests for 0.3 s."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def configured(served: Served) -> uvicorn.Config:
    """How the server answers connections."""
    app = application(served)
    connection: Any = partial(Connection, overload=app.state.overload)  # uvicorn calls it like a class
    return uvicorn.Config(
        app,
        http=connection,
        ws="none",
        proxy_headers=False,  # addresses of clients are not used
        log_config=None,
        access_log=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=END_SECONDS,
        server_header=False,
    )


def _only_host(host: str, address: str, token: str | None) -> str | None:
    """The host that requests have to name, as `Limits` takes it. A service that is open to all is warned of.

    Args:
        host: as it was typed.
        address: that it has.
        token: that requests have to bear; None for none.
    """
    if token is not None:
        return None
    if is_loopback(address):
        return host
    log.warning("anybody who reaches %s may use the service: --token-file names a token", host)
    return None


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        ValueError: it cannot.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=BACKLOG)
        # Connections inherit it. Without it an answer waits 40 ms for the client's delayed acknowledgement.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except OSError as error:
        reason = error_line(error).partition(" (while")[0]  # what the library adds names the address again
        raise ValueError(
            f"cannot listen on {host}, port {port} ({reason}): give another `host` or `port`"
        ) from error


async def _serve(
    server: Server, listening: socket.socket, served: Served, load: Callable[[], Recommender]
) -> None:
    loop, reloading = asyncio.get_running_loop(), asyncio.Lock()

    async def reload() -> None:
        async with reloading:
            try:
                served.model = await asyncio.to_thread(load)
                spare_collections()
            except Exception as error:
                log.error("the run was not loaded anew, the old one is served: %s", error_line(error))
            else:
                log.info("the run was loaded anew: %s", served.run)

    tasks: set[asyncio.Task[None]] = set()

    def begin_reload() -> None:
        task = asyncio.create_task(reload())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    loop.add_signal_handler(signal.SIGHUP, begin_reload)

    def end(number: int) -> None:
        served.is_ending = True
        server.handle_exit(number, None)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end, number)
    host, port = listening.getsockname()[:2]
    log.info("serving on http://%s:%d", f"[{host}]" if ":" in host else host, port)
    await server.serve(sockets=[listening])
