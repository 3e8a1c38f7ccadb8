"""A guide that needs no training: Laplace's approximation of linear-Gaussian states under heads of any family."""

from __future__ import annotations

import copy
import math
from typing import NamedTuple, cast

import torch
from pyro import poutine
from torch import Tensor

from latentrnn.data import SequenceData
from latentrnn.inference.fitting.result import FitResult
from latentrnn.inference.guides.families import GaussianChain, PerSequence
from latentrnn.inference.guides.families.family import SMALLEST_SCALE, START_SCALE
from latentrnn.inference.guides.fitted import Fit
from latentrnn.inference.guides.guide import Guide
from latentrnn.models.latents import LinearGaussian, MarkovNormal
from latentrnn.models.latents.discrete import emissions
from latentrnn.models.latents.kalman.filter import Dynamics, Information, kalman_filter, smooth, times
from latentrnn.models.observations import Observation
from latentrnn.models.readouts.linear import linear
from latentrnn.models.rollout import Rollout
from latentrnn.models.sites import INITIAL, STATES
from latentrnn.models.state_space import LatentRNN
from latentrnn.models.transitions import Linear
from latentrnn.support.arguments import check_size
from latentrnn.support.devices import resolve_device
from latentrnn.support.isolation import isolated

CONVERGED = 1e-9  # nats per sequence that a whole Newton step still promises
HALVINGS = 40  # of a step that does not rise
SILENT = -30.0  # raw weight of a reading that says nothing


@isolated
def laplace_smoother(
    model: LatentRNN,
    data: SequenceData,
    *,
    given: Fit | None = None,
    steps: int = 100,
    device: str | torch.device = "auto",
) -> FitResult:
    """Put a Gaussian chain at the mode of every sequence's states, with the curvature's covariance; nothing is trained.

        z* = argmax log p(z, y),   q(z) = Normal(z*, [-d^2 log p(z, y) / dz^2]^{-1}),   block tridiagonal

    for a linear state, `Linear` under `MarkovNormal`, and heads of any family with a smooth density. A Newton step is a
    pass of a Kalman smoother over heads' local Gaussian stand-ins, halved until the joint density rises, so that its
    cost is linear in time. Exact where the heads are Gaussian; where they are log-concave (counts with the usual links)
    there is one mode alone. Where a head curves the other way, its own curvature counts as none.

    The result is a guide like any other, with parameters for each sequence of `data` (`PerSequence(GaussianChain)`):
    its ELBO, importance-sampled evidence and draws need no encoder, and `lr.fit(..., start_from=...)` with such a guide
    goes on from it.

    Args:
        model: its weights are taken as they are, in double precision on the way.
        data: whole sequences.
        given: a fit of this model, whose weights are taken instead.
        steps: Newton steps at most.
        device: "auto" takes CUDA where there is one.

    Returns:
        A result with a copy of the model; `posterior(data)` asks it.

    Raises:
        ValueError: a model that is not `Linear` under `MarkovNormal` with a constant scale, parameters with priors, a
            head that depends on more than the present state or feeds back, or a mode that was not reached.
        TypeError: something that is no model, data or fit.

    References:
        Fahrmeir, Kaufmann. On Kalman filtering, posterior mode estimation and Fisher scoring in dynamic exponential
        family regression. 1991.
        Paninski, Ahmadian, Ferreira, Koyama, Rahnama Rad, Vidne, Vogelstein, Wu. A new look at state-space models for
        neural data. 2010.
    """
    check_size("laplace_smoother", "steps", steps)
    _check(model, data)
    exact = copy.deepcopy(model)
    if given is not None:
        if not isinstance(given, Fit):
            raise TypeError(f"laplace_smoother: given must be a FitResult; found {type(given).__name__}")
        if given.model.config() != model.config():
            raise ValueError("laplace_smoother: `given` is a fit of another model")
        exact.load_state_dict(given.model.state_dict())
    device = resolve_device(device)
    exact = exact.double().to(device).eval()
    chain = _Joint(exact, data.to(device, torch.float64))
    information, taken = _newton(chain, steps)
    guide = Guide(exact, family=PerSequence(GaussianChain(readings=1)))
    guide.double().to(device)
    guide.local.initialise(chain.data)
    _place(cast(PerSequence, guide.local), chain.dynamics, information)
    reason = f"laplace_smoother: the mode was found after {taken} Newton steps"
    settings = {"method": "laplace_smoother", "steps": steps, "continued": given is not None}
    used = frozenset(data.keys) | (frozenset() if given is None else given.used)
    return FitResult(
        exact.to("cpu", data.dtype), guide.to("cpu", data.dtype), {}, reason, taken, 0, settings, used
    )  # fmt: skip


