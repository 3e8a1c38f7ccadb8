"""Laplace's approximation: a Normal at the mode of the parameters with priors."""

from __future__ import annotations

import pyro
import torch
from torch import Tensor

from latentrnn.data import SequenceData
from latentrnn.inference.evidence.marginal import Marginal, fixed_model
from latentrnn.inference.fitting.result import FitResult
from latentrnn.inference.guides.guide import Guide
from latentrnn.inference.guides.parameters import MultivariateParameters
from latentrnn.inference.posterior.priors.check import warn_of_priors
from latentrnn.models.state_space import LatentRNN
from latentrnn.support.arguments import check_flag, check_seed, check_size
from latentrnn.support.devices import resolve_device
from latentrnn.support.isolation import isolated, random_state

LARGEST = 2048  # parameters; each Newton step takes as many gradients of the gradient
CONVERGED = 1e-15  # half the squared Newton step, in posterior standard deviations: a nat's fraction still to be gained


@isolated
def laplace(
    model: LatentRNN,
    data: SequenceData,
    *,
    given: FitResult | None = None,
    num_particles: int = 64,
    steps: int = 100,
    device: str | torch.device = "auto",
    seed: int | None = 0,
    check_priors: bool = True,
) -> FitResult:
    """Put a multivariate Normal at the mode of the parameters with priors, with the curvature's covariance.

        q(theta) = Normal(m, H^{-1}),   m = argmax log p(y, theta),   H = -d^2 log p(y, theta) / d theta^2

    in unconstrained space (with the Jacobian), where weights without a prior are taken as they are. Exact for a
    Gaussian regression; good where there are many data for each parameter; no substitute for `sample` where the
    posterior is skewed. Of a network it takes the last layer, or a small one as a whole from near its mode: `given` a
    fit of the same model, under a `NetworkPrior(learned=False)`, with `global_family="point"`. Local latents are
    integrated out by importance sampling from the guide of `given`, with draws made once (see `Marginal`), so that the
    mode is one of the marginal density, not of a joint one with many latents.

    Args:
        model: the model.
        data: all of the sequences.
        given: a fit of this model, whose weights and guide are taken, and the centre of its guide as the start; the
            model's own weights and starting values without it.
        num_particles: importance samples of the local latents.
        steps: Newton steps at most.
        device: "auto" takes CUDA where there is one.
        seed: of the draws of local latents, None for a fresh one, which the result tells.
        check_priors: whether to warn first of priors that cannot have made the scale of the data; see
            `latentrnn.check_priors`.

    Returns:
        A result whose guide has the family "multivariate" over the parameters, and that of `given` over local latents:
        `posterior`, `save` and comparisons work as after a fit.

    Raises:
        ValueError: nothing to infer, too many parameters for a Hessian, scales of a network that are inferred with its
            weights, local latents without `given`, no mode found, or a Hessian that is not positive definite there.
        TypeError: an argument of the wrong kind.

    Warns:
        UserWarning: the priors cannot have made the scale of the data.

    References:
        Tierney, Kadane. Accurate approximations for posterior moments and marginal densities. 1986.
        MacKay. A practical Bayesian framework for backpropagation networks. 1992.
        Daxberger, Kristiadi, Immer, Eschenhagen, Bauer, Hennig. Laplace redux - effortless Bayesian deep learning.
        2021.
    """
    check_size("laplace", "steps", steps), check_size("laplace", "num_particles", num_particles)
    seed, check_priors = check_seed("laplace", seed), check_flag("laplace", "check_priors", check_priors)
    model, guide = fixed_model("laplace", model, data, given, integrate=True)
    _refuse_networks(model)
    if check_priors:
        warn_of_priors("laplace", model, data, stacklevel=4)
    device = resolve_device(device)
    # curvature in single precision loses the weak directions
    exact, exact_data = model.double().to(device), data.to(device, torch.float64)
    with random_state(seed, device):
        if guide is not None:
            guide = guide.double().to(device)
        marginal = Marginal(exact, guide, exact_data, num_particles)
        family = MultivariateParameters(exact.parameter_sites()).double().to(device)
        if guide is not None and guide.parameter_sites is not None:
            family.start_at(guide.parameter_sites.centre())
        mode, precision, taken = _newton(marginal, family, steps)
    covariance = torch.linalg.inv(precision)
    family.place(mode, torch.linalg.cholesky((covariance + covariance.mT) / 2))
    if guide is None:
        guide = Guide(exact, global_family="multivariate")
    guide.global_family, guide.parameter_sites = "multivariate", family
    settings = {"method": "laplace", "num_particles": num_particles, "continued": given is not None}
    used = frozenset(data.keys) | (frozenset() if given is None else given.used)
    reason = f"laplace: the mode was found after {taken} Newton steps"
    return FitResult(
        exact.to("cpu", data.dtype), guide.to("cpu", data.dtype), {}, reason, taken, seed, settings, used
    )  # fmt: skip


