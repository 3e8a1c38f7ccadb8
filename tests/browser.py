"""A headless Chromium for tests of pages, or a skip that says what is missing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
PHONE = {"width": 375, "height": 812}  # CSS pixels
SCREEN = {"width": 1280, "height": 900}
BROKEN = (
    "[...document.images].filter(image => !image.complete || !image.naturalWidth).map(image => image.src.slice(0, 120))"
)


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser of playwright. Skips where playwright or Chromium is not installed (`.ci/browser` gets them)."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is on the path")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Any, path: Path, size: dict[str, int]) -> Iterator[tuple[Any, list[str]]]:
    """A page from a file at a window's size, and what its console says is wrong."""
    errors: list[str] = []
    page = browser.new_page(viewport=size)
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(path.as_uri(), wait_until="load")
    try:
        yield page, errors
    finally:
        page.close()


def broken_images(page: Any) -> list[str]:
    """The images that did not load, all of which are asked for first."""
    page.evaluate("[...document.images].forEach(image => { image.loading = 'eager'; })")
    page.wait_for_function("[...document.images].every(image => image.complete)")
    return page.evaluate(BROKEN)


def overflow(page: Any) -> int:
    """CSS pixels by which the page is wider than its window."""
    return page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
