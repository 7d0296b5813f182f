"""Lists without the routing of FastAPI, which takes a tenth of the time of a request."""

import json
from typing import Any

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from cllm4rec.service.batches import Batches, FullError
from cllm4rec.service.limits import busy, problem, replayed
from cllm4rec.service.requests import ItemList, ListRequest

PATH = "/recommend"
PLAIN_TYPE = [b"application/json"]


async def list_answer(batches: Batches[Any, Any], request: ListRequest) -> Response:
    """The answer to a valid request of a list.

    Raises:
        ValueError: the list cannot be made.
        FullError: as many requests wait as may.
    """
    found = ItemList.model_validate(await batches.answer(request))
    return Response(found.model_dump_json(), media_type="application/json")  # validated once


def refusal(error: Exception) -> Response:
    """The answer to a request that failed with a ValueError or a FullError."""
    return busy() if isinstance(error, FullError) else problem(400, " ".join(str(error).splitlines()))


class DirectLists:
    """Answers plain and valid requests of lists. All others go on to the application.

    Args:
        app: the application, which says what is wrong with a request.
        batches: that answer requests.
    """

    def __init__(self, app: ASGIApp, batches: Batches[Any, Any]) -> None:
        self.app, self.batches = app, batches

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        plain = scope["type"] == "http" and scope["path"] == PATH and scope["method"] == "POST"
        if not plain or [value for name, value in scope["headers"] if name == b"content-type"] != PLAIN_TYPE:
            await self.app(scope, receive, send)
            return
        body: bytes = (await receive())["body"]  # whole, as `Limits` gives it
        try:
            request = ListRequest.model_validate(json.loads(body))
        except (ValueError, RecursionError):
            await self.app(scope, replayed(body, receive), send)
            return
        try:
            answer = await list_answer(self.batches, request)
        except (ValueError, FullError) as error:
            answer = refusal(error)
        await answer(scope, receive, send)
