"""A service in a thread of the tests."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

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
