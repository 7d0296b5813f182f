"""Answers of the service: those of the model, and sentences about what is wrong."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from cllm4rec import EASE, IALS, IALSConfig
from cllm4rec.service.app import Served, application
from cllm4rec.service.limits import MOST_BYTES
from tests.support.datasets import numbered_dataset


@pytest.mark.parametrize(
    ("body", "arguments"),
    [
        ({"user": 4}, {"users": [4]}),
        ({"user": "4", "k": 3}, {"users": [4], "k": 3}),
        ({"history": [1, "2"], "repeats": True}, {"histories": [[1, 2]], "repeats": True}),
        ({"user": 4, "allow": [5, 6, 7], "deny": [6]}, {"users": [4], "allow": [5, 6, 7], "deny": [6]}),
        ({"history": [1], "where": "item_id > 5"}, {"histories": [[1]], "where": "item_id > 5"}),
        ({"history": [1], "wish": "title 8"}, {"histories": [[1]], "wish": "title 8"}),
        ({"wish": "title 8 not 7", "k": 4}, {"wish": "title 8 not 7", "k": 4}),
        ({"user": 0, "where": "item_id == 0"}, {"users": [0], "where": "item_id == 0"}),
    ],
)
def test_lists_are_those_of_the_model(
    body: dict[str, Any], arguments: dict[str, Any], client: TestClient, ease: EASE
) -> None:
    answer = client.post("/recommend", json=body)
    assert answer.status_code == 200
    expected = ease.recommend(**arguments).drop("user_id").to_dicts()
    assert answer.json() == {"items": pytest.approx(expected)} if not expected else True
    assert [item["item_id"] for item in answer.json()["items"]] == [item["item_id"] for item in expected]
    for item, of_model in zip(answer.json()["items"], expected, strict=True):
        assert item == pytest.approx(of_model)


def test_reasons_are_those_of_the_model(client: TestClient, ease: EASE) -> None:
    item = ease.recommend([4])["item_id"][0]
    for body, arguments in (
        ({"user": 4, "item": item}, {"user": 4}),
        ({"history": [1, 2], "item": 7}, {"user": None, "history": [1, 2]}),
    ):
        answer, expected = client.post("/explain", json=body), ease.explain(item=body["item"], **arguments)
        assert answer.status_code == 200
        assert answer.json()["rank"] == expected.rank
        assert answer.json()["items"] == expected.items.to_dicts()
        assert answer.json()["words"] == []


def test_similar_items_are_those_of_the_model() -> None:
    model = IALS(IALSConfig(factors=4, regularization=1.0, alpha=1.0)).fit(numbered_dataset(titled=True))
    with TestClient(application(Served(model, "run"))) as client:
        answer = client.get("/similar", params={"item": 3, "k": 4}).json()
    assert answer["items"] == model.similar(3, 4).to_dicts()
    assert 3 not in [item["item_id"] for item in answer["items"]]


def test_items_are_found_by_id_and_title(client: TestClient) -> None:
    def found(**query: object) -> list[int]:
        return [item["item_id"] for item in client.get("/items", params=query).json()["items"]]

    assert found(q="TITLE 7") == [7]
    assert found(q="8") == [8]
    assert len(found(q="title", k=3)) == 3
    assert len(found()) == 10
    assert found(q=".") == []


def test_health_names_the_run(client: TestClient) -> None:
    expected = {"run": "runs/ease", "system": "ease", "n_items": 10, "n_users": 6}
    assert client.get("/health").json() == expected


@pytest.mark.parametrize(
    ("path", "body", "status", "sentence"),
    [
        ("/recommend", {}, 422, "give user, history or wish"),
        ("/recommend", {"user": 1, "history": [1]}, 422, "give user or history, not both"),
        ("/recommend", {"user": 1, "K": 3}, 422, "K: Extra inputs are not permitted"),
        ("/recommend", {"user": 1, "k": 0}, 422, "k: Input should be greater than or equal to 1"),
        ("/recommend", {"user": 1, "k": 10**6}, 422, "k: Input should be less than or equal to 500"),
        ("/recommend", {"user": 1, "k": "3"}, 422, "k: Input should be a valid integer"),
        ("/recommend", {"user": 1, "diversity": 2}, 422, "diversity: Input should be less than"),
        ("/recommend", {"history": []}, 422, "history: List should have at least 1 item"),
        ("/recommend", {"history": [None]}, 422, "history.0: Input should be a valid string"),
        ("/recommend", {"history": [1] * 501}, 422, "history: List should have at most 500 items"),
        ("/recommend", {"wish": "a" * 1001}, 422, "wish: String should have at most 1000 characters"),
        ("/recommend", [1], 422, "the body is no JSON object"),
        ("/recommend", {"user": "nobody"}, 400, "user 'nobody' is not in the data"),
        ("/recommend", {"history": [77]}, 400, "histories: item '77' is none of the items"),
        (
            "/recommend",
            {"user": 1, "where": "color == 1"},
            400,
            "where 'color == 1': the items have no column",
        ),
        ("/recommend", {"user": 1, "allow": []}, 400, "allow leaves no item to recommend"),
        ("/recommend", {"wish": "unheard"}, 400, "wish 'unheard': the items' texts have none of its words"),
        ("/recommend", {"user": 1, "diversity": 0.5}, 400, "ease has no item vectors"),
        ("/explain", {"item": 1}, 422, "give user or history"),
        ("/explain", {"item": 1, "history": [1]}, 400, "item: 1 is in the history"),
        ("/similar?item=1", None, 400, "ease has no item vectors"),
        ("/similar?item=1&k=x", None, 422, "k: Input should be a valid integer"),
        ("/items?k=1000", None, 422, "k: Input should be less than or equal to 100"),
        ("/nothing", None, 404, "there is no path /nothing: there are /recommend, "),
        ("/recommend", None, 405, "/recommend does not take GET: see /openapi.json"),
    ],
)
def test_errors_are_sentences(
    path: str, body: object, status: int, sentence: str, client: TestClient
) -> None:
    answer = client.get(path) if body is None else client.post(path, json=body)
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    assert answer.json()["error"].startswith(sentence)
    assert "`" not in answer.json()["error"]


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"{", "application/json"),
        (b"\xff\xfe", "application/json"),
        (b'{"user": 1}', "text/plain"),
        (b"", "application/json"),
        (b"null", "application/json"),
    ],
)
def test_bodies_that_are_no_json_are_refused(content: bytes, kind: str, client: TestClient) -> None:
    answer = client.post("/recommend", content=content, headers={"content-type": kind})
    assert answer.status_code == 422
    assert answer.json()["error"].startswith(
        "the body is no JSON object in UTF-8, or the header Content-Type"
    )


def test_large_bodies_are_refused_whatever_length_they_claim(client: TestClient) -> None:
    def chunks() -> Any:
        for _ in range(6):
            yield b" " * (1 << 20)

    for content in (b" " * (MOST_BYTES + 1), chunks()):
        answer = client.post("/recommend", content=content)
        assert (answer.status_code, answer.json()["error"]) == (
            413,
            "the body is larger than 4 MiB: send less",
        )
    assert client.post("/recommend", json={"user": 1, "deny": [5] * 90_000}).status_code == 200
