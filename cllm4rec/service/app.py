"""The HTTP interface: paths, errors as sentences, limits, token and metrics."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from pydantic import Field
from starlette.exceptions import HTTPException

from cllm4rec import __version__
from cllm4rec.models.base import Recommender
from cllm4rec.service.batches import Batches, FullError
from cllm4rec.service.catalogue import (
    KeptMap,
    found_items,
    found_users,
    history_of,
    items_of,
    known_dataset,
)
from cllm4rec.service.connections import Overload
from cllm4rec.service.direct import DirectLists, list_answer, refusal
from cllm4rec.service.limits import OPEN_PATHS, Limits, Metrics, problem
from cllm4rec.service.lists import Job, answers_of
from cllm4rec.service.page import add_page
from cllm4rec.service.requests import (
    MOST_ITEMS,
    ExplainRequest,
    FoundItems,
    FoundUsers,
    Health,
    ItemList,
    ItemMap,
    ListRequest,
    Problem,
    Reasons,
    SimilarItems,
)

NO_JSON = "the body is no JSON object in UTF-8, or the header Content-Type: application/json is missing"
MOST_FOUND = 100  # items or users of a search
MOST_EXPLANATIONS = 16  # that may wait for the one under way
MOST_MAPPED = 5_000  # items of the map, which a browser draws at once
Text = Annotated[str, Query(max_length=1_000)]
Found = Annotated[int, Query(ge=1, le=MOST_FOUND)]
Items = Annotated[list[Annotated[str, Field(max_length=1_000)]] | None, Query(max_length=MOST_ITEMS)]
ERRORS: dict[int | str, dict[str, Any]] = {
    code: {"model": Problem} for code in (400, 401, 404, 408, 413, 422, 431, 503)
}


@dataclass
class Served:
    """What a service serves; `model` may be replaced while it runs.

    Attributes:
        model: a fitted system.
        run: its name in answers.
        token: that requests have to bear; None for none.
        only_host: host that requests have to name, unless they name a loopback one; None: any host.
        most_waiting: requests that may wait for the batch under way.
        most_in_batch: requests that are answered together.
        is_ending: whether the service ends after the requests under way.
    """

    model: Recommender
    run: str
    token: str | None = None
    only_host: str | None = None
    most_waiting: int = 256
    most_in_batch: int = 64
    is_ending: bool = False
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)


async def _known_parameters(request: Request) -> None:
    """Raise ValueError if the query has a parameter that the path does not take."""
    known = {parameter.alias for parameter in request.scope["route"].dependant.query_params}
    for name in request.query_params:
        if name not in known:
            raise ValueError(f"there is no parameter {name!r}: there are {', '.join(sorted(known))}")


KNOWN_PARAMETERS = [Depends(_known_parameters)]


def application(served: Served) -> FastAPI:
    """The application of a service."""

    def answered(jobs: Sequence[Job]) -> list[Any]:
        return answers_of(served.model, jobs)

    batches: Batches[Job, Any] = Batches(
        answered,
        served.most_in_batch,
        served.most_waiting,
        is_quick=lambda job: isinstance(job, ListRequest),
        is_alone=lambda: app.state.overload.n_arriving <= 1,  # the request itself
    )
    # An explanation may take as long as hundreds of lists, which go on beside it.
    explanations: Batches[Job, Any] = Batches(answered, 1, MOST_EXPLANATIONS)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        batches.close()
        explanations.close()

    app = FastAPI(
        title="cllm4rec",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    if served.token is not None:
        app.openapi = partial(_described_with_token, app)  # type: ignore[method-assign]
    metrics = Metrics(served.registry, lambda: batches.n_waiting + explanations.n_waiting)
    app.add_middleware(DirectLists, batches=batches)
    app.add_middleware(
        Limits,
        token=served.token,
        only_host=served.only_host,
        metrics=metrics,
        is_full=batches.is_full,
        is_ending=lambda: served.is_ending,
    )
    _add_errors(app)
    _add_lists(app, batches)
    _add_explanations(app, explanations)
    _add_catalogue(app, batches)
    _add_state(app, served)
    add_page(app)
    metrics.paths = frozenset(getattr(route, "path", "") for route in app.routes)
    app.state.overload = Overload(
        is_full=lambda n_arriving: not served.is_ending and batches.is_full(n_arriving),
        count_refusal=lambda path: metrics.count(path, 503),
    )
    return app


def _described_with_token(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI description of a service that asks for a token."""
    described = FastAPI.openapi(app)
    scheme = {"type": "http", "scheme": "bearer"}
    described.setdefault("components", {})["securitySchemes"] = {"token": scheme}
    described["security"] = [{"token": []}]
    for path in OPEN_PATHS:
        for operation in described["paths"].get(path, {}).values():
            operation["security"] = []
    return described