def _refuse_networks(model: LatentRNN) -> None:
    if scales := model.given.learned_scales():
        raise ValueError(
            f"laplace: {scales} are inferred with the weights that they scale, whose joint density has no mode: it "
            "grows without bound as both go to zero; give NetworkPrior(scale=..., learned=False), for instance the "
            "scales that lr.fit infers, or use lr.fit alone"
        )
    size = sum(start.numel() for _, start in model.parameter_sites().values())
    if size > LARGEST:
        raise ValueError(
            f"laplace: {size:,} parameters have priors, whose Hessian would be dense; expected at most {LARGEST:,}: "
            "put the prior on the weights of the last layer (the readouts') alone, or use lr.fit with "
            "Guide(global_family='low_rank') or 'normal', which take any number"
        )


def _newton(marginal: Marginal, family: MultivariateParameters, steps: int) -> tuple[Tensor, Tensor, int]:
    """Return the mode, the negative Hessian there, and the steps taken: Newton's, damped where it must be."""

    def energy(flat: Tensor) -> Tensor:
        unpacked = family.unpack(flat)
        jacobian = torch.stack([log_jacobian for _, log_jacobian in unpacked.values()]).sum()
        return -marginal.log_density({name: value for name, (value, _) in unpacked.items()}) - jacobian

    flat = family.loc.detach().clone()
    damping = 0.0
    for step in range(steps):
        value, gradient, hessian = _expand(energy, flat)
        eigenvalues, vectors = torch.linalg.eigh(hessian)
        slope = vectors.mT @ gradient
        if float(eigenvalues[0]) > 0 and 0.5 * float((slope.square() / eigenvalues).sum()) < CONVERGED:
            return flat, hessian, step
        while True:
            # against negative curvature the absolute value still descends (Nocedal and Wright, section 3.4)
            direction = vectors @ (slope / (eigenvalues.abs() + damping).clamp_min(1e-8))
            with torch.no_grad(), pyro.validation_enabled(False):  # a step too far is shortened, not refused
                after = energy(flat - direction)
            if bool(torch.isfinite(after)) and float(after) <= float(value) + 1e-9 * abs(float(value)):
                break
            damping = max(10 * damping, 1e-3 * float(eigenvalues.abs().max()))
            if damping > 1e12 * float(eigenvalues.abs().max()):
                _refuse_saddle(family, eigenvalues, vectors)
                raise ValueError("laplace: no step lowers the energy any more, but the gradient is not zero there")
        flat, damping = flat - direction, damping / 10 if damping > 1e-6 else 0.0
        if float(slope.abs().max()) < 1e-8:
            _refuse_saddle(family, eigenvalues, vectors)
    _refuse_saddle(family, *torch.linalg.eigh(_expand(energy, flat)[2]))
    raise ValueError(f"laplace: the mode was not reached within {steps} Newton steps; try increasing `steps`")


def _expand(energy: object, flat: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return value, gradient and Hessian."""
    point = flat.clone().requires_grad_(True)
    with torch.enable_grad():
        value = energy(point)  # type: ignore[operator]
        (gradient,) = torch.autograd.grad(value, point, create_graph=True)
        rows = [torch.autograd.grad(entry, point, retain_graph=True, materialize_grads=True)[0] for entry in gradient]
    hessian = torch.stack(rows).detach()
    if not bool(torch.isfinite(hessian).all() & torch.isfinite(value)):
        raise ValueError("laplace: density or curvature are not finite; check the priors' supports and the data")
    return value.detach(), gradient.detach(), (hessian + hessian.mT) / 2


def _refuse_saddle(family: MultivariateParameters, eigenvalues: Tensor, vectors: Tensor) -> None:
    if float(eigenvalues[0]) > 1e-10 * float(eigenvalues.abs().max()):
        return
    entries = [name for name, shape in family.shapes.items() for _ in range(shape.numel())]
    worst = entries[int(vectors[:, 0].abs().argmax())]
    raise ValueError(
        f"laplace: the Hessian is not positive definite (smallest eigenvalue {float(eigenvalues[0]):.3g}, mostly along "
        f"{worst!r}): data and priors leave that direction open, or the density has no mode there; tighten its prior, "
        "or use lr.sample"
    )
