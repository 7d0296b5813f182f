"""Answers of the service: those of the model, and sentences about what is wrong."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from starlette.testclient import TestClient

from cllm4rec import EASE, IALS, Dataset, EASEConfig, IALSConfig, load
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
    assert answer.json()["ignored_words"] == []
    assert [item["item_id"] for item in answer.json()["items"]] == [item["item_id"] for item in expected]
    for item, of_model in zip(answer.json()["items"], expected, strict=True):
        assert item == pytest.approx(of_model)


def test_words_of_a_wish_that_no_item_has_are_named(client: TestClient) -> None:
    for body in ({"wish": "unheard title, not heard"}, {"user": 4, "wish": "unheard title, not heard"}):
        answer = client.post("/recommend", json=body).json()
        assert answer["ignored_words"] == ["unheard", "heard"]
        assert answer["items"]


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


def test_the_text_itself_is_found_first_then_what_begins_with_it() -> None:
    ids = ["x1", "12", "21", "1", "10", "2"]
    items = pl.DataFrame({"item_id": ids, "title": [f"T{item}" for item in ids]})
    events = pl.DataFrame(
        [(user, item) for user in ids for item in ids if user != item], ["user_id", "item_id"], orient="row"
    )
    model = EASE(EASEConfig(regularization=10.0)).fit(Dataset.from_frame(events, items))
    with TestClient(application(Served(model, "run"))) as client:
        for path, name in (("/items", "items"), ("/users", "users")):
            found = client.get(path, params={"q": "1"}).json()[name]
            found = [each["item_id"] for each in found] if name == "items" else found
            assert found[0] == "1"
            assert set(found[1:3]) == {"10", "12"}
            assert set(found[3:]) == {"x1", "21"}
            in_order = client.get(path, params={"k": 3}).json()[name]
            in_order = [each["item_id"] for each in in_order] if name == "items" else in_order
            assert in_order == (model.item_ids if name == "items" else model.user_ids).ids.head(3).to_list()


def test_items_are_looked_up_by_their_ids(client: TestClient) -> None:
    assert client.get("/items", params={"item": ["3", "1"]}).json() == {
        "items": [{"item_id": 3, "title": "Title 3"}, {"item_id": 1, "title": "Title 1"}]
    }


def test_users_and_their_histories_are_found(client: TestClient, ease: EASE) -> None:
    assert sorted(client.get("/users").json()["users"]) == list(range(6))
    assert client.get("/users", params={"q": "4"}).json() == {"users": [4]}
    assert client.get("/users", params={"q": "9"}).json() == {"users": []}
    history = client.get("/history", params={"user": "4"}).json()
    assert history == {"items": ease.history(4).to_dicts()}


def test_users_are_refused_where_the_dataset_is_not_known(ease: EASE, tmp_path: Path) -> None:
    ease.save(tmp_path / "model")
    with TestClient(application(Served(load(tmp_path / "model"), "run"))) as client:
        asked = [client.get(path) for path in ("/users", "/history?user=4")]
        asked += [client.post("/recommend", json={"user": 4})]
        asked += [client.post("/explain", json={"user": 4, "item": 3})]
        for answer in asked:
            assert answer.status_code == 400
            assert answer.json()["error"].startswith("no users are served, only histories and wishes, as ")
            assert str(tmp_path) not in answer.text
        assert client.get("/items").status_code == 200


def test_the_map_is_that_of_the_model() -> None:
    data = numbered_dataset(titled=True)
    models = [IALS(IALSConfig(factors=n, regularization=1.0, alpha=1.0)).fit(data) for n in (3, 4)]
    served = Served(models[0], "run")
    with TestClient(application(served)) as client:
        for model in models:
            served.model = model
            table, share = model.item_map()
            whole = client.get("/map").json()
            assert whole == {"items": table.to_dicts(), "n_items": 10, "variance": pytest.approx(share)}
            assert client.get("/map", params={"k": 4}).json()["items"] == table.head(4).to_dicts()
            some = client.get("/map", params={"item": [7, 2]}).json()["items"]
            assert [item["item_id"] for item in some] == [7, 2]
            assert all(item in whole["items"] for item in some)


def test_the_map_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    data, calls = numbered_dataset(), list[int]()
    model = IALS(IALSConfig(factors=3, regularization=1.0, alpha=1.0)).fit(data)
    item_map = model.item_map
    monkeypatch.setattr(model, "item_map", lambda: calls.append(1) or item_map())
    with TestClient(application(Served(model, "run"))) as client:
        assert client.get("/map").json() == client.get("/map").json()
    assert calls == [1]


def test_health_names_the_run(client: TestClient) -> None:
    expected = {"run": "ease", "system": "ease", "n_items": 10, "n_users": 6}
    assert client.get("/health").json() == expected


@pytest.mark.parametrize(
    ("path", "body", "status", "sentence"),
    [
        ("/recommend", {}, 422, "give user, history or wish"),
        ("/recommend", {"user": 1, "history": [1]}, 422, "give user or history, not both"),
        ("/recommend", {"user": 1, "K": 3}, 422, "there is no field 'K': /openapi.json describes all"),
        ("/recommend", {"user": 1, "k": 0}, 422, "k: Input should be greater than or equal to 1"),
        ("/recommend", {"user": 1, "k": 10**6}, 422, "k: Input should be less than or equal to 500"),
        ("/recommend", {"user": 1, "k": "3"}, 422, "k: Input should be a valid integer"),
        ("/recommend", {"user": 1, "diversity": 2}, 422, "diversity: Input should be less than"),
        ("/recommend", {"history": []}, 422, "history: List should have at least 1 item"),
        ("/recommend", {"history": [None]}, 422, "history.0: give a text or a whole number"),
        ("/recommend", {"history": [1] * 501}, 422, "history: List should have at most 500 items"),
        ("/recommend", {"wish": "a" * 1001}, 422, "wish: String should have at most 1000 characters"),
        ("/recommend", [1], 422, "the body is no JSON object"),
        ("/recommend", {"user": "nobody"}, 400, "user 'nobody' is not in the data"),
        ("/recommend", {"history": [77]}, 400, "item '77' of the histories is none of the model's"),
        (
            "/recommend",
            {"user": 1, "where": "color == 1"},
            400,
            "where 'color == 1': the items have no column",
        ),
        ("/recommend", {"user": 1, "allow": []}, 400, "allow leaves no item to recommend"),
        ("/recommend", {"wish": "not title"}, 400, "wish 'not title': of its words"),
        ("/recommend/", {"user": 1}, 404, "there is no path /recommend/"),
        ("/recommend", {"wish": "unheard"}, 400, "wish 'unheard': the items' texts have none of its words"),
        ("/recommend", {"user": 1, "diversity": 0.5}, 400, "ease has no item vectors"),
        ("/explain", {"item": 1}, 422, "give user or history"),
        ("/explain", {"item": 1, "history": [1]}, 400, "item: 1 is in the history"),
        ("/similar?item=1", None, 400, "ease has no item vectors"),
        ("/similar?item=1&k=x", None, 422, "k: Input should be a valid integer"),
        ("/items?item=77", None, 400, "item '77' is not in the data"),
        ("/items?" + "item=1&" * 501, None, 422, "item: List should have at most 500 items"),
        ("/users?k=1000", None, 422, "k: Input should be less than or equal to 100"),
        ("/history", None, 422, "user: Field required"),
        ("/history?user=nobody", None, 400, "user 'nobody' is not in the data"),
        ("/map", None, 400, "ease has no item vectors, which diversity, similar and the map need"),
        ("/map?k=5001", None, 422, "k: Input should be less than or equal to 5000"),
        ("/items?query=1", None, 400, "there is no parameter 'query': there are item, k, q"),
        ("/map?seed=1&k=3", None, 400, "there is no parameter 'seed': there are item, k"),
        ("/items?k=1000", None, 422, "k: Input should be less than or equal to 100"),
        ("/nothing", None, 404, "there is no path /nothing: there are /, /recommend, "),
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
