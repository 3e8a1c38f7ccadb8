"""The state of a fit as a checkpoint holds it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from latentrnn.inference.fitting.batches.batches import Batches, Place
from latentrnn.inference.fitting.batches.windowed import WindowedBatches
from latentrnn.inference.fitting.checkpoints.unfinished import Unfinished
from latentrnn.inference.fitting.convergence import Improvement
from latentrnn.inference.fitting.divergence import DivergenceMonitor
from latentrnn.inference.fitting.snapshots import Snapshot, part
from latentrnn.inference.fitting.state import TrainingState
from latentrnn.support.arguments import is_integer, is_number

# how a pass is cut into batches: 2 is in sizes that differ by one at most; files without it left a small batch over
PASSES = 2


def capture(
    state: TrainingState,
    now: Snapshot,
    batches: Batches | WindowedBatches,
    monitor: DivergenceMonitor,
    device: torch.device,
    processes: int,
) -> Unfinished:
    """Return all from which a fit goes on bit for bit.

    Args:
        state: of the fit.
        now: the weights, moments and averages.
        batches, monitor: of the fit.
        device: that it runs on.
        processes: how many take part in it.
    """
    place = batches.place()
    tensors = {f"now/{name}": value for name, value in now.tensors.items()}
    for index, sound in enumerate(state.sound):
        tensors |= {f"good{index}/{name}": value for name, value in sound.tensors.items()}
    for module, weights in zip(("model", "guide"), state.best, strict=True):
        tensors |= {f"best/{module}/{name}": value for name, value in weights.items()}
    tensors |= {"random/cpu": torch.random.get_rng_state(), "random/order": place.start}
    if device.type == "cuda":
        tensors["random/cuda"] = torch.cuda.get_rng_state(device)
    tensors |= {f"window/{name}": value for name, value in place.carry.items()}
    values = state.to_json() | {
        "position": place.position,
        "window": place.window,
        "watch": monitor.state(),
        "passes": PASSES,
        "surroundings": surroundings(device, processes),
    }
    return Unfinished(tensors, values)


def restore(
    tensors: Mapping[str, Tensor],
    values: Mapping[str, Any],
    batches: Batches | WindowedBatches,
    monitor: DivergenceMonitor,
    device: torch.device,
) -> tuple[TrainingState, Snapshot]:
    """Bring batches, monitor and torch's generators to where they were, and return the state and what a step changes.

    Args:
        tensors, values: what `capture` returned.
        batches, monitor: of the fit that goes on.
        device: that it runs on.

    Raises:
        ValueError: a place in the data that there is not.
    """
    # each to memory of its own, for kernels may add up in another order where it is not aligned; Adam counts its steps
    # in the host's memory
    placed = {
        name: value.clone() if name.endswith("/step") else value.to(device, copy=True)
        for name, value in tensors.items()
        if not name.startswith("random/")
    }
    best = part(placed, "best/model"), part(placed, "best/guide")
    sound = [part(placed, f"good{index}") for index in range(len(values["good"]))]
    state = TrainingState.from_json(values, best, sound)
    monitor.restore(values["watch"])
    order = tensors["random/order"].clone()
    place = Place(order, values["position"], values["window"], part(placed, "window"))
    if values.get("passes") == PASSES:
        batches.go_to(place)
    else:
        batches.begin_pass_after(place)
        state.log("the checkpoint is of an older version, so that a new pass begins here")
    torch.random.set_rng_state(tensors["random/cpu"].clone())
    if device.type == "cuda":
        torch.cuda.set_rng_state(tensors["random/cuda"].clone(), device)
    return state, Snapshot(state.step, part(placed, "now"))


def surroundings(device: torch.device, processes: int) -> dict[str, Any]:
    """Return what the last digits of a fit depend on, beside its data, settings and seed, in JSON form.

    A fit that goes on elsewhere is the same but for rounding; whoever resumes compares, and says what is another.

    Args:
        device: that the fit runs on.
        processes: among which its batches are shared.

    Returns:
        By name: version of torch, threads, processes, and the name of the device.
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    threads = torch.get_num_threads()
    return {"torch": str(torch.__version__), "threads": threads, "processes": processes, "device": name}


# -- whether a file holds the state of the fit that is to go on, before any of it is taken over ------------------------


def _count(value: Any) -> bool:
    return is_integer(value) and value >= 0


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _numbers(value: Any) -> bool:
    return isinstance(value, list) and all(is_number(item) for item in value)