def _check(model: LatentRNN, data: SequenceData) -> None:
    for name, value, kind in (("model", model, LatentRNN), ("data", data, SequenceData)):
        if not isinstance(value, kind):
            raise TypeError(f"laplace_smoother: {name} must be a {kind.__name__}; found {type(value).__name__}")
    latent, owner = model.latent, "laplace_smoother"
    if isinstance(latent, LinearGaussian):
        raise ValueError(f"{owner}: LinearGaussian needs no guide: its states are summed out exactly")
    if not isinstance(model.transition, Linear) or not isinstance(latent, MarkovNormal) or latent.scale != "constant":
        raise ValueError(
            f"{owner}: expected Linear under MarkovNormal() with a constant scale, whose states given no data are "
            f"Gaussian; found {model.transition!r} under {latent!r}"
        )
    if sites := list(model.parameter_sites()):
        raise ValueError(f"{owner}: every parameter is taken as it is, but {sites} have priors; fix them")
    for name, head in model.observations.items():
        if (reason := _reason_against(head)) is not None:
            raise ValueError(f"{owner}: observations[{name!r}] {reason}")


def _reason_against(head: Observation) -> str | None:
    """Return why a head's density is not a sum over steps, each of the present state alone; None where it is."""
    if head.feedback is not None:
        return "feeds back; give its past as a covariate"
    if not head.head.per_step:
        return "has one value for the whole sequence; expected a per-step head"
    if not head.instantaneous or head.reads is not None or head.readout.memory != 0:
        return "depends on more than the present state"
    return None


class _Joint:
    """log p(z_{1:T}, y) of every sequence, up to a constant; z_0 is summed out."""

    def __init__(self, model: LatentRNN, data: SequenceData) -> None:
        self.data = data
        size = model.transition.hidden_size
        nowhere = {
            INITIAL: torch.zeros(data.num_sequences, size, dtype=data.dtype, device=data.device),
            STATES: torch.zeros(data.num_sequences, data.num_steps, size, dtype=data.dtype, device=data.device),
        }
        with torch.no_grad(), poutine.condition(data=nowhere):
            self.rollout: Rollout = model.unroll(data)
            latent, transition = cast(MarkovNormal, model.latent), cast(Linear, model.transition)
            drift = linear(self.rollout.transition_inputs, transition.input_weight, transition.bias)
            weight, start = transition.recurrent_weight.detach(), latent.initial_log_scale.exp()
            valid = data.valid if data.padded else None
            numbers = weight, drift, latent.log_scale.exp(), latent.initial_loc.detach(), start
            self.dynamics = Dynamics(*numbers, valid)
            spread = weight * start
            self.first_covariance = spread @ spread.mT + torch.diag_embed(self.dynamics.scale**2)
            self.first_root = torch.linalg.cholesky(self.first_covariance)
            self.precisions = self.dynamics.covariances.diagonal(dim1=-2, dim2=-1).reciprocal()

    def log_likelihood(self, z: Tensor) -> Tensor:
        """Return log p(y_t | z_t) of the recorded values, nats, (sequence, time)."""
        rollout, data, total = self.rollout, self.data, z.new_zeros(z.shape[:-1])
        for name, head in rollout.observations.items():
            values = data.observations[name]
            inputs = rollout.inputs[name]._replace(mask=data.masks[name])
            given = rollout.heads[name](head.at_clock(z, values.shape[1]), inputs, None)
            total = total + emissions(rollout, name, [given], values).squeeze(-1)
        return total

    def log_prior(self, z: Tensor) -> Tensor:
        """Return log p(z_{1:T}) up to a constant, (sequence,)."""
        dynamics = self.dynamics
        before = torch.cat([dynamics.initial_loc.expand(len(z), 1, -1), z[:, :-1]], 1)
        residual = z - times(dynamics.weights, before) - dynamics.offsets
        first = torch.linalg.solve_triangular(self.first_root, residual[:, 0].unsqueeze(-1), upper=False)
        later = residual[:, 1:].square() * self.precisions[:, 1 if self.precisions.shape[-2] > 1 else 0 :]
        return -0.5 * (first.square().sum((-2, -1)) + later.sum((-2, -1)))

    def __call__(self, z: Tensor) -> Tensor:
        return self.log_prior(z) + self.log_likelihood(z).sum(-1)

    def expand(self, z: Tensor) -> tuple[Tensor, Tensor, Information]:
        """Return the joint density, its gradient, and the heads' Gaussian stand-ins at z, none curved upwards."""
        point = z.clone().requires_grad_(True)
        with torch.enable_grad():
            own = self.log_likelihood(point)
            (slope,) = torch.autograd.grad(own.sum(), point, create_graph=True)
            rows = [
                torch.autograd.grad(slope[..., k].sum(), point, retain_graph=True, materialize_grads=True)[0]
                for k in range(z.shape[-1])
            ]
            prior = self.log_prior(point)
            (pull,) = torch.autograd.grad(prior.sum(), point)
        slope, curvature = slope.detach(), -torch.stack(rows, -2)
        values, vectors = torch.linalg.eigh((curvature + curvature.mT) / 2)
        precision = (vectors * values.clamp_min(0.0).unsqueeze(-2)) @ vectors.mT
        total = (prior + own.sum(-1)).detach()
        return total, slope + pull, Information(precision, slope + times(precision, z))


