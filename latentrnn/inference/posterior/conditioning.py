"""What the draws of a fitted model are conditional on: everything that was learned without a prior."""

from __future__ import annotations

from torch import nn

from latentrnn.inference.guides.guide import Guide
from latentrnn.inference.guides.parameters import PointParameters
from latentrnn.models.state_space import LatentRNN


def point_estimates(model: LatentRNN, guide: Guide) -> list[str]:
    """Return in words the parts of a model of which one value alone is used; a head that has priors part by part.

    Example:
        >>> import numpy as np, latentrnn as lr, pyro.distributions as dist
        >>> data = lr.SequenceData.from_arrays({"v": np.ones((2, 5, 1))})
        >>> heads = {"v": lr.Gaussian(priors={"weight": dist.Normal(0.0, 1.0)})}
        >>> model = lr.LatentRNN(data.spec, transition=lr.GRU(4), latent=lr.Innovations(1), observations=heads)
        >>> point_estimates(model, lr.Guide(model, encoder=lr.RNNEncoder(4)))
        ['transition', 'latent', "observations['v'] noise scale", "observations['v'] readout baseline"]
    """
    at_points = isinstance(guide.parameter_sites, PointParameters)
    parts = {"transition": model.transition, "latent": model.latent, "input features": model.features}
    found = [name for name, part in parts.items() if _is_learned(part)]
    for name, head in model.observations.items():
        where, given = f"observations[{name!r}]", [each for each in model.given.sampled if each.parameter.owner == name]
        learned = [path for path, _ in head.named_parameters()]
        if given and not at_points:
            found += dict.fromkeys(f"{where} {_in_words(path)}" for path in learned)
        elif given or learned:
            found.append(where)
    return found + [f"Population {name!r}" for name in model.populations if at_points]


def conditional_on(model: LatentRNN, guide: Guide) -> str | None:
    """Return what draws, and so their intervals, take as known, as a phrase; None where nothing is."""
    found = point_estimates(model, guide)
    return f"point estimates of {', '.join(found)}" if found else None


def remark(model: LatentRNN, guide: Guide) -> str:
    """Return what a display adds where some parameters have a posterior and others are points; "" elsewhere."""
    if not model.parameter_sites() or isinstance(guide.parameter_sites, PointParameters):
        return ""
    given = conditional_on(model, guide)
    return f"intervals conditional on {given}" if given else ""


def _is_learned(part: nn.Module) -> bool:
    return next(part.parameters(), None) is not None


def _in_words(path: str) -> str:
    """Return a parameter's path as one reads it: what is kept as a logarithm by the name of the thing itself."""
    return " ".join(part.removeprefix("log_").replace("_", " ") for part in path.split("."))
