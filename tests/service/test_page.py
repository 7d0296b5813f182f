"""The page at /, in Chromium: what it shows is what the model says."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Route, expect

from cllm4rec import load
from cllm4rec.models.base import Recommender
from tests.commands.test_serve import serving
from tests.support.browser import chromium, opened
from tests.support.commands import call

BOOKSHOP = Path(__file__).parents[2] / "datasets" / "bookshop"
READER, WISH = "reader-0109", "comet not horror"
HISTORY = ["book-0042", "book-0079"]
pytestmark = pytest.mark.slow  # a run is trained


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def run(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run on the bookshop."""
    folder = tmp_path_factory.mktemp("shop")
    tables = ("--interactions", BOOKSHOP / "events.csv", "--items", BOOKSHOP / "items.csv")
    call("prepare", *tables, "--output", folder / "data")
    call("pretrain", "--dataset", folder / "data", "--output", folder / "run", "--epochs", 2)
    call("finetune", "--run", folder / "run", "--epochs", 2)
    return folder / "run"


@pytest.fixture(scope="module")
def model(run: Path) -> Recommender:
    return load(run)


@pytest.fixture(scope="module")
def address(run: Path) -> Iterator[str]:
    """Of the process of `cllm4rec serve`."""
    with serving(run) as running:
        yield running.address


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """The page in a window of a desktop."""
    with opened(browser, address, viewport={"width": 1280, "height": 900}) as page:
        expect(page.locator("html")).to_have_attribute("data-ready", "true")
        yield page


def expect_list(page: Page, expected: list[str]) -> None:
    """Wait until these ids are shown, in their order."""
    expect(page.locator("#list > li .id")).to_have_text(expected)


def ids(model: Recommender, *arguments: Any, **options: Any) -> list[str]:
    return model.recommend(*arguments, **options)["item_id"].to_list()


def title_of(model: Recommender, item: str) -> str:
    (number,) = model.item_ids.index([item])
    return str(model.items["title"][int(number)])


def choose(page: Page, field: str, text: str) -> None:
    """Type into a field that searches, and take the first option."""
    page.fill(field, text)
    page.locator(f"{field}-options [role=option]").first.click()


def test_a_user_is_searched_and_gets_the_list_of_the_model(page: Page, model: Recommender) -> None:
    choose(page, "#user", "0109")
    expected = model.recommend([READER])
    expect_list(page, expected["item_id"].to_list())
    expect(page.locator("#list .title")).to_have_text(expected["title"].to_list())
    expect(page.locator("#list .score")).to_have_text([f"{score:.3f}" for score in expected["score"]])
    expect(page.locator("#history li span")).to_have_text(model.history(READER)["title"].to_list()[::-1])
    expect(page.locator("#status")).to_have_text(f"10 items for {READER}.")
    page.fill("#k", "25")
    page.press("#k", "Enter")
    expect_list(page, ids(model, [READER], k=25))


def test_a_history_is_built_by_searching_titles(page: Page, model: Recommender) -> None:
    for item in HISTORY:
        choose(page, "#item", title_of(model, item).upper())
    expect_list(page, ids(model, histories=[HISTORY]))
    page.get_by_role("button", name=f"Remove {title_of(model, HISTORY[0])}").click()
    expect_list(page, ids(model, histories=[HISTORY[1:]]))
    first = ids(model, histories=[HISTORY[1:]])[0]
    page.locator("#list .add").first.click()
    expect_list(page, ids(model, histories=[[HISTORY[1], first]]))
    page.click("#clear")
    expect(page.locator("#list > li")).to_have_count(0)
    expect(page.locator("#status")).to_have_text("Choose a user, add items, or type a wish.")


def test_a_changed_history_of_a_user_is_one_without_a_user(page: Page, model: Recommender) -> None:
    choose(page, "#user", READER)
    expect_list(page, ids(model, [READER]))
    history = model.history(READER)["item_id"].to_list()
    page.locator("#history button").first.click()  # the latest
    expect_list(page, ids(model, histories=[history[:-1]]))
    expect(page.locator("#user")).to_have_value("")


def test_a_wish_moves_the_list(page: Page, model: Recommender) -> None:
    page.fill("#wish", WISH)
    expect_list(page, ids(model, wish=WISH))
    expect(page.locator(".why")).to_have_count(0)  # of a wish alone there are no reasons
    page.fill("#wish", f"{WISH} zzzz")
    expect(page.locator("#status")).to_contain_text("for the wish. No item has: zzzz.")
    choose(page, "#user", READER)
    expect_list(page, ids(model, [READER], wish=WISH))
    page.fill("#wish", "")
    expect_list(page, ids(model, [READER]))


def test_diverse_lists_are_those_of_the_model(page: Page, model: Recommender) -> None:
    choose(page, "#user", READER)
    page.fill("#diversity", "0.8")
    expect_list(page, ids(model, [READER], diversity=0.8))


