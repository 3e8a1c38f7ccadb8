"""The documentation site as a browser shows it, once it is built (`make docs`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser import PHONE, SCREEN, broken_images, chromium, opened, overflow

SITE = Path(__file__).resolve().parents[2] / "build" / "site"
PAGES = ("docs/index", "docs/notebooks/tour", "docs/reference/generated/latentrnn.fit", "docs/interpret")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (SITE / "docs" / "index.html").is_file(), reason="the site is not built: make docs"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.mark.parametrize("size", [PHONE, SCREEN], ids=["phone", "screen"])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_opens(browser: Any, name: str, size: dict[str, int]) -> None:
    with opened(browser, SITE / f"{name}.html", size) as (page, errors):
        assert page.locator("h1").count() == 1
        assert broken_images(page) == []
        assert errors == []
        assert overflow(page) == 0


def test_the_root_leads_to_the_start_page(browser: Any) -> None:
    with opened(browser, SITE / "index.html", SCREEN) as (page, _):
        page.wait_for_url("**/docs/index.html")
        assert page.locator("h1").inner_text().startswith("latentrnn")
