"""The page and its service: the token, a run without vectors or dataset, and hostile titles."""

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from playwright.sync_api import Browser, expect

from cllm4rec import EASE, Dataset, EASEConfig, load
from cllm4rec.service.app import Served
from tests.support.browser import chromium, opened
from tests.support.services import served_in_a_thread

TITLES = [
    "<img src=x onerror=alert(1)>",
    "<script>alert(2)</script>",
    "${alert(3)} & 'quoted'",
    "\u202eright to",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


def test_the_page_asks_for_the_token(ease: EASE, browser: Browser) -> None:
    expected = [str(item) for item in ease.recommend([4])["item_id"]]
    with served_in_a_thread(Served(ease, "run", token="secret")) as address:
        with opened(browser, f"{address}/#user=4") as page:
            for token, note in (
                ("wrong", "The service needs a token."),
                ("secret", "The service refuses this token."),
            ):
                expect(page.locator("#token-note")).to_contain_text(note)
                page.fill("#token", token)
                page.keyboard.press("Enter")
            expect(page.locator("#list .id")).to_have_text(expected)
            expect(page.locator("dialog")).to_be_hidden()
            assert "secret" not in page.url + page.content()
            assert page.evaluate("localStorage.length + document.cookie.length") == 0
            page.reload()  # the tab keeps it
            expect(page.locator("#list .id")).to_have_text(expected)
        with opened(browser, f"{address}/#user=4") as page:
            expect(page.locator("dialog")).to_be_visible()
            page.keyboard.press("Escape")
            expect(page.get_by_role("alert")).to_contain_text("the token is missing or wrong")
            expect(page.locator("#list > li")).to_have_count(0)


def test_a_run_without_its_dataset_serves_histories(ease: EASE, tmp_path: Path, browser: Browser) -> None:
    ease.save(tmp_path / "model")
    with (
        served_in_a_thread(Served(load(tmp_path / "model"), "run")) as address,
        opened(browser, address) as page,
    ):
        expect(page.locator("#user-note")).to_contain_text("no users are served, only histories and wishes")
        expect(page.locator("#user")).to_be_hidden()
        page.fill("#item", "title 3")
        page.press("#item", "Enter")  # the first one, when it is found
        expected = ease.recommend(histories=[[3]])["item_id"]
        expect(page.locator("#list .id")).to_have_text([str(item) for item in expected])


def test_a_model_without_item_vectors_has_no_map(ease: EASE, browser: Browser) -> None:
    with served_in_a_thread(Served(ease, "run")) as address, opened(browser, address) as page:
        expect(page.locator("#map-note")).to_contain_text("ease has no item vectors")
        expect(page.locator("#map")).to_be_hidden()
        expect(page.locator("#diversity")).to_be_disabled()


@pytest.fixture(scope="module")
def hostile() -> EASE:
    """A model whose titles and ids are markup."""
    ids = [f"{title} {number}" for number, title in enumerate(TITLES * 2)]
    items = pl.DataFrame({"item_id": ids, "title": TITLES * 2})
    pairs = [(f"<b>{user}</b>", item) for user in range(6) for item in ids[user % 3 :: 2]]
    events = pl.DataFrame(pairs, ["user_id", "item_id"], orient="row")
    return EASE(EASEConfig(regularization=1.0)).fit(Dataset.from_frame(events, items))


def test_titles_are_never_markup(hostile: EASE, browser: Browser) -> None:
    with (
        served_in_a_thread(Served(hostile, "<i>run</i>")) as address,
        opened(browser, address) as page,
    ):
        page.on("dialog", lambda dialog: pytest.fail(f"a title was run: {dialog.message}"))
        page.fill("#user", "<b>1")
        expect(page.locator("#user-options [role=option]")).to_have_text(["<b>1</b>"])
        page.press("#user", "Enter")
        expected = hostile.recommend(["<b>1</b>"])
        expect(page.locator("#list .title")).to_have_text(expected["title"].to_list())
        page.locator(".why").first.click()
        reasons = page.locator(".reasons th")
        expect(reasons).to_have_count(len(hostile.history("<b>1</b>")))
        assert set(reasons.all_inner_texts()) <= set(TITLES)
        page.fill("#item", "<script>")
        expect(page.locator("#item-options [role=option]").first).to_contain_text("<script>alert(2)</script>")
        assert page.locator("main img, main script, main b, main i").count() == 0


def test_the_policy_refuses_scripts_and_markup_from_texts(ease: EASE, browser: Browser) -> None:
    """What a defect of the page might let in does nothing."""
    script = """() => {
        const refused = [];
        for (const act of [
            () => document.createElement("button").setAttribute("onclick", "run()"),
            () => { document.createElement("div").innerHTML = "<p>"; },
            () => { document.createElement("script").src = "page/page.js"; },
            () => document.write("<p>"),
        ]) {
            try { act(); } catch (error) { refused.push(error.name); }
        }
        return refused;
    }"""
    with served_in_a_thread(Served(ease, "run")) as address:
        context = browser.new_context()
        page, reported = context.new_page(), list[str]()
        page.on("console", lambda message: reported.append(message.text))
        page.goto(address)
        assert page.evaluate(script) == ["TypeError"] * 4
        sent = page.evaluate("fetch('https://other.test/').then(() => 'sent', (error) => error.name)")
        assert sent == "TypeError"
        context.close()
    assert any("https://other.test/" in text and "Content Security Policy" in text for text in reported)
