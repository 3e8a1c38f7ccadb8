"""A page that loads nothing, says what there is to say, and says it first when something is wrong."""

from __future__ import annotations

import base64
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyro.distributions as dist
import pytest

import latentrnn as lr

VOID = {"meta", "img", "br", "hr", "link"}


class Page(HTMLParser):
    """What a browser makes of a page: its images, links, headings and text; tags that do not match are errors."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.headings: list[str] = []
        self.texts: list[str] = []
        self.feed(source)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        assert tag not in ("script", "link", "iframe")
        if tag not in VOID:
            self.open.append(tag)
        if tag == "img":
            self.images.append(found)
        if tag == "a":
            self.links.append(str(found["href"]))
        if "id" in found:
            self.ids.add(str(found["id"]))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)
        if "style" not in self.open:
            self.texts.append(data)


@pytest.fixture(scope="module")
def posterior() -> lr.Posterior:
    counts = np.random.default_rng(0).poisson(1.5, (14, 12, 4))
    data = lr.SequenceData.from_arrays({"spikes": counts}, dt=0.02, sequence_names=[f"<{i}>" for i in range(14)])
    head = lr.Poisson(priors={"baseline": dist.Normal(0.0, 1.0)})
    model = lr.LatentRNN(data.spec, transition=lr.GRU(2), latent=lr.Innovations(1), observations={"spikes": head})
    guide = lr.Guide(model, encoder=lr.RNNEncoder(2))
    result = lr.fit(
        model, guide, data[:8], data[8:10], steps=4, seed=0, reporting=lr.Reporting(progress=False, every=1)
    )
    return result.posterior(data[10:])


@pytest.fixture(scope="module")
def page(posterior: lr.Posterior, tmp_path_factory: pytest.TempPathFactory) -> Page:
    path = tmp_path_factory.mktemp("pages") / "new" / "fit.html"
    assert lr.report(posterior, path, title="Spikes & <rates>", num_samples=20) == path
    return Page(path.read_text())


def test_it_has_its_sections_and_links_to_them(page: Page) -> None:
    assert page.headings == ["Data", "Model", "Fit", "Parameters", "Predictions", "Checks", "Made with"]
    assert {link.removeprefix("#") for link in page.links} == page.ids


def test_all_images_are_in_it(page: Page) -> None:
    assert len(page.images) == 3
    for image in page.images:
        kind, content = str(image["src"]).split(",", 1)
        assert kind == "data:image/png;base64"
        assert base64.b64decode(content).startswith(b"\x89PNG")
        assert image["alt"]


def test_what_the_user_wrote_is_text(page: Page) -> None:
    text = " ".join(page.texts)
    assert "Spikes & <rates>" in text
    assert "Sequence '<10>'" in text
    assert "baseline" in text


def test_what_is_wrong_comes_first(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    counts = rng.poisson(1.5 * rng.gamma(0.7, 1 / 0.7, (40, 25, 2)))
    data = lr.SequenceData.from_arrays({"y": counts}, dt=0.02)
    head = lr.Poisson(fixed={"weight": 0.0, "baseline": float(np.log(1.5))})
    model = lr.LatentRNN(data.spec, transition=lr.GRU(1), latent=lr.Deterministic(), observations={"y": head})
    found = lr.criticise(lr.Posterior(model, lr.Guide(model), data))
    path = lr.report(lr.Posterior(model, lr.Guide(model), data), tmp_path / "fit.html", criticism=found, num_samples=20)
    source = path.read_text()
    assert source.index("zero fraction") < source.index("<h2>Data")
    assert "Fit" not in Page(source).headings  # of no fit


def test_mistakes_are_named(posterior: lr.Posterior, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="report: posterior must be a posterior; found a FitResult"):
        lr.report(posterior.result, tmp_path / "fit.html")
    with pytest.raises(ValueError, match="is a folder"):
        lr.report(posterior, tmp_path)
    with pytest.raises(TypeError, match="report: path must be a string or a path"):
        lr.report(posterior, 3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="criticism"):
        lr.report(posterior, tmp_path / "fit.html", criticism="none")  # type: ignore[arg-type]
