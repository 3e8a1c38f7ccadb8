"""The report as a browser shows it: images load, the console is quiet, a phone's width suffices, and it prints."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest

import latentrnn as lr
from tests.browser import PHONE, SCREEN, broken_images, chromium, opened, overflow

pytestmark = pytest.mark.slow
SIZES = pytest.mark.parametrize("size", [PHONE, SCREEN], ids=["phone", "screen"])


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a model with all that makes a page wide: long names, a table of priors, checks, a comparison."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(1.5, (20, 30, 6))
    names = [f"a recording with a rather long name, number {i}" for i in range(20)]
    data = lr.SequenceData.from_arrays({"spikes_of_the_first_area": counts}, dt=0.02, sequence_names=names)
    quiet = lr.Reporting(progress=False, every=1)

    def fitted(head: lr.Poisson) -> lr.Posterior:
        heads = {"spikes_of_the_first_area": head}
        model = lr.LatentRNN(data.spec, transition=lr.GRU(4), latent=lr.Deterministic(), observations=heads)
        return lr.fit(model, lr.Guide(model), data[:10], data[10:14], steps=8, seed=0, reporting=quiet).posterior(
            data[14:]
        )

    posterior = fitted(lr.Poisson(priors={"baseline": dist.Normal(0.0, 1.0)}))
    entries = {
        "with a baseline": fitted(lr.Poisson()),
        "a model without any": fitted(lr.Poisson(fixed={"baseline": 0.4})),
    }
    comparison = lr.compare(entries)
    path = tmp_path_factory.mktemp("report") / "report.html"
    return lr.report(posterior, path, title="Spikes of the first area", comparison=comparison, num_samples=50)


@SIZES
def test_the_report_opens(browser: Any, report: Path, size: dict[str, int]) -> None:
    with opened(browser, report, size) as (page, errors):
        assert page.title() == "Spikes of the first area"
        assert page.locator("img").count() >= 3
        assert broken_images(page) == []
        assert errors == []
        assert overflow(page) == 0


def test_its_links_lead_to_its_sections(browser: Any, report: Path) -> None:
    with opened(browser, report, SCREEN) as (page, _):
        for link in page.locator("nav a").all():
            target = link.get_attribute("href")
            link.click()
            assert page.locator(target).count() == 1


def test_it_prints(browser: Any, report: Path, tmp_path: Path) -> None:
    with opened(browser, report, SCREEN) as (page, _):
        content = page.pdf(path=tmp_path / "report.pdf", format="A4")
        assert content.startswith(b"%PDF")
        assert len(content) > 20_000  # with its figures
        page.emulate_media(media="print")
        page.set_viewport_size({"width": 680, "height": 1000})  # A4 between its margins
        assert overflow(page) == 0
        assert not page.locator("nav").is_visible()


def test_what_is_wrong_with_a_page_is_seen(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "wrong.html"
    path.write_text(
        "<!DOCTYPE html><title>x</title><img src='gone.png'><div style='width: 500px'>wide</div>"
        "<script>console.error('said so')</script>"
    )
    with opened(browser, path, PHONE) as (page, errors):
        assert broken_images(page)
        assert overflow(page) > 100
        assert any("said so" in error for error in errors)
