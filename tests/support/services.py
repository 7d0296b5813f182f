"""A service in a thread of the tests."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from cllm4rec import EASE
from cllm4rec.service.app import Served
from cllm4rec.service.server import _listening, configured


@contextmanager
def served_in_a_thread(served: Served) -> Iterator[str]:
    """The address of a service, which runs in this process."""
    with _listening("127.0.0.1", 0) as listening:
        server = uvicorn.Server(configured(served))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


class Slow(EASE):
    """Answers when it may."""

    def __init__(self, ease: EASE) -> None:
        vars(self).update(vars(ease))
        self.began, self.may_go = threading.Event(), threading.Event()

    def _ranked(self, *arguments: Any) -> Any:
        self.began.set()
        assert self.may_go.wait(10)
        return super()._ranked(*arguments)
