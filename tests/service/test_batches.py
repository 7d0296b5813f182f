"""Batches of requests: order, limits, errors of one request, and a thread at a time."""

import asyncio
import socket
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest

from cllm4rec import EASE
from cllm4rec.service.batches import QUICK_SECONDS, Batches, FullError
from cllm4rec.service.lists import answers_of
from cllm4rec.service.requests import ListRequest


class Recorder:
    """Doubles numbers; negative ones are refused. Batches wait until they are let go."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.may_go = threading.Event()

    def answer(self, numbers: Sequence[int]) -> list[int | Exception]:
        self.batches.append(list(numbers))
        assert self.may_go.wait(10)
        return [ValueError(str(number)) if number < 0 else 2 * number for number in numbers]


def test_requests_that_wait_are_answered_together() -> None:
    recorder = Recorder()

    async def main() -> list[int | BaseException]:
        batches = Batches(recorder.answer, most=3, most_waiting=10)
        tasks = [asyncio.create_task(batches.answer(number)) for number in (1, 2, -3, 4, 5)]
        await asyncio.sleep(0.05)
        assert (recorder.batches, batches.n_waiting) == ([[1, 2, -3]], 2)
        recorder.may_go.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    answers = asyncio.run(main())
    assert [str(answer) for answer in answers] == ["2", "4", "-3", "8", "10"]
    assert isinstance(answers[2], ValueError)
    assert recorder.batches == [[1, 2, -3], [4, 5]]


def test_further_requests_are_refused_while_as_many_wait_as_may() -> None:
    recorder = Recorder()

    async def main() -> None:
        batches = Batches(recorder.answer, most=1, most_waiting=2)
        tasks = [asyncio.create_task(batches.answer(0))]
        await asyncio.sleep(0.05)
        tasks += [asyncio.create_task(batches.answer(number)) for number in (1, 2)]
        await asyncio.sleep(0.05)
        assert batches.is_full() and batches.n_waiting == 2
        with pytest.raises(FullError):
            await batches.answer(3)
        recorder.may_go.set()
        assert await asyncio.gather(*tasks) == [0, 2, 4]
        assert await batches.answer(3) == 6
        # While nothing is computed there is room for the next batch, and for those that wait for it.
        assert not batches.is_full(2) and batches.is_full(3)

    asyncio.run(main())


def test_requests_whose_client_has_gone_are_not_answered() -> None:
    recorder = Recorder()

    async def main() -> None:
        batches = Batches(recorder.answer, most=1, most_waiting=5)
        tasks = [asyncio.create_task(batches.answer(number)) for number in (1, 2, 3)]
        await asyncio.sleep(0.05)
        tasks[0].cancel()
        tasks[1].cancel()
        recorder.may_go.set()
        assert await tasks[2] == 6

    asyncio.run(main())
    assert recorder.batches == [[1], [3]]


def test_quick_requests_are_answered_on_the_event_loop() -> None:
    """Once the batch before was quick; a batch with another kind is answered in the thread."""
    threads: list[bool] = []  # for each batch, whether it was on the event loop

    def answer(numbers: Sequence[int]) -> list[int | Exception]:
        threads.append(threading.current_thread() is threading.main_thread())
        if 100 in numbers:
            time.sleep(QUICK_SECONDS)
        return [ValueError("odd") if number % 2 else number for number in numbers]

    async def main() -> None:
        batches = Batches(answer, most=3, most_waiting=5, is_quick=lambda number: number >= 0)
        assert [await batches.answer(number) for number in (2, 4, -2)] == [2, 4, -2]
        with pytest.raises(ValueError, match="odd"):
            await batches.answer(1)
        assert await asyncio.gather(batches.answer(6), batches.answer(8)) == [6, 8]
        assert await asyncio.gather(batches.answer(6), batches.answer(-8)) == [6, -8]
        assert [await batches.answer(number) for number in (100, 2, 4)] == [100, 2, 4]

    asyncio.run(main())
    assert threads == [False, True, False, True, True, False, True, False, True]


def test_requests_that_arrive_during_a_batch_are_in_the_next_one() -> None:
    """The event loop is held by the batch; what came in meanwhile is read and queued before the next."""
    here, there = socket.socketpair()
    sizes: list[int] = []

    def answer(numbers: Sequence[int]) -> Sequence[int]:
        sizes.append(len(numbers))
        if len(sizes) == 2:
            there.send(bytes(range(5)))
        return numbers

    async def main() -> None:
        batches = Batches(answer, most=6, most_waiting=100, is_quick=lambda number: True)
        await batches.answer(0)  # in the thread; from now on the loop computes
        loop, received = asyncio.get_running_loop(), list[asyncio.Task[int]]()

        def read() -> None:
            received.extend(asyncio.create_task(batches.answer(byte)) for byte in here.recv(100))

        loop.add_reader(here, read)
        assert await asyncio.gather(*map(batches.answer, range(7))) == list(range(7))
        assert await asyncio.gather(*received) == list(range(5))
        loop.remove_reader(here)

    with here, there:
        here.setblocking(False)
        asyncio.run(main())
    assert sizes == [1, 6, 6]


def test_a_batch_that_would_hold_the_event_loop_for_long_is_computed_in_the_thread() -> None:
    """By the time for a request of the batch before, and the number of requests."""
    threads: list[bool] = []

    def answer(numbers: Sequence[float]) -> Sequence[float]:
        threads.append(threading.current_thread() is threading.main_thread())
        time.sleep(sum(numbers))
        return numbers

    async def main() -> None:
        batches = Batches(answer, most=64, most_waiting=100, is_quick=lambda number: True)
        each = QUICK_SECONDS / 10
        await batches.answer(0.0)
        await batches.answer(each)
        await asyncio.gather(*map(batches.answer, [each] * 20))
        await asyncio.gather(*map(batches.answer, [0.0] * 20))
        await batches.answer(2 * QUICK_SECONDS)
        await batches.answer(0.0)

    asyncio.run(main())
    assert threads == [False, True, False, True, True, False]


def test_a_quick_request_that_comes_alone_is_answered_at_once() -> None:
    """Within the first step of its task. A first request waits, and one with others beside it."""
    alone = True
    sizes: list[int] = []

    def answer(numbers: Sequence[int]) -> list[int | Exception]:
        sizes.append(len(numbers))
        return [ValueError(str(number)) if number < 0 else 2 * number for number in numbers]

    async def main() -> None:
        nonlocal alone
        batches = Batches(answer, 4, 4, is_quick=lambda number: True, is_alone=lambda: alone)
        first = asyncio.create_task(batches.answer(0))
        await asyncio.sleep(0)
        assert not first.done(), "its time is not known"
        waits = asyncio.create_task(batches.answer(1))
        assert await first == 0 and await waits == 2
        with pytest.raises(StopIteration, match="^6$"):
            batches.answer(3).send(None)
        with pytest.raises(ValueError, match="-1"):
            batches.answer(-1).send(None)
        alone, sizes[:] = False, []
        assert await asyncio.gather(*map(batches.answer, (1, 2, 3))) == [2, 4, 6]
        assert sizes == [3]
        batches.close()

    asyncio.run(main())


def test_an_error_of_a_batch_is_that_of_its_requests() -> None:
    def fails(numbers: Sequence[int]) -> list[int | Exception]:
        raise MemoryError("too much")

    async def main() -> None:
        batches: Batches[int, int] = Batches(fails, most=3, most_waiting=5)
        for _ in range(2):
            with pytest.raises(MemoryError, match="too much"):
                await batches.answer(1)

    asyncio.run(main())


def test_lists_of_a_batch_are_those_of_each_request_alone(ease: EASE) -> None:
    """With and without items, refused ones among them, and lists of other lengths and options."""
    bodies = [
        {"user": 4, "k": 3},
        {"user": 0, "k": 5},
        {"user": 4, "k": 1},
        {"history": [1, 2], "k": 2},
        {"history": [77]},
        {"history": [3]},
        {"user": 2, "deny": [5]},
        {"user": 3, "deny": [5]},
        {"user": "nobody"},
        {"wish": "title 7", "k": 2},
        {"wish": "title 7", "k": 4},
        {"user": 0, "where": "item_id == 1"},  # 0 has it, 4 has not
        {"user": 4, "where": "item_id == 1"},
        {"user": 1, "where": "colour == 1"},
    ]
    requests = [ListRequest.model_validate(body) for body in bodies]
    together = answers_of(ease, [*requests, lambda model: model.name])
    assert together[-1] == "ease"
    for request, answer in zip(requests, together[:-1], strict=True):
        (alone,) = answers_of(ease, [request])
        if isinstance(alone, ValueError):
            assert str(answer) == str(alone)
        else:
            assert answer == alone
    sizes = [len(answer["items"]) if isinstance(answer, dict) else None for answer in together[:-1]]
    assert sizes[:6] == [3, 5, 1, 2, None, 9]
    assert 0 in sizes[11:13]


def test_a_defect_in_one_request_leaves_the_others_their_lists(ease: EASE) -> None:
    class Fragile(EASE):
        """Fails for user 0."""

        def __init__(self) -> None:
            vars(self).update(vars(ease))

        def _ranked(self, users: Any, *arguments: Any) -> Any:
            if users is not None and 0 in users:
                raise RuntimeError("broken")
            return super()._ranked(users, *arguments)

    requests = [ListRequest(user=user) for user in (4, 0, 2)]
    first, broken, last = answers_of(Fragile(), requests)
    assert isinstance(broken, RuntimeError)
    assert [first, last] == [answers_of(ease, [request])[0] for request in (requests[0], requests[2])]


def test_unknown_ids_and_empty_lists_cost_the_others_nothing(ease: EASE) -> None:
    calls = []

    class Counted(EASE):
        """Notes how many lists each call has."""

        def __init__(self) -> None:
            vars(self).update(vars(ease))

        def _ranked(self, users: Any, histories: Any, *arguments: Any) -> Any:
            calls.append(len(users if users is not None else histories))
            return super()._ranked(users, histories, *arguments)

    where = "item_id == 1"  # user 0 has it
    users = [ListRequest(user=user, where=where) for user in (4, "nobody", 0, 4, 1, 2)]
    lists = answers_of(Counted(), users)
    assert sorted(calls) == [1, 4], "the unknown user alone, the four others together"
    assert [answers_of(ease, [request])[0] for request in users[2:]] == lists[2:]
    assert lists[2] == {"items": []}
    assert lists[0] == lists[3] != lists[2]
    calls.clear()
    histories = [ListRequest(history=history, where=where) for history in ([2], [1], [77], [3])]
    lists = answers_of(Counted(), histories)
    assert sorted(calls) == [1, 3]
    assert isinstance(lists[2], ValueError)
    assert lists[1] == {"items": []}
    assert [answers_of(ease, [request])[0] for request in histories[3:]] == lists[3:]
