"""Requests that wait together are answered together, on one thread."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Request = TypeVar("Request")
Answer = TypeVar("Answer")


class FullError(Exception):
    """As many requests wait as may."""


class Batches(Generic[Request, Answer]):
    """Answers requests in batches, one batch at a time.

    A request that comes while nothing is computed is begun at once. Those that come meanwhile wait for the
    batch under way, and are the next one together.

    Args:
        answer: gives the answer of each request of a batch, or its error. It is called in a thread.
        most: requests in a batch.
        most_waiting: requests that may wait.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Request]], Sequence[Answer | Exception]],
        most: int,
        most_waiting: int,
    ) -> None:
        self._answer, self._most, self._most_waiting = answer, most, most_waiting
        self._waiting: list[tuple[Request, asyncio.Future[Answer]]] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="lists")
        self._under_way: asyncio.Task[None] | None = None

    @property
    def n_waiting(self) -> int:
        """Requests that wait for the batch under way."""
        return len(self._waiting)

    async def answer(self, request: Request) -> Answer:
        """The answer of a request.

        Raises:
            FullError: as many requests wait as may.
            Exception: that of the request.
        """
        if len(self._waiting) >= self._most_waiting:
            raise FullError
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, future))
        if self._under_way is None or self._under_way.done():
            self._under_way = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        """Answer batches until none waits."""
        while self._waiting:
            batch, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
            batch = [(request, future) for request, future in batch if not future.cancelled()]
            if not batch:
                continue
            requests = [request for request, _ in batch]
            try:
                answers = await asyncio.get_running_loop().run_in_executor(
                    self._thread, self._answer, requests
                )
            except Exception as error:  # of all requests
                answers = [error] * len(batch)
            for (_, future), answer in zip(batch, answers, strict=True):
                if future.done():  # its client has gone
                    continue
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)

    def close(self) -> None:
        """End the thread, after the batch under way."""
        self._thread.shutdown()