def test_reasons_are_those_of_the_model(page: Page, model: Recommender) -> None:
    choose(page, "#user", READER)
    item = ids(model, [READER])[2]
    page.locator(".why").nth(2).click()
    expected = model.explain(READER, item)
    tables = page.locator("#list > li").nth(2).locator(".reasons table")
    expect(tables).to_have_count(2)
    of_items, of_words = tables.all()
    rows = sorted(expected.items.to_dicts(), key=lambda row: -abs(row["effect"]))[:6]
    expect(of_items.locator("th")).to_have_text([row["title"] for row in rows])
    numbers = [f"{row['effect']:+.3f}".replace("-", "−") for row in rows]
    expect(of_items.locator(".number")).to_have_text(numbers)
    words = sorted(expected.words.to_dicts(), key=lambda row: -abs(row["effect"]))[:6]
    expect(of_words.locator("th")).to_have_text([row["word"] for row in words])
    expect(page.locator(".reasons > .note").first).to_contain_text(
        f"Score {expected.score:.3f}, rank {expected.rank}."
    )


def test_errors_are_the_sentences_of_the_service(page: Page, model: Recommender) -> None:
    page.fill("#wish", "zzzz")
    expect(page.get_by_role("alert")).to_contain_text("wish 'zzzz': the items' texts have none of its words")
    expect(page.locator("#list > li")).to_have_count(0)
    page.fill("#wish", WISH)
    expect_list(page, ids(model, wish=WISH))
    expect(page.locator("#error")).to_be_hidden()
    page.goto(page.url.partition("#")[0] + "#item=unheard")
    expect(page.get_by_role("alert")).to_contain_text("item 'unheard' of the histories is none of")


def test_a_service_that_is_gone_is_named(page: Page) -> None:
    page.route("**/recommend", lambda route: route.abort())
    page.fill("#wish", WISH)
    expect(page.get_by_role("alert")).to_have_text("the service does not answer: see whether it runs")


def test_the_address_names_the_list_and_back_works(page: Page, model: Recommender, address: str) -> None:
    choose(page, "#user", READER)
    expect_list(page, ids(model, [READER]))
    page.fill("#wish", WISH)
    page.press("#wish", "Enter")
    expect_list(page, ids(model, [READER], wish=WISH))
    page.locator("#list .add").first.click()
    history = [*model.history(READER)["item_id"], ids(model, [READER], wish=WISH)[0]]
    expect_list(page, ids(model, histories=[history], wish=WISH))
    kept = page.url
    page.go_back()
    expect_list(page, ids(model, [READER], wish=WISH))
    page.go_back()
    expect_list(page, ids(model, [READER]))
    expect(page.locator("#wish")).to_have_value("")
    page.goto("about:blank")
    page.goto(kept)
    expect_list(page, ids(model, histories=[history], wish=WISH))
    expect(page.locator("#history li span").first).to_have_text(title_of(model, history[-1]))


def test_a_late_answer_is_not_shown(page: Page, model: Recommender) -> None:
    held: list[Route] = []

    def hold_first(route: Route) -> None:
        if held:
            route.continue_()
        else:
            held.append(route)

    page.route("**/recommend", hold_first)
    choose(page, "#user", READER)
    expect(page.locator("#result")).to_have_attribute("aria-busy", "true")
    page.fill("#k", "3")
    page.press("#k", "Enter")
    expect_list(page, ids(model, [READER], k=3))
    held[0].abort()  # the page has given it up
    expect_list(page, ids(model, [READER], k=3))


def lit(page: Page, colour: str) -> int:
    """Pixels of the map that have the colour of a property."""
    script = """(name) => {
        const canvas = document.querySelector("canvas"), context = canvas.getContext("2d");
        const value = getComputedStyle(canvas).getPropertyValue(name).trim().slice(1);
        const [r, g, b] = [0, 2, 4].map((at) => parseInt(value.slice(at, at + 2), 16));
        const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
        let n = 0;
        for (let at = 0; at < data.length; at += 4) {
            if (data[at] === r && data[at + 1] === g && data[at + 2] === b) n += 1;
        }
        return n;
    }"""
    return int(page.evaluate(script, colour))


def test_history_and_list_light_up_on_the_map(page: Page, model: Recommender) -> None:
    assert lit(page, "--point") > 100 * 10
    assert (lit(page, "--accent"), lit(page, "--history")) == (0, 0)
    choose(page, "#user", READER)
    n = len(model.history(READER))
    label = f"Map of items. 10 of the list and {n} of the history are marked."
    expect(page.locator("#map")).to_have_attribute("aria-label", label)
    assert lit(page, "--accent") > 500
    assert lit(page, "--history") > 200
    page.locator("#list > li").nth(1).hover()
    expect(page.locator("#tip")).to_have_text(title_of(model, ids(model, [READER])[1]))
    page.locator("h1").hover()
    expect(page.locator("#tip")).to_be_hidden()
    page.locator("#list > li").nth(1).hover()
    expect(page.locator("#tip")).to_be_visible()
    page.fill("#wish", "zzzz")  # the pointer stays, the list is empty
    expect(page.locator("#list > li")).to_have_count(0)
    expect(page.locator("#tip")).to_be_hidden()


