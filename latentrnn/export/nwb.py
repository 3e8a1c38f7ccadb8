"""Rates, latents and parameters beside each other in a file of Neurodata Without Borders."""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from latentrnn.data import SequenceData
from latentrnn.export.hdf5 import check_target
from latentrnn.inference.posterior.posterior import Posterior
from latentrnn.models import sites
from latentrnn.support.arguments import check_kind_of, check_selection, check_size, check_text
from latentrnn.support.clock import step_length

if TYPE_CHECKING:
    from pynwb import NWBFile

GAP = 1.0  # seconds between sequences of which nobody says when they began
STATES = {sites.STATES: "states", sites.INNOVATIONS: "inferred_inputs"}


def to_nwb(
    path: str | os.PathLike[str],
    posterior: Posterior,
    heads: Sequence[str] | None = None,
    *,
    num_samples: int = 50,
    description: str = "posterior of a latentrnn model",
    session_start: datetime | None = None,
) -> Path:
    """Write posterior means and parameters as a processing module, for whatever reads NWB (pynwb, pynapple, MatNWB).

    The module `latentrnn` holds time series of all sequences after one another, each at its own times in seconds:

    - rates_<head>: expected counts per second of heads that count events on a clock in seconds, else expected values,
      (time, channel), with the names of the channels in `comments`
    - states: what readouts see, (time, unit); inferred_inputs: the innovations, (time, dim)
    - parameters: a table with a row for each entry of every parameter that is inferred, mean, standard deviation and
      90% interval

    `file.trials` says when each sequence began and ended, and what metadata know of it: `from_pynapple` keeps the
    starts of trials, so that results lie on the recording's own clock; sequences without follow one another, a second
    apart.

    Args:
        path: of the file, which is written over.
        posterior: of the sequences.
        heads: per-step heads on the base clock; all by default.
        num_samples: draws that means are taken over.
        description: of the session.
        session_start: what the seconds count from, with its time zone; by default the start of 1970, of which NWB's
            readers know that nobody said.

    Returns:
        The path.

    Raises:
        ImportError: pynwb is not installed; it comes with the extra `nwb`.
        ValueError: an unknown head or one without time, or no time zone.
        FileNotFoundError: there is no such folder.
        TypeError: an argument of another kind.

    References:
        Rübel, Tritt, Ly, Dichter, Ghosh, Niu, ... Bouchard. The Neurodata Without Borders ecosystem for
        neurophysiological data science. 2022.
    """
    target = check_target("to_nwb", path)
    check_kind_of("to_nwb", "posterior", posterior, Posterior)
    count = check_size("to_nwb", "num_samples", num_samples)
    check_text("to_nwb", "description", description)
    along = [name for name, head in posterior.model.observations.items() if head.head.per_step and head.head.clock == 1]
    chosen = along if heads is None else check_selection("to_nwb", "heads", heads, along, "per-step head")
    start = datetime.fromtimestamp(0, UTC) if session_start is None else session_start
    check_kind_of("to_nwb", "session_start", start, datetime)
    if start.tzinfo is None:
        raise ValueError("to_nwb: session_start must have a time zone; found none")
    try:
        from pynwb import NWBHDF5IO, NWBFile
    except ImportError:
        raise ImportError("to_nwb: pynwb is not installed; pip install 'latentrnn[nwb]'") from None
    file = NWBFile(session_description=description, identifier=str(uuid.uuid4()), session_start_time=start)
    _fill(file, posterior, chosen, count)
    with NWBHDF5IO(str(target), "w") as io:
        io.write(file)
    return target


