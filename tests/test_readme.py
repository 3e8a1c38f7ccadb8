"""What the README shows works: its Python blocks run in order, in one namespace, in an empty directory.

A reader has data of their own; the names that a block takes for granted come from a preamble of this file. Blocks start
from the preamble ``recording``; an HTML comment on the line above a fence chooses another, from that block on:

    <!-- preamble: populations -->

Every block runs: there is no comment that leaves one out.
"""

from __future__ import annotations

import functools
import re
import textwrap
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import latentrnn as lr

README = Path(__file__).resolve().parents[1] / "README.md"
DOCS = README.parent / "docs"

PREAMBLES = {
    "recording": """
        import numpy
        generator = numpy.random.default_rng(0)
        stimulus = generator.normal(size=(20, 40, 1))
        counts = generator.poisson(numpy.exp(0.5 * stimulus - 0.5 + numpy.array([0.0, 0.3, -0.3])))
    """,
    # A table as a historian exports it: two dozen pumps for two days, rows missing and out of order.
    "pumps": """
        import numpy
        import pandas
        import latentrnn as lr
        generator = numpy.random.default_rng(0)
        rows = []
        for pump in range(24):
            load = generator.uniform(0.5, 1.5, size=48)
            heat = 40 + 5 * numpy.convolve(load, 0.5 ** numpy.arange(8))[:48] + generator.normal(size=48)
            for hour in range(48):
                when = pandas.Timestamp("2024-03-01") + pandas.Timedelta(hours=hour)
                seen = load[hour] if generator.random() < 0.9 else None
                rows.append({"pump": f"P{pump:02}", "site": ("harbour", "mill")[pump % 2], "when": when.isoformat(),
                             "load": seen, "temperature": heat[hour]})
        pandas.DataFrame(rows).sample(frac=0.97, random_state=0).to_csv("pumps.csv", index=False)
    """,
    # Two populations that share a slow rhythm; the spec of these is the one that the block's own data have.
    "populations": """
        import numpy
        import latentrnn
        generator = numpy.random.default_rng(0)
        rhythm = numpy.sin(numpy.arange(30) / 4 + generator.uniform(0, 6, size=(20, 1)))[..., None]
        a = generator.poisson(numpy.exp(rhythm * generator.normal(size=4)))
        b = generator.poisson(numpy.exp(rhythm * generator.normal(size=2)))
        train, valid, test = latentrnn.SequenceData.from_arrays(
            observations={"heldin": a, "heldout": b}, dt=0.02
        ).split(0.7, 0.15, 0.15, seed=0)
    """,
    # A few recordings in a file.
    "long": """
        import numpy
        generator = numpy.random.default_rng(0)
        numpy.save("counts.npy", generator.poisson(0.5, (4, 1000, 3)))
    """,
    # Two days of one rhythm, seen by neurons that differ.
    "sessions": """
        import numpy
        generator = numpy.random.default_rng(0)
        rhythm = numpy.sin(numpy.arange(30) / 4 + generator.uniform(0, 6, size=(2, 10, 1)))[..., None]
        monday = generator.poisson(numpy.exp(rhythm[0] * generator.normal(size=6)))
        tuesday = generator.poisson(numpy.exp(rhythm[1] * generator.normal(size=9)))
    """,
}

# The paths that every change of the package keeps walkable, word for word.
WHOLE_PATH = """
import latentrnn as lr

data = lr.SequenceData.from_arrays(
    observations={"spikes": counts},        # (sequences, time, channels), or a list of (time_i, channels)
    covariates={"stimulus": stimulus},      # same leading axes
    dt=0.001,                               # seconds per step
)
train, valid, test = data.split(0.7, 0.15, 0.15, seed=0)

model = lr.LatentRNN(
    data.spec,
    transition=lr.GRU(64),
    latent=lr.Innovations(4),
    observations={"spikes": lr.Poisson(gain=lr.StimulusGain("stimulus"))},
)
guide = lr.Guide(model, encoder=lr.RNNEncoder(64, direction="bidirectional"))

result = lr.fit(model, guide, train, validation=valid, seed=0)   # progress bar, GPU when there is one
posterior = result.posterior(test)

posterior.evidence("iwae", num_particles=64)    # nats per sequence, with its Monte Carlo error
check = lr.posterior_predictive_check(posterior)  # discrepancies, p-values, a table and a plot
idata = posterior.to_arviz()                     # az.plot_* all work; az.compare works on held-out evidence
result.save("runs/gru")                          # safetensors + JSON; lr.load("runs/gru")
"""

CO_SMOOTHING = """
import latentrnn as lr

data = lr.SequenceData.from_arrays(observations={"heldin": a, "heldout": b}, dt=0.02)
model = lr.LatentRNN(data.spec, transition=lr.GRU(100), latent=lr.Innovations(4, initial=32),
                     observations={"heldin": lr.Poisson(), "heldout": lr.Poisson()})
guide = lr.Guide(model, encoder=lr.RNNEncoder(64, direction="bidirectional", observes=["heldin"]))
posterior = lr.fit(model, guide, train, validation=valid, seed=0).posterior(test)
rates = posterior.mean("heldout", num_samples=50)        # (sequence, time, channel), expected count per bin
lr.bits_per_spike(rates, test.observations["heldout"])   # against each channel's mean; mask-aware
posterior.one_step_ahead("heldin")                        # log p(y_t | y_<t, covariates), nats, never smoothed
"""

