"""The audit of training: which events each part of a system learns from. Held-out ones are refused."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

import numpy as np

from cllm4rec.data.dataset import Dataset, Task
from cllm4rec.data.interactions import Interactions
from cllm4rec.messages import counted, join_names

log = logging.getLogger("cllm4rec.audit")


class LeakError(ValueError):
    """Held-out events reach what is learned, or what a system reads when it is measured."""


class Audit:
    """The events that the parts of a system learn from, each compared with the held-out events of a dataset.

    A review belongs to its event: where no held-out event is read, no held-out review is.

    Attributes:
        dataset: the data; events that are read have its numbers of users and items.
        readers: name of a part -> number of events that it learns from.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.held_out = dataset.only("validation", "test").interactions
        self.readers: dict[str, int] = {}

    def check(self, reader: str, events: Interactions) -> None:
        """Note what a part learns from.

        Args:
            reader: the part in words, plural: `prompts`, `words of items`.
            events: what it learns from.

        Raises:
            LeakError: some of the events are held out.
        """
        refuse_shared(events, self.held_out, self.dataset, f"{reader} would learn from {{shared}}")
        self.readers[reader] = max(len(events), self.readers.get(reader, 0))

    def __str__(self) -> str:
        """The result in one line."""
        n_held_out = counted(len(self.held_out), "held-out event")
        return f"audit: none of {n_held_out} and of their reviews reached {join_names(sorted(self.readers))}"

    def details(self) -> list[str]:
        """A line for each part: its name, and how many training events it learned from."""
        return [
            f"audit: {reader}: {counted(n, 'training event')}" for reader, n in sorted(self.readers.items())
        ]


def refuse_shared(events: Interactions, held_out: Interactions, dataset: Dataset, fault: str) -> None:
    """Raise LeakError if some events have the user and item of held-out ones.

    Args:
        events, held_out: of the users and items of `dataset`.
        dataset: gives the ids for the message.
        fault: begins the message; `{shared}` in it becomes the number of shared events.
    """
    keys, held_out_keys = (each.users * dataset.n_items + each.items for each in (events, held_out))
    shared = np.flatnonzero(np.isin(keys, held_out_keys))
    if not len(shared):
        return
    first = shared[:1]
    user, item = (
        dataset.user_ids.names(events.users[first])[0],
        dataset.item_ids.names(events.items[first])[0],
    )
    number = counted(len(shared), "held-out event")
    raise LeakError(f"{fault.format(shared=number)}, the first of user {user!r} and item {item!r}")


def audited_task(dataset: Dataset, part: Literal["validation", "test"]) -> Task:
    """The task of a held-out part (`Dataset.task`), whose input is compared with the events to predict.

    Raises:
        LeakError: an event to predict is input too.
        ValueError: as `Dataset.task` does.
    """
    task = dataset.task(part)
    refuse_shared(task.input.interactions, task.held_out.interactions, dataset, "the input has {shared}")
    return task


_audit: ContextVar[Audit | None] = ContextVar("audit", default=None)


@contextmanager
def auditing(dataset: Dataset, is_logged: bool = True) -> Iterator[Audit]:
    """Audit what is learned within the block. A block within another has the audit of the outer one.

    The logger `cllm4rec.audit` gets the result, at level INFO, and its details, at level DEBUG.

    Args:
        dataset: the data.
        is_logged: whether this process logs.
    """
    outer = _audit.get()
    if outer is not None:
        yield outer
        return
    audit = Audit(dataset)
    token = _audit.set(audit)
    try:
        yield audit
    finally:
        _audit.reset(token)
    if is_logged and audit.readers and len(audit.held_out):
        log.info(str(audit))
        for line in audit.details():
            log.debug(line)


def learns_from(reader: str, events: Interactions) -> None:
    """Tell the audit, if there is one, that a part of a system learns from events.

    Args:
        reader, events: as in `Audit.check`.

    Raises:
        LeakError: some of the events are held out.
    """
    audit = _audit.get()
    if audit is not None:
        audit.check(reader, events)