def _fill(file: NWBFile, posterior: Posterior, heads: Sequence[str], count: int) -> None:
    from pynwb import TimeSeries

    data = posterior.data.to("cpu")
    starts = _starts(data)
    seconds = _seconds(data) + starts[:, None]
    valid = data.valid.numpy()
    module = file.create_processing_module("latentrnn", f"means over {count} draws of {posterior.model!r:.500}")

    def add(name: str, values: Tensor, unit: str, about: str, comments: str = "no comments") -> None:
        rows = values.to(torch.float64).numpy()[valid]
        times = seconds[valid]
        module.add(TimeSeries(name=name, data=rows, unit=unit, timestamps=times, description=about, comments=comments))

    for name in heads:
        head = posterior.model.observations[name]
        rated = head.counts_events and data.spec.dt is not None
        values = posterior.mean(name, count) / (step_length(data.spec.dt) if rated else 1.0)
        about = f"expected {'counts per second' if rated else 'values'} of the head {name!r}"
        add(f"rates_{name}", values, "Hz" if rated else "n.a.", about, ", ".join(data.spec.heads[name].channel_names))
    for site, values in posterior.latents(count).items():
        if site in STATES and values.dim() == 4:
            add(STATES[site], values.mean(0), "n.a.", f"mean of {site}")
    _add_trials(file, data, starts, seconds, valid)
    _add_parameters(module, posterior, count)


def _add_trials(
    file: NWBFile, data: SequenceData, starts: np.ndarray[Any, Any], seconds: np.ndarray[Any, Any], valid: Any
) -> None:
    metadata = {name: values for name, values in data.metadata.items() if name not in {"start", "start_time"}}
    file.add_trial_column("sequence", "name of the sequence")
    for name in metadata:
        file.add_trial_column(name, f"metadata {name!r} of the sequence")
    for row, name in enumerate(data.names):
        stop = float(seconds[row][valid[row]].max()) + step_length(data.spec.dt)
        told = {key: _plain(values[row]) for key, values in metadata.items()}
        file.add_trial(start_time=float(starts[row]), stop_time=stop, sequence=str(name), **told)


def _plain(value: Any) -> Any:
    """Return a number or a truth value as it is, and anything else in words."""
    return value.item() if isinstance(value, np.number | np.bool_) else str(value)


def _add_parameters(module: Any, posterior: Posterior, count: int) -> None:
    from hdmf.common import DynamicTable, VectorData

    draws = posterior.parameters(max(count, 200))
    rows = []
    for name, values in draws.items():
        flat = values.to(torch.float64).reshape(len(values), -1)
        low, high = (flat.quantile(q, 0).tolist() for q in (0.05, 0.95))
        labels = [str(tuple(int(i) for i in index)) for index in np.ndindex(tuple(values.shape[1:]))]
        spread = flat.std(0).tolist()
        rows += list(zip([name] * len(labels), labels, flat.mean(0).tolist(), spread, low, high, strict=True))
    if not rows:
        return
    about = {
        "parameter": "name", "entry": "which, counted from zero", "mean": "of the draws", "sd": "of the draws",
        "lower": "end of the 90% interval", "upper": "end of the 90% interval",
    }  # fmt: skip
    columns = [
        VectorData(name=name, description=text, data=list(values))
        for (name, text), values in zip(about.items(), zip(*rows, strict=True), strict=True)
    ]
    module.add(DynamicTable(name="parameters", description="what was inferred", columns=columns))


def _seconds(data: SequenceData) -> np.ndarray[Any, Any]:
    """Return seconds, or steps without a clock, since each sequence's first step, (sequence, time)."""
    if data.times is not None:
        times = data.times.to(torch.float64).numpy()
        return np.asarray(times - times[:, :1])
    return np.broadcast_to(np.arange(data.num_steps) * step_length(data.spec.dt), (len(data), data.num_steps))


def _starts(data: SequenceData) -> np.ndarray[Any, Any]:
    """Return when each sequence begins, seconds: as its metadata say, or after the one before."""
    given = data.metadata.get("start")
    if given is not None and given.dtype.kind in "iuf" and bool(np.isfinite(given).all()):
        return np.asarray(given, float)
    seconds = _seconds(data)
    lengths = np.where(data.valid.numpy(), seconds, 0.0).max(-1) + step_length(data.spec.dt) + GAP
    return np.concatenate([[0.0], np.cumsum(lengths)[:-1]])
