"""A report of a fit: what was fitted to what, how, what it says and what is wrong with it, on one page."""

from __future__ import annotations

import os
import platform
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from latentrnn.criticism.criticise import Criticism, criticise
from latentrnn.criticism.held_out import check_posterior
from latentrnn.export.summary import summary
from latentrnn.pages.html import figure, items, page, paragraph, table, text
from latentrnn.plotting.axes import grid_of_axes
from latentrnn.plotting.history import history as draw_history
from latentrnn.plotting.rates import rates as draw_rates
from latentrnn.support.arguments import check_kind_of, check_size, check_text

if TYPE_CHECKING:
    import pandas

PACKAGES = ("latentrnn", "torch", "pyro-ppl", "numpy", "arviz")
CHANNELS = 3  # of a head that are drawn
FLAGGED = 20  # rows of checks that are shown


def report(
    posterior: Any,
    path: str | os.PathLike[str],
    *,
    title: str = "A latentrnn fit",
    criticism: Criticism | None = None,
    comparison: pandas.DataFrame | None = None,
    num_samples: int = 200,
) -> Path:
    """Write one self-contained HTML page about a fit: it loads nothing, fits a phone and prints.

    What was found wrong comes first; then data, model with its parameters, the fit with its curve, intervals of
    parameters with priors, predictions of a sequence, all checks, a comparison if one is given, and with which
    versions it was made and how to make it again.

    Args:
        posterior: of the sequences to report on, best held out.
        path: of the page, `.html`; folders that are missing are made.
        title: of the page.
        criticism: what `criticise` found; it is asked for where it is not given.
        comparison: what `compare` returned.
        num_samples: draws for checks, parameters and predictions.

    Returns:
        The path.

    Raises:
        TypeError: something else than a posterior, a criticism or a path.
        ValueError: the path is a folder.
    """
    check_posterior("report", "posterior", posterior)
    title = check_text("report", "title", title)
    num_samples = check_size("report", "num_samples", num_samples)
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"report: path must be a string or a path; found {path!r:.80}")
    if criticism is not None:
        check_kind_of("report", "criticism", criticism, Criticism)
    if comparison is not None and not (hasattr(comparison, "to_html") and hasattr(comparison, "columns")):
        found_type = type(comparison).__name__
        raise TypeError(f"report: comparison must be the table that compare returns; found {found_type}")
    target = Path(path)
    if target.is_dir():
        raise ValueError(f"report: path must be a file; {target} is a folder")
    criticism = criticise(posterior, num_samples=num_samples) if criticism is None else criticism
    result = posterior.result
    found = criticism.findings
    lead = items(found) if found else paragraph("No check that applies found anything wrong.")
    sections = {
        "Data": text(posterior.data),
        "Model": _model(posterior),
        "Fit": "" if result is None else _fit(result),
        "Parameters": _parameters(posterior, num_samples),
        "Predictions": _predictions(posterior, num_samples),
        "Checks": _checks(criticism),
        "Comparison": "" if comparison is None else table(comparison),
        "Made with": _made_with(posterior),
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(page(title, lead, sections), encoding="utf-8")
    return target


def _model(posterior: Any) -> str:
    """The model in equations, its parts as they were declared, the guide, and the parameters."""
    parts = text(posterior.model) + text(posterior.guide)
    return text("\n".join(posterior.model.equations())) + parts + table(posterior.model.parameters_table())


def _fit(result: Any) -> str:
    said = paragraph(result.stop_reason) + items(list(result.events))
    if not result.history.get("step"):
        return said
    (ax,) = grid_of_axes(1)
    draw_history(result.history, ax=ax)
    return said + figure(ax, "The bound over the steps of the fit")


def _parameters(posterior: Any, num_samples: int) -> str:
    if not posterior.model.parameter_sites():
        return paragraph("No parameter has a prior: all are point estimates, without intervals.", "quiet")
    frame = summary(posterior, num_samples=num_samples)
    condition = frame.attrs.get("conditional_on")
    return table(frame) + (paragraph(f"Conditional on {condition}.", "quiet") if condition else "")


def _predictions(posterior: Any, num_samples: int) -> str:
    """Rates and values of the first sequence, with what was observed."""
    data = posterior.data[:1]
    heads = [name for name, head in posterior.model.observations.items() if head.head.per_step]
    if not heads:
        return ""
    panels = [(name, channel) for name in heads for channel in range(min(data.spec.heads[name].channels, CHANNELS))]
    axes = grid_of_axes(len(panels))
    for (name, channel), ax in zip(panels, axes, strict=True):
        head = data.spec.heads[name]
        draws = posterior.rates(name, num_samples)[:, 0]
        inside = ~draws.isnan().any(-1).any(0)
        draw_rates(draws[:, inside], channel=channel, ax=ax)
        seen = data.masks[name][0, :, channel]
        steps = torch.arange(len(seen))[seen]
        ax.plot(steps.tolist(), data.observations[name][0, seen, channel].tolist(), ".", color="0.3", markersize=3)
        ax.set_ylabel(f"{name} {head.channel_names[channel]}")
        ax.set_xlabel("step" if head.clock == 1 else f"frame of {head.clock} steps")
    words = f"Sequence {data.names[0]!r}: mean and 90% band of what is expected of each step, and what was observed."
    return figure(axes[0], "Predictions of the first sequence") + paragraph(words, "quiet")


def _checks(criticism: Criticism) -> str:
    frame = criticism.to_dataframe()
    flagged = frame[frame.flagged].drop(columns="flagged") if len(frame) else frame
    parts = [text(criticism)]
    if len(frame):
        parts.append(figure(criticism.plot()[0], "Statistics of the data against those of replicates"))
    parts.append(table(flagged.head(FLAGGED)))
    if len(flagged) > FLAGGED:
        parts.append(paragraph(f"{len(flagged) - FLAGGED} more rows are flagged; criticise() has them all.", "quiet"))
    return "".join(parts)


def _made_with(posterior: Any) -> str:
    versions = [f"{name} {metadata.version(name)}" for name in PACKAGES]
    where = f"Python {sys.version.split()[0]}, {platform.machine()}, {torch.get_num_threads()} threads"
    again = "result = latentrnn.load(<the folder it was saved to>)\nresult.posterior(data)"
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return paragraph(f"{', '.join(versions)}; {where}; {now}", "quiet") + text(again)
