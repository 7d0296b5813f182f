"""Requests that wait together are answered together, one batch at a time."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Generic, TypeVar

Request = TypeVar("Request")
Answer = TypeVar("Answer")
QUICK_SECONDS = 0.05  # a batch that should take less is computed on the event loop
TURNS = 3  # of the event loop before a batch: it reads requests, begins their tasks, and these wait here


class FullError(Exception):
    """As many requests wait as may."""


class Batches(Generic[Request, Answer]):
    """Answers requests in batches, one batch at a time.

    A request that comes alone, while nothing is computed, is begun at once. Those that come meanwhile wait
    for the batch under way, and are the next one together.

    A batch of a quick kind is computed on the event loop, if it should take less than `QUICK_SECONDS` by the
    time for a request of the batch before. A thread would wait for the global interpreter lock (GIL) at each
    of its many short operations. Other batches are computed in a thread, so that the event loop takes
    further requests meanwhile.

    Args:
        answer: gives the answer of each request of a batch, or its error.
        most: requests in a batch.
        most_waiting: requests that may wait for the batch under way.
        is_quick: whether a request is of the kind whose last time is a guide to the next.
        is_alone: whether no other request was read that will wait in a moment.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Request]], Sequence[Answer | Exception]],
        most: int,
        most_waiting: int,
        is_quick: Callable[[Request], bool] = lambda request: False,
        is_alone: Callable[[], bool] = lambda: False,
    ) -> None:
        self._answer, self._most, self._most_waiting = answer, most, most_waiting
        self._is_quick, self._is_alone = is_quick, is_alone
        self._seconds_each = float("inf")  # for a request of the last batch
        self._waiting: list[tuple[Request, asyncio.Future[Answer]]] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="lists")
        self._under_way: asyncio.Task[None] | None = None
        self._is_computing = False

    @property
    def n_waiting(self) -> int:
        """Requests that wait for a batch."""
        return len(self._waiting)

    def is_full(self, n_arriving: int = 0) -> bool:
        """Whether no further request may wait.

        Args:
            n_arriving: requests that will wait in a moment.
        """
        next_batch = 0 if self._is_computing else self._most
        return len(self._waiting) + n_arriving >= self._most_waiting + next_batch

    async def answer(self, request: Request) -> Answer:
        """The answer of a request.

        Raises:
            FullError: as many requests wait as may.
            Exception: that of the request.
        """
        if self.is_full():
            raise FullError
        is_idle = self._under_way is None or self._under_way.done()
        if is_idle and self._is_alone() and self._fits_event_loop([request]):
            (answer,) = self._timed(time.perf_counter, [request])
            if isinstance(answer, Exception):
                raise answer
            return answer
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, future))
        if is_idle:
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
            self._is_computing = True
            try:
                answers = await self._computed(requests)
            except Exception as error:  # of all requests
                answers = [error] * len(batch)
            finally:
                self._is_computing = False
            for (_, future), answer in zip(batch, answers, strict=True):
                if future.done():  # its client has gone
                    continue
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)

    async def _computed(self, requests: Sequence[Request]) -> Sequence[Answer | Exception]:
        """What `answer` gives, on the event loop or in the thread."""
        if self._fits_event_loop(requests):
            return self._timed(time.perf_counter, requests)
        in_thread = partial(asyncio.get_running_loop().run_in_executor, self._thread)
        if not all(map(self._is_quick, requests)):
            return await in_thread(self._answer, requests)
        return await in_thread(self._timed, time.thread_time, requests)  # waits for the GIL do not count

    def _fits_event_loop(self, requests: Sequence[Request]) -> bool:
        """Whether a batch is of a quick kind and should take little time."""
        return self._seconds_each * len(requests) < QUICK_SECONDS and all(map(self._is_quick, requests))

    def _timed(self, clock: Callable[[], float], requests: Sequence[Request]) -> Sequence[Answer | Exception]:
        """What `answer` gives; notes the time for a request."""
        began = clock()
        try:
            return self._answer(requests)
        finally:
            self._seconds_each = (clock() - began) / len(requests)

    def close(self) -> None:
        """End the thread, after the batch under way."""
        self._thread.shutdown()
