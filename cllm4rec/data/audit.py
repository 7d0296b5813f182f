"""The audit: which events a system learns from and reads. Held-out ones are refused."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from cllm4rec.data.dataset import Dataset, Task
from cllm4rec.data.interactions import Interactions
from cllm4rec.messages import counted, join_names

log = logging.getLogger("cllm4rec.audit")


class LeakError(ValueError):
    """Held-out events reach what is learned, or what a system reads when it is measured."""


class Audit:
    """The events that each component of a system learns from, compared with a dataset's held-out events.

    Attributes:
        dataset: the data; events that are read have its numbers of users and items.
        title: what is audited, in words.
        readers: name of a part -> number of events that it learns from.
    """

    def __init__(self, dataset: Dataset, title: str) -> None:
        self.dataset, self.title = dataset, title
        self.held_out = dataset.only("validation", "test").interactions
        self.readers: dict[str, int] = {}

    def check(self, reader: str, events: Interactions) -> None:
        """Note what a part learns from.

        Args:
            reader: the part in words: `training histories`, `the vocabulary`.
            events: what it learns from.

        Raises:
            LeakError: some of the events are held out.
        """
        refuse_shared(events, self.held_out, self.dataset, f"{reader} would learn from")
        self.readers[reader] = max(len(events), self.readers.get(reader, 0))

    def __str__(self) -> str:
        """The result in one line."""
        held_out = counted(len(self.held_out), "held-out event")
        parts = join_names(sorted(self.readers))
        return f"audit: {self.title}: none of {held_out} is among the training events of {parts}"

    def details(self) -> list[str]:
        """A line for each part: its name, and how many training events it learned from."""
        return [
            f"audit: {self.title}: {reader}: {counted(n, 'training event')}"
            for reader, n in sorted(self.readers.items())
        ]


def refuse_shared(events: Interactions, held_out: Interactions, dataset: Dataset, reader: str) -> None:
    """Raise LeakError if some events have the user and item of held-out ones.

    Args:
        events, held_out: of the users and items of `dataset`.
        dataset: gives the ids for the message.
        reader: begins the message: what reads the events, and a verb.
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
    raise LeakError(f"{reader} {number}, the first of user {user!r} and item {item!r}")


def refuse_learned(learned: Dataset | None, dataset: Dataset, held_out: Interactions, reader: str) -> None:
    """Raise LeakError if the training events of another dataset are held out in this one, by their ids.

    Args:
        learned: the other dataset; None if there is none.
        dataset: this one.
        held_out: some of its events.
        reader: as in `refuse_shared`.
    """
    if learned is None:
        return
    train = learned.train.interactions
    users = dataset.user_ids.find(learned.user_ids.ids)[train.users]
    items = dataset.item_ids.find(learned.item_ids.ids)[train.items]
    known = np.flatnonzero((users >= 0) & (items >= 0))
    known = known[np.argsort(users[known], kind="stable")]
    events = Interactions(users[known], items[known], dataset.n_users, dataset.n_items)
    refuse_shared(events, held_out, dataset, reader)


@runtime_checkable
class Learner(Protocol):
    """A system that names the dataset that it was fitted on."""

    def fitted_elsewhere(self, dataset: Dataset) -> Dataset | None:
        """The dataset that it was fitted on, if that is known and another than this one."""
        ...


def audited_task(model: object, dataset: Dataset, part: Literal["validation", "test"]) -> Task:
    """The task of a held-out part (`Dataset.task`), compared with what a system reads and has learned from.

    The input is compared once per part, the training events of the system at each call.

    Raises:
        LeakError: an event to predict is input, or the system was fitted on it.
        ValueError: as `Dataset.task` does.
    """
    tasks: dict[str, Task] = vars(dataset).setdefault("_audited_tasks", {})
    if part not in tasks:
        task = dataset.task(part)
        refuse_shared(task.input.interactions, task.held_out.interactions, dataset, "the input has")
        tasks[part] = task
    held_out = tasks[part].held_out.interactions
    learned = model.fitted_elsewhere(dataset) if isinstance(model, Learner) else None
    refuse_learned(learned, dataset, held_out, "the system was fitted on another split, which trains with")
    return tasks[part]


_audit: ContextVar[Audit | None] = ContextVar("audit", default=None)


@contextmanager
def auditing(dataset: Dataset, title: str, is_logged: bool = True) -> Iterator[Audit]:
    """Audit what is learned within the block. A block within another has the audit of the outer one.

    The logger `cllm4rec.audit` gets the result, at level INFO, and its details, at level DEBUG.

    Args:
        dataset: the data.
        title: what is audited, in words.
        is_logged: whether this process logs.
    """
    outer = _audit.get()
    if outer is not None:
        yield outer
        return
    audit = Audit(dataset, title)
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
