"""Fixed and slow points of a fitted transition, with what the dynamics do around them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from latentrnn.inference.posterior.posterior import Posterior
from latentrnn.interpret.derivatives.derivatives import jacobian
from latentrnn.interpret.dynamics.held import Held, HeldMap, held_maps, visited
from latentrnn.interpret.dynamics.point_search import EXACT, Spread, distinct, settle
from latentrnn.interpret.results.labelled import AnyPosterior, labelled, pooled
from latentrnn.interpret.results.names import states_by_name
from latentrnn.support.arguments import check_integer, check_number, check_size
from latentrnn.support.isolation import generator, isolated

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes

MERGED = 1e-3  # spreads: points nearer than this are one
ARRIVED = 0.02  # spreads: a run that ends so near a point ends at it
SAME = 0.3  # spreads: points of two draws that are at most so far apart, or less than points of one, may be the same
LOOKED_AT = 5000  # visited states that starts are taken from, and that points are held against
NEUTRAL = 1e-6  # an eigenvalue whose modulus is so near one is neither stable nor unstable


@dataclass(frozen=True, eq=False)
class FixedPoints:
    """States that the dynamics without noise leave where they are (fixed), or nearly (slow), at a constant input.

    Attributes:
        dataset: with the dims (sample, point, mode); NaN where a draw has fewer points than others:
            "state" (sample, point, state_unit), the whole state, and its parts by name where it has several;
            "fixed", 1 for a fixed point and 0 for a slow one; "speed", |F(s) - s| per second, in units of the state;
            "eigenvalue" of dF/ds, complex, the largest modulus first; "time_constant", -dt / ln |eigenvalue|, seconds,
            negative where a mode grows; "frequency", |angle of the eigenvalue| / (2 pi dt), hertz; "unstable", the
            number of modes that grow; "basin", the share of starts from which a run of F ends there; "away", how far
            the nearest visited state is, in units of the spread of all. Also "spread", root mean square of visited
            states around their mean, and "step", seconds (steps where the data have no clock).
    """

    dataset: xarray.Dataset

    def counts(self, sample: int = 0) -> dict[str, int]:
        """Return how many points one draw has: "stable", "saddle" (some modes grow), "repeller" (all do), "slow"."""
        here = self.dataset.isel(sample=sample)
        there, fixed = here.speed.notnull().values, here.fixed.values == 1
        unstable, modes = here.unstable.values, here.eigenvalue.notnull().sum("mode").values
        kinds = {
            "stable": unstable == 0,
            "saddle": (unstable > 0) & (unstable < modes),
            "repeller": unstable == modes,
        }
        found = {kind: int((there & fixed & mask).sum()) for kind, mask in kinds.items()}
        return found | {"slow": int((there & ~fixed).sum())}

    def plot(self, *, ax: Axes | None = None, sample: int = 0) -> Axes:
        """Draw the points of one draw on their leading dimensions; see `latentrnn.plotting.fixed_points`."""
        from latentrnn.plotting import fixed_points as draw

        here = self.dataset.isel(sample=sample)
        there = here.speed.notnull().values
        return draw(here.state.values[there], here.unstable.values[there], here.fixed.values[there] == 1, ax=ax)

    def __repr__(self) -> str:
        samples = self.dataset.sizes["sample"]
        kinds = self.counts()
        told = ", ".join(f"{count} {kind}" for kind, count in kinds.items() if count) or "none"
        rows = [f"FixedPoints({told}; {'one draw' if samples == 1 else f'the first of {samples} draws'})"]
        here = self.dataset.isel(sample=0)
        unit = self.dataset.attrs["time_unit"]
        per = "1/step" if unit == "step" else "Hz"
        for point in range(min(self.dataset.sizes["point"], 12)):
            at = here.isel(point=point)
            if np.isnan(float(at.speed)):
                continue
            kind = "slow " if float(at.fixed) == 0 else "fixed"
            slowest = _slowest(at.time_constant.values)
            rows.append(
                f"  {point:3d} {kind} {int(at.unstable)} unstable, slowest {slowest:.3g} {unit}"
                f" at {float(at.frequency[0]):.3g} {per}, basin {float(at.basin):.2f}, speed {float(at.speed):.1e}"
            )
        if self.dataset.sizes["point"] > 12:
            rows.append(f"  ... {self.dataset.sizes['point'] - 12} more")
        return "\n".join(rows)


@isolated
def fixed_points(
    posterior: AnyPosterior,
    covariates: Mapping[str, Any] | None = None,
    *,
    past: str | Mapping[str, Any] = "mean",
    regime: int | None = None,
    gap: float | None = None,
    num_starts: int = 200,
    num_samples: int = 1,
    noise: float = 0.5,
    slow: float = 0.1,
    within: float = 2.0,
    descent: int = 500,
    run: int | None = None,
) -> FixedPoints:
    """Find the fixed and slow points of s_t = F(s_{t-1}; a), the transition without noise at a constant input.

        F(s*; a) = s*,  or |F(s; a) - s| at a minimum and small;  around it s_t - s* = J (s_{t-1} - s*),  J = dF/ds

    The input a is made by the model's own features from constant covariates; innovations are zero, what a
    `RecurrentNormal` draws is at its mean, and heads that feed back are given a constant past. Starts are states
    visited along the data, more and more noise added; all descend together, and Newton's method takes them to the end.
    States are whole: hidden and cell of an LSTM, all layers of a stack.

    Args:
        posterior: of any model; of an ensemble, every member has points of its own, in coordinates of its own.
        covariates: covariate to its constant value in the data's units, one number or one for each feature, of all
            that drive the transition.
        past: what heads that feed back have emitted at all times: "mean", "zero", or head to its value.
        regime: the state of a switch that drives the transition (`RelaxedDiscrete`).
        gap: seconds between steps, where these are irregular; the median of the data by default.
        num_starts: how many.
        num_samples: draws of the parameters; where no prior is on what F is made of, one is all there is.
        noise: largest standard deviation of what is added to starts, in units of each number's own.
        slow: a minimum of |F(s) - s| is a slow point where a sequence's length at that speed covers less than this,
            in units of the spread of visited states.
        within: points further than this from every visited state, in the same units, are left out. At covariates far
            from those of the data the state may rest where it never was: raise this to see such points, whose "away"
            says how far the model is asked beyond its data.
        descent: iterations before Newton's method.
        run: steps after which a run counts as ended, for basins; ten times the longest sequence by default, at most
            2000.

    Returns:
        A `FixedPoints`, printed as a table; points of different draws that are the same one share a place.

    Raises:
        ValueError: something that drives the transition is not told, or cannot be constant, by name; a setting out of
            range.
        TypeError: something that is no posterior.

    References:
        Sussillo, Barak. Opening the black box: low-dimensional dynamics in high-dimensional recurrent neural networks.
        2013.
        Golub, Sussillo. FixedPointFinder: a Tensorflow toolbox for identifying and characterizing fixed points in
        recurrent neural networks. 2018.

    Example:
        >>> import numpy as np, latentrnn as lr
        >>> data = lr.SequenceData.from_arrays({"v": np.ones((2, 5, 1))}, {"u": np.zeros((2, 5, 1))}, dt=0.01)
        >>> memory = lr.LeakyIntegrator(1, fixed={"time_constant": 0.1, "input_weight": 1.0})
        >>> heads = {"v": lr.Gaussian()}
        >>> model = lr.LatentRNN(data.spec, transition=memory, latent=lr.Deterministic(), observations=heads)
        >>> found = lr.interpret.fixed_points(lr.Posterior(model, lr.Guide(model), data), {"u": 0.1}).dataset
        >>> state, tau = float(found.state.squeeze()), float(found.time_constant.squeeze())
        >>> round(float(state * (1 - np.exp(-0.1))), 6), round(tau, 6)
        (0.1, 0.1)
    """
    owner = "fixed_points"
    held = Held(covariates, past, regime, gap)
    settings = _Settings(
        check_size(owner, "num_starts", num_starts),
        check_number(owner, "noise", noise, least=0.0),
        check_number(owner, "slow", slow, least=0.0),
        check_number(owner, "within", within, above=0.0),
        check_integer(owner, "descent", descent),
        None if run is None else check_size(owner, "run", run),
    )
    return FixedPoints(pooled(owner, posterior, num_samples, lambda p, n: _of_one(owner, p, n, held, settings)))


class _Settings(NamedTuple):
    num_starts: int
    noise: float
    slow: float
    within: float
    descent: int
    run: int | None


class _Found(NamedTuple):
    """The points of one draw, the most visited first."""

    state: Tensor  # (point, size)
    step: Tensor  # (point,), |F(s) - s|
    eigenvalue: np.ndarray[Any, Any]  # (point, mode)
    basin: Tensor  # (point,)
    away: Tensor  # (point,)


def _of_one(owner: str, posterior: Posterior, num_samples: int, held: Held, settings: _Settings) -> xarray.Dataset:
    maps = held_maps(owner, posterior, num_samples, held)
    states = visited(posterior, len(maps))
    every = Spread.of(states.flatten(0, 1))
    found = [_of_map(each, own, every, posterior, settings) for each, own in zip(maps, states, strict=True)]
    places = _matched([each.state for each in found], every)
    number = 1 + max((int(place.max()) for place in places if len(place)), default=-1)

    def put(values: list[Tensor]) -> Tensor:
        whole = torch.full((len(maps), number, *values[0].shape[1:]), torch.nan, dtype=values[0].dtype)
        for row, place, value in zip(whole, places, values, strict=True):
            row[place] = value
        return whole

    state = put([each.state for each in found])
    eigenvalue = put([torch.from_numpy(each.eigenvalue) for each in found])
    step, seconds = put([each.step for each in found]), maps[0].seconds
    modulus, there = eigenvalue.abs(), ~step.isnan()
    pointwise = ("sample", "point")
    modes = (*pointwise, "mode")
    turning = eigenvalue.angle().abs() / (2 * np.pi * seconds)
    unstable = (modulus > 1 + NEUTRAL).sum(-1).to(step)
    fixed = (step <= EXACT * every.radius).to(step)
    parts = states_by_name(posterior.model.transition, state.to(next(posterior.model.parameters())))
    named = {} if set(parts) == {"hidden"} else {name: part for name, part in parts.items() if name != "state"}
    variables = {
        "state": ((*pointwise, "state_unit"), state),
        **{name: ((*pointwise, f"{name}_unit"), part) for name, part in named.items()},
        "fixed": (pointwise, torch.where(there, fixed, torch.nan)),
        "speed": (pointwise, step / seconds),
        "eigenvalue": (modes, eigenvalue),
        "time_constant": (modes, _time_constants(modulus, seconds)),
        "frequency": (modes, torch.where(modulus.isnan(), torch.nan, turning)),
        "unstable": (pointwise, torch.where(there, unstable, torch.nan)),
        "basin": (pointwise, put([each.basin for each in found])),
        "away": (pointwise, put([each.away for each in found])),
    }
    attributes = {"spread": every.radius, "step": seconds, "steps": posterior.data.num_steps}
    return labelled(posterior.data, variables, attributes=attributes)


def _of_map(step: HeldMap, states: Tensor, spread: Spread, posterior: Posterior, settings: _Settings) -> _Found:
    states = states[:: max(1, len(states) // LOOKED_AT)].to(step.inputs)
    starts = _starts(states, spread, settings, posterior.seed)
    steps = posterior.data.num_steps
    ends = _run(step, starts, settings.run or min(10 * steps, 2000))
    points, length = settle(step, starts, ends[ends.isfinite().all(-1)], spread, descent=settings.descent)
    still = (length <= EXACT * spread.radius) | (length * steps <= settings.slow * spread.radius)
    away = torch.cat([torch.cdist(part, states).amin(1) for part in points.split(256)]) / spread.radius
    good = (still & (away <= settings.within) & points.isfinite().all(-1)).nonzero()[:, 0]
    points, length, away = points[good], length[good], away[good]
    kept = distinct(points, length.argsort(), MERGED * spread.radius)
    points, length, away = points[kept], length[kept], away[kept]
    basin = _basins(ends, points, spread)
    eigenvalue = np.zeros((0, states.shape[-1]), dtype=complex)
    if len(points):
        eigenvalue = np.linalg.eigvals(jacobian(step, points).cpu().numpy()).astype(complex)
        order = np.argsort(-np.abs(eigenvalue), -1, kind="stable")
        eigenvalue = np.take_along_axis(eigenvalue, order, -1)
    unstable = torch.from_numpy((np.abs(eigenvalue) > 1 + NEUTRAL).sum(-1))
    first = np.lexsort((-basin.cpu().numpy(), unstable.numpy()))
    return _Found(points[first].cpu(), length[first].cpu(), eigenvalue[first], basin[first].cpu(), away[first].cpu())


def _starts(states: Tensor, spread: Spread, settings: _Settings, seed: int) -> Tensor:
    """Return visited states, the first as they were, later ones with more and more noise."""
    chance = generator(seed)
    number = settings.num_starts
    chosen = torch.randint(len(states), (number,), generator=chance)
    noise = torch.randn(number, states.shape[-1], generator=chance, dtype=torch.float64).to(states)
    level = torch.linspace(0, settings.noise, number, dtype=torch.float64).to(states).unsqueeze(-1)
    return states[chosen.to(states.device)] + level * spread.scale.to(states) * noise


def _run(step: HeldMap, state: Tensor, steps: int) -> Tensor:
    """Return where F leads from states in so many steps."""
    with torch.no_grad():
        for _ in range(steps):
            state = step(state)
    return state


def _basins(ends: Tensor, points: Tensor, spread: Spread) -> Tensor:
    """Return the share of runs that end at each point."""
    if not len(points):
        return ends.new_zeros(0)
    distance, nearest = torch.cdist(torch.nan_to_num(ends, posinf=1e30, neginf=-1e30), points).min(-1)
    there = nearest[distance <= ARRIVED * spread.radius]
    return torch.bincount(there, minlength=len(points)).to(ends) / len(ends)


def _matched(found: list[Tensor], spread: Spread) -> list[Tensor]:
    """Return the place of every draw's points: that of the point of earlier draws that is nearest, or a new one."""
    from scipy.optimize import linear_sum_assignment  # scipy is for those who ask

    known: list[Tensor] = []
    places = []
    for points in found:
        place = torch.full((len(points),), -1)
        if known and len(points):
            distance = torch.cdist(points, torch.stack(known))
            rows, columns = linear_sum_assignment(distance.numpy())
            apart = torch.pdist(torch.stack(known))
            reach = max(SAME * spread.radius, float(apart.min()) / 2 if len(apart) else np.inf)
            near = distance[rows, columns] <= reach
            place[torch.as_tensor(rows)[near]] = torch.as_tensor(columns)[near]
        for index in (place < 0).nonzero()[:, 0].tolist():
            place[index] = len(known)
            known.append(points[index])
        places.append(place)
    return places


def _time_constants(modulus: Tensor, seconds: float) -> Tensor:
    """Return -dt / ln |eigenvalue|, infinite where rounding alone tells the modulus from one."""
    growth = modulus.log()
    return torch.where(growth.abs() < 1e-12, torch.inf, -seconds / growth)


def _slowest(time_constants: np.ndarray[Any, Any]) -> float:
    """Return the time constant of the mode that changes least."""
    return float(time_constants[np.argmax(np.abs(time_constants))])
