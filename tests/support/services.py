"""A service in a thread of the tests."""

import threading
import time
from collections.abc import Callable, Iterator
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


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait up to ten seconds for a condition."""
    end = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < end, "the condition did not come true in ten seconds"
        time.sleep(0.01)


class Slow(EASE):
    """Answers when it may."""

    def __init__(self, ease: EASE) -> None:
        vars(self).update(vars(ease))
        self.began, self.may_go = threading.Event(), threading.Event()

    def _ranked(self, *arguments: Any) -> Any:
        self.began.set()
        assert self.may_go.wait(10)
        return super()._ranked(*arguments)
