"""How a head answers to each value of a covariate: input gradients and integrated gradients, draw by draw."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from latentrnn.inference.posterior.interventions.replays import Replay
from latentrnn.inference.posterior.posterior import Posterior
from latentrnn.interpret.attribution.substitutes import Substitute, substitute_of
from latentrnn.interpret.attribution.targets import Target, target_of
from latentrnn.interpret.results.labelled import AnyPosterior, pooled
from latentrnn.interpret.results.rows import Found, of_rows
from latentrnn.support.arguments import check_choice, check_size
from latentrnn.support.isolation import isolated

if TYPE_CHECKING:
    import xarray

METHODS = ("gradient", "integrated_gradients")


@isolated
def saliency(
    posterior: AnyPosterior,
    head: str,
    covariate: str,
    *,
    channel: Any = None,
    step: int | None = None,
    quantity: str = "predictor",
    method: str = "gradient",
    baseline: Any = "mean",
    points: int = 32,
    num_samples: int = 20,
) -> xarray.Dataset:
    """Return how a head answers to each value of a covariate, x_{t,k}, for every draw of the posterior.

        gradient:               d f / d x_{t,k}
        integrated gradients:   (x_{t,k} - b_{t,k}) int_0^1 d f / d x_{t,k} (b + a (x - b)) da

    f is the head's linear predictor or its mean, of a per-sequence head, at a step of a per-step head or summed over
    its steps. What is random stays as the posterior has it: innovations, initial states, and what drawn states add to
    what their past says, as in `Posterior.counterfactual`, of which the gradient is the first order. Derivatives are in
    the data's units, through all features that read the covariate, and whatever they then enter.

    Where `OneHot` or `Embedding` read the covariate, it holds symbols, and x_{t,k} is their one-hot coding. Its weights
    sum to one, so that only differences of derivatives mean something: "change" is what putting symbol k in the place
    of the present one would do to f, to first order (`mutagenesis` says what it does), and "norm" is that of the
    gradient with its mean over symbols taken away.

    Args:
        posterior: of any model, or of an ensemble.
        head: whose predictor or mean.
        covariate: the covariate's name.
        channel: name or place of an output of the head; all by default.
        step: frame of a per-step head; by default the sum over all of a sequence.
        quantity: "predictor", eta, or "mean", E[y], in the data's units (of a `Categorical` head the probabilities).
        method: "gradient" or "integrated_gradients".
        baseline: of integrated gradients, b: "mean", the covariate's mean over the data (of symbols their shares), or
            numbers that broadcast to (sequence, time, feature), of symbols to (sequence, time, feature, symbol).
        points: of integrated gradients, points of the (Gauss-Legendre) quadrature.
        num_samples: number of draws; draw s has latents and parameters of draw s of `posterior.latents(num_samples)`.

    Returns:
        A dataset. Of gradients: "gradient", (sample, sequence, time, feature, output), or of symbols "change", (sample,
        sequence, time, feature, symbol, output), and "norm", (sample, sequence, time, output), over features and
        symbols. Of integrated gradients: "attribution", (sample, sequence, time, feature, output), of symbols summed
        over these; "difference", f(x) - f(b), (sample, sequence, output), which the attributions should add up to;
        and "gap", what they lack of it. Padding is NaN, and so are sequences that end before `step`.

    Raises:
        TypeError: something that is no posterior.
        ValueError: an unknown head, covariate, channel, step, method or quantity; a head that does not depend on the
            covariate by differentiable operations; a covariate that is read as symbols and as numbers; a `Discrete`
            latent.

    References:
        Simonyan, Vedaldi, Zisserman. Deep inside convolutional networks: visualising image classification models and
        saliency maps. 2014.
        Sundararajan, Taly, Yan. Axiomatic attribution for deep networks. 2017.
        Majdandzic, Rajesh, Koo. Correcting gradient-based interpretations of deep neural networks for genomics. 2023.

    Example:
        >>> import numpy as np, latentrnn as lr
        >>> data = lr.SequenceData.from_arrays({"v": np.ones((2, 5, 1))}, {"x": np.ones((2, 5, 1))}, dt=0.01)
        >>> heads = {"v": lr.Gaussian()}
        >>> model = lr.LatentRNN(data.spec, transition=lr.GRU(3), latent=lr.Innovations(1), observations=heads)
        >>> guide = lr.Guide(model, encoder=lr.RNNEncoder(4))
        >>> found = lr.interpret.saliency(lr.Posterior(model, guide, data), "v", "x", step=2, num_samples=4)
        >>> dict(found.gradient.sizes)  # at step 2 nothing depends on x at steps 3 and 4
        {'sample': 4, 'sequence': 2, 'time': 5, 'feature': 1, 'output': 1}
        >>> found.norm.isel(sample=0, sequence=0, output=0).values[3:].tolist()
        [0.0, 0.0]
    """
    check_choice("saliency", "method", method, METHODS)
    check_size("saliency", "points", points)
    settings = {"head": head, "covariate": covariate, "quantity": quantity, "method": method}

    def of_one(one: Posterior, count: int) -> xarray.Dataset:
        target = target_of("saliency", one, head, quantity, step, channel)
        place = substitute_of("saliency", one, covariate)
        if method == "gradient":
            return of_rows(one, count, partial(_gradients, place, target), place.coords, settings)
        way = Way.between(place.baseline("saliency", one, baseline), points)
        return of_rows(one, count, partial(_integrated, place, target, way), place.coords, settings)

    return pooled("saliency", posterior, num_samples, of_one)


def _gradients(place: Substitute, target: Target, replay: Replay) -> Found:
    values = place.values(replay.data)
    slopes, outputs = place.derivatives(replay, values, target)
    dims = ("time", *place.dims, "output")
    if place.symbols is None:
        found = {"gradient": (dims, slopes), "norm": (("time", "output"), slopes.norm(dim=2))}
    else:
        present = (slopes * values.unsqueeze(-1)).sum(3, keepdim=True)
        centred = slopes - slopes.mean(3, keepdim=True)
        found = {
            "change": (dims, slopes - present),
            "norm": (("time", "output"), centred.flatten(2, 3).norm(dim=2)),
        }
    return Found(found, outputs)


@dataclass(frozen=True)
class Way:
    """The straight way from a baseline to the data, by points and weights of a quadrature on [0, 1].

    Attributes:
        baseline: (sequence, time, feature, [symbol]).
        points, weights: (point,).
    """

    baseline: Tensor
    points: tuple[float, ...]
    weights: tuple[float, ...]

    @classmethod
    def between(cls, baseline: Tensor, points: int) -> Way:
        """Return the way with so many points of Gauss and Legendre."""
        nodes, weights = np.polynomial.legendre.leggauss(points)
        return cls(baseline, tuple((nodes + 1) / 2), tuple(weights / 2))


def _integrated(place: Substitute, target: Target, way: Way, replay: Replay) -> Found:
    values, valid = place.values(replay.data), replay.data.valid
    baseline = way.baseline[replay.sequences.to(way.baseline.device), : values.shape[1]].to(values)
    baseline = torch.where(valid.reshape(*valid.shape, *[1] * (values.dim() - 2)), baseline, values)
    away, mean = values - baseline, None
    for point, weight in zip(way.points, way.weights, strict=True):
        slopes, outputs = place.derivatives(replay, baseline + point * away, target)
        mean = weight * slopes if mean is None else mean + weight * slopes
    assert mean is not None
    attribution = away.unsqueeze(-1) * mean
    if place.symbols is not None:
        attribution = attribution.sum(3)
    with torch.no_grad():
        ends = [place.explained(replay, each, target)[0] for each in (values, baseline)]
    difference = ends[0] - ends[1]
    found = {
        "attribution": (("time", "feature", "output"), attribution),
        "difference": (("output",), difference),
        "gap": (("output",), difference - attribution.sum((1, 2))),
    }
    return Found(found, outputs)
