"""Requests that wait together are answered together, one batch at a time."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Request = TypeVar("Request")
Answer = TypeVar("Answer")
QUICK_SECONDS = 0.02  # for which the event loop may be held; a thread for less costs more than it gains


class FullError(Exception):
    """As many requests wait as may."""


class Batches(Generic[Request, Answer]):
    """Answers requests in batches, one batch at a time.

    A request that comes while nothing is computed is begun at once. Those that come meanwhile wait for the
    batch under way, and are the next one together.

    Batches are computed in a thread, so that the event loop takes further requests meanwhile. A request alone
    of a quick kind is computed on the event loop, if the one before took less than `QUICK_SECONDS`.

    Args:
        answer: gives the answer of each request of a batch, or its error.
        most: requests in a batch.
        most_waiting: requests that may wait.
        is_quick: whether a request is of the kind whose last time is a guide to the next.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Request]], Sequence[Answer | Exception]],
        most: int,
        most_waiting: int,
        is_quick: Callable[[Request], bool] = lambda request: False,
    ) -> None:
        self._answer, self._most, self._most_waiting = answer, most, most_waiting
        self._is_quick, self._last_seconds = is_quick, float("inf")
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
                answers = await self._computed(requests)
            except Exception as error:  # of all requests
                answers = [error] * len(batch)
            for (_, future), answer in zip(batch, answers, strict=True):
                if future.done():  # its client has gone
                    continue
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)

    async def _computed(self, requests: Sequence[Request]) -> Sequence[Answer | Exception]:
        """What `answer` gives, on the event loop or in the thread."""
        alone = len(requests) == 1 and self._is_quick(requests[0])
        began = time.perf_counter()
        try:
            if alone and self._last_seconds < QUICK_SECONDS:
                return self._answer(requests)
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._answer, requests)
        finally:
            if alone:
                self._last_seconds = time.perf_counter() - began

    def close(self) -> None:
        """End the thread, after the batch under way."""
        self._thread.shutdown()