def _newton(joint: _Joint, steps: int) -> tuple[Information, int]:
    """Return the information of the heads at the modes, and the steps taken to them."""
    dynamics = joint.dynamics
    z = smooth(kalman_filter(dynamics, Information.none(dynamics))).loc
    z = z.expand(joint.data.num_sequences, *z.shape[-2:]).clone()
    promised = math.inf
    for taken in range(steps + 1):
        density, gradient, information = joint.expand(z)
        if not bool(density.isfinite().all() & gradient.isfinite().all()):
            raise ValueError("laplace_smoother: density or slope are not finite; check the data and the weights")
        move = smooth(kalman_filter(dynamics, information)).loc - z
        promised = float((0.5 * gradient * move).sum((-2, -1)).max())
        if promised < CONVERGED:
            return information, taken
        z = z + _rising(joint, z, move, density).reshape(-1, 1, 1) * move
    raise ValueError(
        f"laplace_smoother: the mode was not reached within {steps} Newton steps, {promised:.3g} nats remain in the "
        "sequence furthest from it; try increasing `steps`"
    )


@torch.no_grad()
def _rising(joint: _Joint, z: Tensor, move: Tensor, density: Tensor) -> Tensor:
    """Return for every sequence the part of a step, one, a half, a quarter, ..., at which its joint density rises."""
    part = torch.ones_like(density)
    slack = 1e-12 * density.abs() + 1e-12
    for _ in range(HALVINGS):
        after = joint(z + part.reshape(-1, 1, 1) * move)
        falls = ~(after >= density - slack)
        if not bool(falls.any()):
            break
        part = torch.where(falls, 0.5 * part, part)
    return part


class _Start(NamedTuple):
    """q(z_0 | z_1) = Normal(loc + pull z_1, root root'), with loc of every sequence."""

    loc: Tensor
    pull: Tensor
    root: Tensor


def _start(dynamics: Dynamics) -> _Start:
    """Return what the model says of z_0 given z_1: no head sees it."""
    weight, noise, start = dynamics.weight, dynamics.scale**-2, dynamics.initial_scale**-2
    pulled = weight.mT * noise
    precision = torch.diag_embed(start) + pulled @ weight
    covariance = torch.linalg.inv(precision)
    drift = dynamics.offset[..., 0, :]
    known = start * dynamics.initial_loc - times(pulled, drift)
    return _Start(times(covariance, known), covariance @ pulled, torch.linalg.cholesky(covariance))


@torch.no_grad()
def _place(family: PerSequence, dynamics: Dynamics, information: Information) -> None:
    """Put a chain's parameters where they make the states' Gaussian: the model's dynamics, the heads' information."""
    base = cast(GaussianChain, family.base)
    chain, head = base.chains[STATES], base.heads[INITIAL]
    for part in (chain.map, head.head.map):
        part.weight.zero_(), part.bias.zero_()
    spread = dynamics.weight * dynamics.initial_scale
    first = torch.linalg.inv(spread @ spread.mT + torch.diag_embed(dynamics.scale**2))
    chain.directions.zero_()
    chain.dynamics.copy_(dynamics.weight)
    chain.noise_root.copy_(torch.diag_embed(-dynamics.scale.log()))
    chain.first_root.copy_(_logarithm_on_the_diagonal(torch.linalg.cholesky(first)))
    chain.first_loc.copy_(times(dynamics.weight, dynamics.initial_loc))
    precision, vector = information
    values, vectors = torch.linalg.eigh(precision)
    upper = torch.linalg.qr((vectors * values.clamp_min(0.0).sqrt().unsqueeze(-2)).mT)[1]
    root = upper.mT[..., chain.below[0], chain.below[1]]
    drift = dynamics.offset.expand(vector.shape)
    reading = torch.zeros_like(vector[..., :1])
    family.table[STATES].copy_(torch.cat([reading, reading + SILENT, drift, vector, root], -1))
    start = _start(dynamics)
    scale = start.root.diagonal()
    assert head.first is not None
    head.first.copy_(start.pull)
    head.noise.mixing.copy_(torch.tril(start.root / scale, -1))
    raw = torch.expm1((scale - SMALLEST_SCALE).clamp_min(1e-12)).log() - math.log(math.expm1(START_SCALE))
    loc = start.loc.expand(len(family.table[INITIAL]), -1)
    family.table[INITIAL].copy_(torch.cat([loc, raw.expand_as(loc)], -1))


def _logarithm_on_the_diagonal(root: Tensor) -> Tensor:
    return torch.tril(root, -1) + torch.diag_embed(root.diagonal().log())
