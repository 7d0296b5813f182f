"""Answers of a batch of requests: lists of equal options are one call of the model."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import polars as pl

from cllm4rec.models.base import Recommender
from cllm4rec.service.requests import ListRequest

Rows = list[dict[str, object]]  # of a list
Job = ListRequest | Callable[[Recommender], Any]


def answers_of(model: Recommender, jobs: Sequence[Job]) -> list[Any]:
    """The answer of each job, or its error.

    Requests of lists that differ only in user or history and in `k` are ranked together.

    Args:
        model: the system.
        jobs: of one batch.
    """
    answers: list[Any] = [None] * len(jobs)
    lists = [number for number, job in enumerate(jobs) if isinstance(job, ListRequest)]
    for number, answer in zip(lists, lists_of(model, [jobs[number] for number in lists]), strict=True):
        answers[number] = answer
    for number, job in enumerate(jobs):
        if not isinstance(job, ListRequest):
            try:
                answers[number] = job(model)
            except Exception as error:
                answers[number] = error
    return answers


def lists_of(model: Recommender, requests: Sequence[Any]) -> list[Rows | Exception]:
    """The list of each `ListRequest`, or its error."""
    answers: list[Rows | Exception] = [[] for _ in requests]
    groups: dict[str, list[int]] = defaultdict(list)
    for number, request in enumerate(requests):
        kind = "user" if request.user is not None else "history" if request.history is not None else "wish"
        options = request.model_dump_json(exclude={"user", "history", "k"})
        groups[f"{kind} {options}"].append(number)
    for numbers in groups.values():
        group = [requests[number] for number in numbers]
        for number, answer in zip(numbers, _of_group(model, group), strict=True):
            answers[number] = answer
    return answers


def _of_group(model: Recommender, requests: Sequence[ListRequest]) -> Sequence[Rows | Exception]:
    """The lists of requests of equal options. If they fail together, each is answered alone."""
    first = requests[0]
    options = first.model_dump(include={"allow", "deny", "where", "wish", "repeats", "diversity"})
    k = max(request.k for request in requests)
    users, histories = None, None
    if first.user is not None:
        users = [request.user for request in requests]
    elif first.history is not None:
        histories = [request.history for request in requests]
    try:
        table = model.recommend(users, k, histories=histories, **options)
    except Exception as error:
        if len(requests) == 1:
            return [error]
        return [_of_group(model, [request])[0] for request in requests]
    if len(requests) == 1 or (users is None and histories is None):  # of a wish alone all lists are equal
        return [_rows(table, request.k) for request in requests]
    starts = table["rank"].eq(1).arg_true().to_list()  # of each list
    if len(starts) < len(requests):  # an empty list has no row
        return [_of_group(model, [request])[0] for request in requests]
    parts = [table[start:end] for start, end in zip(starts, [*starts[1:], len(table)], strict=True)]
    return [_rows(part, request.k) for part, request in zip(parts, requests, strict=True)]


def _rows(table: pl.DataFrame, k: int) -> Rows:
    """The first rows of a list, without the user."""
    names = [name for name in table.columns if name != "user_id"]
    columns = [table[name].head(k).to_list() for name in names]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
