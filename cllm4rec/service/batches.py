"""Requests that wait together are answered together, one batch at a time."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Request = TypeVar("Request")
Answer = TypeVar("Answer")
QUICK_SECONDS = 0.05  # of computation, for which the event loop may be held
TURNS = 4  # of the event loop before a batch: it sends answers, reads requests, and queues or refuses them


class FullError(Exception):
    """As many requests wait as may."""


class Batches(Generic[Request, Answer]):
    """Answers requests in batches, one batch at a time.

    A request that comes while nothing is computed is begun at once. Those that come meanwhile wait for the
    batch under way, and are the next one together.

    A batch of a quick kind is computed on the event loop, if the one before took less than `QUICK_SECONDS`. A
    thread would lose the interpreter to the event loop at each of its many short operations. Other batches
    are computed in a thread, so that the event loop takes further requests meanwhile.

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
        self._n_computed = 0

    @property
    def n_waiting(self) -> int:
        """Requests that wait for the batch under way."""
        return len(self._waiting)

    def is_full(self, n_under_way: int = 0) -> bool:
        """Whether no further request may wait.

        Args:
            n_under_way: requests that have begun, some of which may not have come here yet.
        """
        return max(len(self._waiting), n_under_way - self._n_computed) >= self._most_waiting

    async def answer(self, request: Request) -> Answer:
        """The answer of a request.

        Raises:
            FullError: as many requests wait as may.
            Exception: that of the request.
        """
        if self.is_full():
            raise FullError
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, future))
        if self._under_way is None or self._under_way.done():
            self._under_way = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        """Answer batches until none waits."""
        while self._waiting:
            for _ in range(TURNS):
                await asyncio.sleep(0)
            batch, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
            batch = [(request, future) for request, future in batch if not future.cancelled()]
            if not batch:
                continue
            requests = [request for request, _ in batch]
            self._n_computed = len(batch)
            try:
                answers = await self._computed(requests)
            except Exception as error:  # of all requests
                answers = [error] * len(batch)
            finally:
                self._n_computed = 0
            for (_, future), answer in zip(batch, answers, strict=True):
                if future.done():  # its client has gone
                    continue
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)

    async def _computed(self, requests: Sequence[Request]) -> Sequence[Answer | Exception]:
        """What `answer` gives, on the event loop or in the thread."""
        if not all(map(self._is_quick, requests)):
            return await self._in_thread(self._answer, requests)
        if self._last_seconds < QUICK_SECONDS:
            return self._timed(requests)
        return await self._in_thread(self._timed, requests)

    async def _in_thread(
        self, answer: Callable[[Sequence[Request]], Sequence[Answer | Exception]], requests: Sequence[Request]
    ) -> Sequence[Answer | Exception]:
        return await asyncio.get_running_loop().run_in_executor(self._thread, answer, requests)

    def _timed(self, requests: Sequence[Request]) -> Sequence[Answer | Exception]:
        """What `answer` gives, and how long its thread computed."""
        began = time.thread_time()
        try:
            return self._answer(requests)
        finally:
            self._last_seconds = time.thread_time() - began

    def close(self) -> None:
        """End the thread, after the batch under way."""
        self._thread.shutdown()