FENCE = re.compile(
    r"^(?:<!--[ ]*(?P<order>[^:\n]*?):[ ]*(?P<value>[^\n]*?)[ ]*-->\n)?"
    r"```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^```[ ]*$",
    re.MULTILINE | re.DOTALL,
)

ANY_PYTHON_FENCE = re.compile(r"^[ \t>]*(?:`{3,}|~{3,})[ ]*i?py\w*", re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True)
class Block:
    """One Python block of a page: its code, the line it starts on, and the preamble asked for above it."""

    code: str
    line: int
    preamble: str | None = None


def python_blocks(page: str) -> list[Block]:
    """The ```python blocks of a Markdown page, in order.

    Raises:
        ValueError: a Python fence that would be passed over (indented, or spelt another way), or an unknown comment.
    """
    blocks = []
    for match in FENCE.finditer(page):
        line = page[: match.start("code")].count("\n") + 1
        order, value = match["order"], match["value"]
        if match["language"] != "python":
            continue
        if order is not None and (order != "preamble" or value not in PREAMBLES):
            raise ValueError(f"line {line}: expected 'preamble: {' | '.join(PREAMBLES)}'; got '{order}: {value}'")
        blocks.append(Block(match["code"], line, value))
    shown = ANY_PYTHON_FENCE.findall(page)
    if len(shown) != len(blocks):
        raise ValueError(f"expected every Python block between ```python and ``` at the margin; got {shown}")
    return blocks


def run(blocks: list[Block], filename: str) -> dict[str, object]:
    """Execute blocks in order; returns the namespace. Line numbers in a traceback are those of ``filename``."""
    namespace: dict[str, object] = {"__name__": "readme"}
    _prepare(namespace, "recording")
    for block in blocks:
        if block.preamble is not None:
            _prepare(namespace, block.preamble)
        exec(compile("\n" * (block.line - 1) + block.code, filename, "exec"), namespace)
    return namespace


@pytest.fixture(autouse=True)
def _empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


MOST_STEPS = 30  # of a fit of a page that shows the path; where long fits lead is known from other tests


@pytest.fixture
def short_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """`lr.fit` as it is, with as many steps as are asked for, or as are allowed."""
    fit = lr.fit

    @functools.wraps(fit)
    def short(*parts: Any, **settings: Any) -> lr.FitResult:
        return fit(*parts, **settings | {"steps": min(settings.get("steps", MOST_STEPS), MOST_STEPS)})

    monkeypatch.setattr(lr, "fit", short)


@pytest.mark.usefixtures("short_fits")
def test_the_blocks_of_the_readme_run_in_order(tmp_path: Path) -> None:
    namespace = run(python_blocks(README.read_text()), str(README))
    assert (tmp_path / "runs" / "gru").exists()
    assert {"result", "check", "idata"} <= namespace.keys()


@pytest.mark.parametrize(
    ("block", "page"),
    [
        (WHOLE_PATH, README),
        (WHOLE_PATH, DOCS / "tour" / "bayesian.md"),
        (CO_SMOOTHING, DOCS / "howto" / "co_smoothing.md"),
    ],
    ids=["whole path", "whole path in the tour", "co-smoothing"],
)
def test_pages_show_the_path_word_for_word(block: str, page: Path) -> None:
    assert block.strip() in page.read_text()


def test_blocks_are_found_with_their_lines_and_comments() -> None:
    page = "# Title\n\n```sh\nmake\n```\n\n```python\nx = 1\n```\n\n"
    page += "<!-- preamble: populations -->\n```python\nz = x\n```\n"
    assert python_blocks(page) == [Block("x = 1\n", 8), Block("z = x\n", 13, "populations")]


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("```py\nx\n```\n", "expected every Python block between"),
        ("- item\n\n  ```python\n  x\n  ```\n", "expected every Python block between"),
        ("~~~python\nx\n~~~\n", "expected every Python block between"),
        (
            "<!-- preamble: mine -->\n```python\nx\n```\n",
            "line 3: expected 'preamble: recording | pumps | populations | long | sessions'",
        ),
        ("<!-- skip: no -->\n```python\nx\n```\n", "line 3: expected"),
    ],
)
def test_what_would_be_passed_over_is_refused(page: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        python_blocks(page)


def test_blocks_share_a_namespace_and_a_failing_one_names_its_line() -> None:
    with pytest.raises(NameError, match="undefined_name") as raised:
        run([Block("x = counts.sum()\n", 8), Block("x + 1\nundefined_name\n", 20)], "README.md")
    frame = traceback.extract_tb(raised.tb)[-1]
    assert (frame.filename, frame.lineno) == ("README.md", 21)


def _prepare(namespace: dict[str, object], preamble: str) -> None:
    exec(compile(textwrap.dedent(PREAMBLES[preamble]), f"<preamble {preamble}>", "exec"), namespace)