def _rows(value: Any) -> bool:
    return isinstance(value, list) and all(map(_numbers, value))


def _history(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_numbers, value.values()))


def _monitor(value: Any) -> bool:
    right = isinstance(value, dict) and value.keys() == {"names", "past", "fresh"}
    return right and _texts(value["names"]) and _rows(value["past"]) and _rows(value["fresh"])


def _improvement(value: Any) -> bool:
    known = Improvement().to_json()
    if not isinstance(value, dict) or value.keys() != known.keys():
        return False
    return all((_numbers if isinstance(known[name], list) else _count)(found) for name, found in value.items())


_FORM: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("step", "stale", "rollbacks", "restart", "best_step", "position", "window"), _count),
    "shrink": lambda value: is_number(value) and 0 < value <= 1,
    "history": _history,
    "events": _texts,
    "stop_reason": lambda value: isinstance(value, str),
    "best_bound": is_number,
    "unjudged": lambda value: value is None or _count(value),
    "good": lambda value: isinstance(value, list) and 1 <= len(value) <= 2 and all(map(_count, value)),
    "watch": _monitor,
    "finished": lambda value: isinstance(value, bool),
    "identity": lambda value: isinstance(value, dict) and isinstance(value.get("settings"), dict),
    "surroundings": lambda value: isinstance(value, dict),
    "improvement": _improvement,
    "seconds": lambda value: is_number(value) and value >= 0,
    "unreported": lambda value: isinstance(value, dict) and all(map(is_number, value.values())),
}
# what older files do not have
_LATER = {"unjudged": None, "improvement": Improvement().to_json(), "seconds": 0.0, "unreported": {}}


def check_values(where: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a checkpoint says in JSON form.

    Raises:
        ValueError: an entry is missing, or of another kind; naming the file and the entry.
    """
    found = {**_LATER, **values}
    for name, right in _FORM.items():
        if name not in found:
            raise ValueError(f"{where}: not the state of a fit: {name} is missing")
        if not right(found[name]):
            shown = repr(found[name])
            raise ValueError(f"{where}: not the state of a fit: {name} cannot be {shown[:80]}")
    return found


def check_tensors(
    where: str,
    tensors: Mapping[str, Tensor],
    values: Mapping[str, Any],
    now: Snapshot,
    parameters: Sequence[nn.Parameter],
    order: Tensor,
) -> None:
    """Check that the tensors of a checkpoint are those of this fit.

    Args:
        where: the file.
        tensors, values: what it holds.
        now: what a step of this fit changes.
        parameters: that are trained, in the order in which their moments are numbered.
        order: state of the generator of the order.

    Raises:
        ValueError: one is missing, unknown, or of another shape or type; naming the file and the tensor.
    """
    weights = {name: value for name, value in now.tensors.items() if not name.startswith("optimiser/")}
    for state in ("now", *(f"good{index}" for index in range(len(values["good"])))):
        found = part(tensors, state)
        moments = part(found, "optimiser")
        _check_same(where, f"{state}/", weights, {k: v for k, v in found.items() if not k.startswith("optimiser/")})
        for name, moment in moments.items():
            index = name.partition("/")[0]
            known = index.isdecimal() and int(index) < len(parameters)
            if not known or moment.shape not in (torch.Size(), parameters[int(index)].shape):
                raise ValueError(f"{where}: not the state of this fit: tensor '{state}/optimiser/{name}' does not fit")
    for module in ("model", "guide"):
        _check_same(where, f"best/{module}/", part(now.tensors, module), part(tensors, f"best/{module}"))
    generators = {"random/cpu": torch.random.get_rng_state(), "random/order": order}
    _check_same(where, "", generators, {name: tensors[name] for name in generators if name in tensors})


def _check_same(where: str, prefix: str, expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    for name, value in expected.items():
        if name not in found:
            raise ValueError(f"{where}: not the state of this fit: tensor '{prefix}{name}' is missing")
        its = found[name]
        if its.shape != value.shape or its.dtype != value.dtype:
            raise ValueError(
                f"{where}: not the state of this fit: tensor '{prefix}{name}': expected {value.dtype} of shape "
                f"{tuple(value.shape)}; found {its.dtype} of shape {tuple(its.shape)}"
            )
    for name in found:
        if name not in expected:
            raise ValueError(f"{where}: not the state of this fit: tensor '{prefix}{name}' is not one of its own")
