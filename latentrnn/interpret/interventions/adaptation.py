"""How a response to a step adapts: its peak, what is left of it, and how fast it goes there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from latentrnn.support.arguments import check_integer, check_text

if TYPE_CHECKING:
    import xarray


def adaptation(
    effect: xarray.Dataset, head: str, onset: int, *, steady: int = 5, within: int | None = None
) -> xarray.Dataset:
    """Return how a response adapts to a step that stays on, draw by draw.

    The response, averaged over sequences, goes from its peak to a plateau, the average of its last steps. The time
    constant is that of an exponential through what is above the plateau: the area above it over its height at the peak,
    sum_t (r_t - plateau) dt / (r_peak - plateau), which for r_t = plateau + a exp(-t / tau) is tau.

    Args:
        effect: of `contrast`, e.g. contrast(posterior, do("light", 1.0, at=slice(20, None)), do("light", 0.0)).
        head: whose response it is.
        onset: base step at which the step begins.
        steady: steps at the end that make the plateau.
        within: steps from the onset on among which the peak, what is furthest from zero, is looked for; None for all.
            Where an excitation gives way to an inhibition that is larger still, the latter is no peak.

    Returns:
        "peak", "plateau" (in the effect's units), "adapted" (1 - plateau / peak), "peak_time" (since the onset) and
        "time_constant", in seconds or steps as the data are, (sample, <head>_channel). The time constant is NaN where
        nothing is above the plateau.

    Raises:
        ValueError: an unknown head, one that has one value per sequence, or steps that are not there.
        TypeError: no dataset with draws.

    Example:
        >>> import numpy as np, xarray
        >>> r = 1 + 3 * np.exp(-np.arange(200) * 0.01 / 0.1)
        >>> axes = ("sample", "sequence", "time", "v_channel")
        >>> effect = xarray.Dataset({"v": (axes, r[None, None, :, None])}, {"time": 0.01 * np.arange(200)})
        >>> found = adaptation(effect, "v", 0)
        >>> round(found.time_constant.item(), 3), round(found.adapted.item(), 2)
        (0.105, 0.75)
    """
    import xarray

    owner = "adaptation"
    if not isinstance(effect, xarray.Dataset) or "sample" not in effect.dims:
        raise TypeError(f"{owner}: expected the dataset of a contrast, with draws; found {type(effect).__name__}")
    if check_text(owner, "head", head) not in effect:
        raise ValueError(f"{owner}: unknown head {head!r}; the effect has {sorted(map(str, effect.data_vars))}")
    response = effect[head]
    clock = next((str(dim) for dim in response.dims if dim == "time" or str(dim).endswith("_time")), None)
    if clock is None:
        raise ValueError(f"{owner}: head {head!r} has one value per sequence; expected a response along time")
    steps = response.sizes[clock]
    check_integer(owner, "onset", onset, most=steps - 1)
    check_integer(owner, "steady", steady, least=1, most=steps - onset)
    within = steps - onset if within is None else check_integer(owner, "within", within, least=1, most=steps - onset)
    averaged = response.mean("sequence").transpose("sample", clock, ...)
    found = _of(averaged.values[:, onset:], effect[clock].values[onset:], steady, within)
    dims = ("sample", *averaged.dims[2:])
    coords = {dim: effect[dim] for dim in dims if dim in effect.coords}
    return xarray.Dataset({name: (dims, value) for name, value in found.items()}, coords, effect.attrs)


def _of(response: NDArray[Any], time: NDArray[Any], steady: int, within: int) -> dict[str, NDArray[Any]]:
    """Return what `adaptation` does of (sample, time, ...) and times."""
    plateau = response[:, -steady:].mean(1)
    above = response - plateau[:, None]
    where = np.abs(response[:, :within]).argmax(1)
    peak = np.take_along_axis(response, where[:, None], 1)[:, 0]
    height = peak - plateau
    gap = np.diff(time, append=2 * time[-1] - time[-2] if len(time) > 1 else time[-1] + 1.0)
    after = np.arange(len(time)).reshape(1, -1, *[1] * (response.ndim - 2)) >= where[:, None]
    area = (above * after * gap.reshape(1, -1, *[1] * (response.ndim - 2))).sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        tau = np.where(np.abs(height) > 1e-12 * np.abs(peak), area / height, np.nan)
        adapted = 1 - plateau / peak
    return {
        "peak": peak,
        "plateau": plateau,
        "adapted": adapted,
        "peak_time": time[where] - time[0],
        "time_constant": tau,
    }