def test_items_that_a_large_map_leaves_out_are_asked_for(page: Page, model: Recommender) -> None:
    page.route("**/map", lambda route: route.continue_(url=f"{route.request.url}?k=5"))
    page.goto(f"{page.url}#user={READER}")
    page.reload()
    expect_list(page, ids(model, [READER]))
    share = round(100 * model.item_map()[1])
    expect(page.locator("#map-note")).to_have_text(
        f"Neighbours have similar vectors. The map holds {share}\u00a0% of their variance. "
        "5 random items are drawn."
    )
    for row, title in zip(page.locator("#list > li").all(), page.locator("#list .title").all(), strict=True):
        row.hover()
        expect(page.locator("#tip")).to_have_text(title.inner_text())


@pytest.mark.parametrize("width", [320, 360])
def test_a_narrow_screen_does_not_scroll_sideways(
    width: int, browser: Browser, address: str, model: Recommender
) -> None:
    options = {"viewport": {"width": width, "height": 700}, "has_touch": True, "is_mobile": True}
    with opened(browser, f"{address}/#user={READER}", **options) as page:
        expect_list(page, ids(model, [READER]))
        page.locator(".why").first.tap()
        expect(page.locator(".reasons table")).to_have_count(2)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        parts = page.locator("section, main input, #list button, #map")
        boxes = [box for each in parts.all() if (box := each.bounding_box())]
        assert len(boxes) > 25
        assert all(box["x"] >= 0 and box["x"] + box["width"] <= width for box in boxes)
        choose(page, "#item", title_of(model, "book-0042"))
        expect(page.locator("#history li span").first).to_have_text(title_of(model, "book-0042"))


def tab_to(page: Page, name: str) -> None:
    """Press Tab until the element of this accessible name has the focus."""
    for _ in range(60):
        page.keyboard.press("Tab")
        focused = page.locator(":focus")
        if focused.count() and (focused.get_attribute("aria-label") or focused.get_attribute("id")) == name:
            return
    raise AssertionError(f"Tab does not lead to {name}")


def test_all_is_done_by_keyboard(page: Page, model: Recommender) -> None:
    def search(text: str, *keys: str) -> None:
        page.keyboard.type(text)
        expect(page.locator("#item-options [aria-selected=true]")).to_have_count(1)
        for key in keys:
            page.keyboard.press(key)

    titles = [title_of(model, item) for item in HISTORY]
    tab_to(page, "item")
    search(titles[0], "Enter")
    expect_list(page, ids(model, histories=[HISTORY[:1]]))
    search("the", "ArrowDown", "ArrowUp", "Escape")
    expect(page.locator("#item")).to_have_attribute("aria-expanded", "false")
    page.keyboard.press("Control+A")
    search(titles[1], "Enter")
    expect_list(page, ids(model, histories=[HISTORY]))
    best = title_of(model, ids(model, histories=[HISTORY])[0])
    tab_to(page, f"Why? {best}")
    page.keyboard.press("Enter")
    expect(page.locator("#list > li").first.locator(".reasons table")).to_have_count(2)
    tab_to(page, "Map of items. 10 of the list and 2 of the history are marked.")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#selected")).to_have_text(best)
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#selected")).not_to_have_text(best)
    selected = page.locator("#selected").inner_text()
    page.keyboard.press("Enter")
    expect(page.locator("#history li span").first).to_have_text(selected)
    tab_to(page, f"Remove {selected}")
    page.keyboard.press("Space")
    expect_list(page, ids(model, histories=[HISTORY]))
    expect(page.locator(f'[aria-label="Remove {titles[1]}"]')).to_be_focused()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_axe_finds_no_violations(
    scheme: str, width: int, browser: Browser, address: str, model: Recommender
) -> None:
    options = {"viewport": {"width": width, "height": 900}, "color_scheme": scheme}
    with opened(browser, f"{address}/#user={READER}&wish=comet", **options) as page:
        page.locator(".why").first.click()
        expect(page.locator(".reasons table")).to_have_count(2)
        expect_no_violations(page)
        page.fill("#item", "the")
        expect(page.locator("#item-options [role=option]")).to_have_count(20)
        expect_no_violations(page)
        page.fill("#wish", "zzzz")
        expect(page.locator("#error")).to_be_visible()
        expect_no_violations(page)


def expect_no_violations(page: Page) -> None:
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
