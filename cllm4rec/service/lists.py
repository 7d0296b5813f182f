"""Answers of a batch of requests: lists of equal options are one call of the model."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from cllm4rec.models.base import Recommender
from cllm4rec.models.recommendation import rows_of_lists
from cllm4rec.service.catalogue import known_dataset
from cllm4rec.service.requests import ListRequest

Rows = list[dict[str, object]]  # of a list
Job = ListRequest | Callable[[Recommender], Any]


def answers_of(model: Recommender, jobs: Sequence[Job]) -> list[Any]:
    """The answer of each job, or its error: of a `ListRequest` the fields of an `ItemList`.

    Requests of lists that differ only in user or history and in `k` are ranked together.

    Args:
        model: the system.
        jobs: of one batch.
    """
    answers: list[Any] = [None] * len(jobs)
    lists = [(number, job) for number, job in enumerate(jobs) if isinstance(job, ListRequest)]
    found = lists_of(model, [request for _, request in lists])
    for (number, request), answer in zip(lists, found, strict=True):
        if isinstance(answer, Exception):
            answers[number] = answer
            continue
        answers[number] = {"items": answer}
        if request.wish is not None:
            answers[number]["ignored_words"] = model._word_search().unknown(request.wish)
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
        try:
            known = ids_are_known(model, request)
        except ValueError as error:
            answers[number] = error
            continue
        if not known:  # else it would fail together with others
            answers[number] = _of_group(model, [request])[0]
            continue
        kind = "user" if request.user is not None else "history" if request.history is not None else "wish"
        options = request.model_dump_json(exclude={"user", "history", "k"})
        groups[f"{kind} {options}"].append(number)
    for numbers in groups.values():
        group = [requests[number] for number in numbers]
        for number, answer in zip(numbers, _of_group(model, group), strict=True):
            answers[number] = answer
    return answers


def ids_are_known(model: Recommender, request: ListRequest) -> bool:
    """Whether the model knows the user, or all items of the history.

    Raises:
        ValueError: the dataset of the users is not known.
    """
    if request.history is not None:
        return bool((model.item_ids.find(request.history) >= 0).all())
    return request.user is None or bool(known_dataset(model).user_ids.find([request.user])[0] >= 0)


def _of_group(model: Recommender, requests: Sequence[ListRequest]) -> Sequence[Rows | Exception]:
    """The lists of requests of equal options. If they fail together, each half is answered alone."""
    first = requests[0]
    k = max(request.k for request in requests)
    users, histories = None, None
    distinct: dict[str, Any] = {}
    if first.user is not None:
        distinct = {str(request.user): request.user for request in requests}
        users = list(distinct.values())
    elif first.history is not None:
        histories = [request.history for request in requests]
    try:
        excluded = model._excluded(first.allow, first.deny, first.where)
        options = first.wish, excluded, first.repeats, first.diversity
        seen, batches = model._ranked(users, histories, None, k, *options)
        lists = [rows for batch in batches for rows in rows_of_lists(batch, seen)]
    except Exception as error:
        if len(requests) == 1:
            return [error]
        half = len(requests) // 2
        return [*_of_group(model, requests[:half]), *_of_group(model, requests[half:])]
    if first.user is not None:
        list_of = dict(zip(distinct, lists, strict=True))
        lists = [list_of[str(request.user)] for request in requests]
    elif first.history is None:  # of a wish alone all lists are equal
        lists = lists * len(requests)
    return [rows[: request.k] for rows, request in zip(lists, requests, strict=True)]
