"""Debian's Chromium and pages that may report no error."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

NO_ANSWER = "Failed to load resource"  # of any answer that is an error; the page shows its sentence


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser. Tests are skipped where Chromium is absent."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("no Chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(browser: Browser, address: str, **options: Any) -> Iterator[Page]:
    """A page in a new session, when it has what it asks for first. At the end it has reported no error.

    Args:
        browser: of `chromium`.
        address: of the service, with the hash.
        options: of the session, such as the size of its window.
    """
    context = browser.new_context(**options)
    context.set_default_timeout(20_000)
    page, errors = context.new_page(), list[str]()
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.goto(address)
    yield page
    context.close()
    assert [error for error in errors if not error.startswith(NO_ANSWER)] == []