def _add_lists(app: FastAPI, batches: Batches[Job, Any]) -> None:
    @app.post("/recommend", responses=ERRORS, response_model=ItemList)
    async def recommend(body: ListRequest) -> Response:
        """The best items for a user of the dataset, for a history, or for a wish."""
        return await list_answer(batches, body)

    @app.get("/similar", responses=ERRORS, dependencies=KNOWN_PARAMETERS)
    async def similar(item: Text, k: Annotated[int, Query(ge=1, le=MOST_ITEMS)] = 10) -> SimilarItems:
        """The items whose learned vectors are most like that of an item."""
        table = await batches.answer(lambda model: model.similar(item, k))
        return SimilarItems.model_validate({"items": table.to_dicts()})


def _add_explanations(app: FastAPI, explanations: Batches[Job, Any]) -> None:
    @app.post("/explain", responses=ERRORS)
    async def explain(body: ExplainRequest) -> Reasons:
        """What the score of an item would lose without each item of the history, and each word."""

        def job(model: Recommender) -> dict[str, Any]:
            if body.user is not None:
                known_dataset(model)
            found = model.explain(body.user, body.item, history=body.history)
            return {**vars(found), "items": found.items.to_dicts(), "words": found.words.to_dicts()}

        return Reasons.model_validate(await explanations.answer(job))


def _add_catalogue(app: FastAPI, batches: Batches[Job, Any]) -> None:
    kept_map = KeptMap()

    @app.get("/items", responses=ERRORS, dependencies=KNOWN_PARAMETERS)
    async def items(q: Text = "", k: Found = 20, item: Items = None) -> FoundItems:
        """Items whose id or title has a text, without regard to case, or some items by their ids.

        First come those that are the text, then those that begin with it, each in the order of the catalogue.
        """
        found = await batches.answer(
            lambda model: found_items(model, q, k) if item is None else items_of(model, item)
        )
        return FoundItems.model_validate({"items": found.to_dicts()})

    @app.get("/users", responses=ERRORS, dependencies=KNOWN_PARAMETERS)
    async def users(q: Text = "", k: Found = 20) -> FoundUsers:
        """Users of the dataset whose id has a text, without regard to case, in the order of /items."""
        return FoundUsers(users=await batches.answer(lambda model: found_users(model, q, k)))

    @app.get("/history", responses=ERRORS, dependencies=KNOWN_PARAMETERS)
    async def history(user: Text) -> FoundItems:
        """The items from which a user of the dataset is served, the oldest first; the latest 500."""
        found = await batches.answer(lambda model: history_of(model, user, MOST_ITEMS))
        return FoundItems.model_validate({"items": found.to_dicts()})

    @app.get("/map", responses=ERRORS, dependencies=KNOWN_PARAMETERS)
    async def item_map(
        k: Annotated[int, Query(ge=1, le=MOST_MAPPED)] = MOST_MAPPED, item: Items = None
    ) -> ItemMap:
        """The item vectors in two dimensions, by principal components: a random sample, or some items."""
        return ItemMap.model_validate(await batches.answer(lambda model: kept_map.of(model, k, item)))


def _add_state(app: FastAPI, served: Served) -> None:
    @app.get("/health", responses=ERRORS)
    async def health() -> Health:
        """The run that is served: the name of its folder."""
        model = served.model
        return Health(
            run=Path(served.run).resolve().name,
            system=model.name,
            n_items=len(model.item_ids),
            n_users=len(model.user_ids),
        )

    @app.get("/metrics", include_in_schema=False)
    async def exposition() -> Response:
        return Response(generate_latest(served.registry), media_type=CONTENT_TYPE_LATEST)


def _sentence(error: Mapping[str, Any]) -> str:
    """What Pydantic finds wrong with a body or a query."""
    if error["type"] in ("json_invalid", "model_attributes_type") or (
        error["type"] == "missing" and error["loc"] == ("body",)
    ):
        return NO_JSON
    # without the part of the request, and the alternatives of a type
    places = [str(place) for place in error["loc"][1:] if place not in ("str", "int")]
    if error["type"] == "extra_forbidden":
        return f"there is no field {'.'.join(places)!r}: /openapi.json describes all"
    named = f"{'.'.join(places)}: " if places else ""
    if error["type"] in ("string_type", "int_type") and len(places) < len(error["loc"]) - 1:
        return f"{named}give a text or a whole number"
    return named + str(error["msg"]).removeprefix("Value error, ")


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return problem(422, _sentence(error.errors()[0]))

    @app.exception_handler(ValueError)
    @app.exception_handler(FullError)
    async def refused(request: Request, error: Exception) -> Response:
        return refusal(error)

    @app.exception_handler(Exception)  # it is logged with its traceback
    async def failed(request: Request, error: Exception) -> JSONResponse:
        return problem(500, "the service failed, which is a defect or a lack of memory: its log says more")

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> JSONResponse:
        paths = "/, /recommend, /explain, /similar, /items, /users, /history, /map, /health, /metrics"
        sentence = {
            400: NO_JSON,
            404: f"there is no path {request.url.path}: there are {paths} and /openapi.json",
            405: f"{request.url.path} does not take {request.method}: see /openapi.json",
        }.get(error.status_code, str(error.detail))
        return problem(error.status_code, sentence, dict(error.headers or {}))
