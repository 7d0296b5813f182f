"""The picture of the page in README: the list that README shows. PAGE_PICTURE=1 draws it anew."""

import os
import struct
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.commands.test_serve import serving
from tests.support.browser import chromium, opened
from tests.support.commands import call

ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "docs" / "figures" / "page.png"
READER = "reader-0109"
MOST_BYTES = 200_000


def size(picture: bytes) -> tuple[int, int]:
    """Width and height of a PNG."""
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", picture[16:24])
    return int(width), int(height)


@pytest.mark.slow
def test_the_picture_shows_the_list_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list is compared; letters and colours of a picture differ between machines."""
    readme = [line.split()[1] for line in (ROOT / "README.md").read_text().splitlines() if READER in line]
    expected = [item for item in readme if item.startswith("book-")]
    with chromium() as browser:
        monkeypatch.chdir(tmp_path)
        shop = ROOT / "datasets" / "bookshop"
        tables = ("--interactions", shop / "events.csv", "--items", shop / "items.csv")
        call("prepare", *tables, "--output", "runs/shop")
        call("pretrain", "--dataset", "runs/shop", "--output", "runs/first")
        call("finetune", "--run", "runs/first")
        options = {"viewport": {"width": 1200, "height": 880}, "color_scheme": "light"}
        with (
            serving(Path("runs/first")) as running,
            opened(browser, f"{running.address}/#user={READER}", **options) as page,
        ):
            expect(page.locator("#list > li")).to_have_count(10)
            expect(page.locator("html")).to_have_attribute("data-ready", "true")
            assert page.locator("#list .id").all_inner_texts()[: len(expected)] == expected
            page.locator(".why").first.click()
            expect(page.locator(".reasons table")).to_have_count(2)
            picture = page.screenshot(animations="disabled")
    if "PAGE_PICTURE" in os.environ:
        PICTURE.write_bytes(picture)
    assert size(picture) == size(PICTURE.read_bytes())
    assert max(len(picture), PICTURE.stat().st_size) < MOST_BYTES
