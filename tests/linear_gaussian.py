"""Linear-Gaussian instances of the package's models, and guides that sample their exact posteriors.

The numbers come from `tests.oracles` (NumPy); this file carries them over into the package's parameters. With the
exact posterior as guide, log p(y, z) - log q(z) is log p(y) for every single draw.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn
from torch.distributions.transforms import ReshapeTransform

import latentrnn as lr
from latentrnn.models.state_space import sequence_plate
from tests import oracles
from tests.oracles import Array, Mask

FILES = Path(os.environ.get("LATENTRNN_SHARED", Path(__file__).resolve().parents[2] / "shared")) / "oracles"
needs_files = pytest.mark.skipif(
    not (FILES / "lgssm_small.npz").exists(),
    reason="reference files are not beside the repository (LATENTRNN_SHARED names their folder)",
)


@dataclass(frozen=True)
class Recording:
    """One sequence: observations (time, channel), inputs (time, input) whose first row is zero, what is missing."""

    y: Array
    u: Array
    missing: Mask


@dataclass(frozen=True)
class Problem:
    """A linear-Gaussian model and sequences of it."""

    model: oracles.LGSSM
    recordings: tuple[Recording, ...]

    def evidence(self) -> Array:
        """Kalman log evidence of each sequence, nats."""
        return np.array([oracles.kalman_filter(self.model, r.y, r.u, r.missing).log_evidence for r in self.recordings])

    def log_predictive(self) -> list[Array]:
        """log p(y_t | y_<t) of each sequence, nats."""
        return [oracles.kalman_filter(self.model, r.y, r.u, r.missing).log_predictive for r in self.recordings]


def random_problem(
    seed: int, lengths: Sequence[int], *, inputs: int = 0, hide: float = 0.0, state_dim: int = 2, channels: int = 3
) -> Problem:
    """Simulated sequences of a random model with a full noise covariance; `hide` of all single entries missing."""
    rng = np.random.default_rng(seed)
    model = oracles.random_lgssm(rng, state_dim, channels, inputs)
    recordings = []
    for length in lengths:
        u = rng.normal(size=(length, inputs))
        u[0] = 0.0
        y = oracles.simulate_lgssm(rng, model, length, u)[1]
        missing = rng.random(y.shape) < hide
        missing[0, 0] = False  # a sequence with nothing at all observed is another test
        recordings.append(Recording(y, u, missing))
    return Problem(model, tuple(recordings))


def file_problem(name: str, *, hide: bool) -> tuple[Problem, float]:
    """An instance computed by other people's code, with its log evidence; its first input plays no part."""
    with np.load(FILES / f"{name}.npz") as archive:
        file = dict(archive)
    model = oracles.LGSSM(**{key: file[key] for key in ["A", "b", "B", "Q", "C", "d", "R", "m0", "S0"]})
    u = np.concatenate([np.zeros_like(file["u"][:1]), file["u"][1:]])
    missing = file["missing"] if hide else np.zeros(file["y"].shape, dtype=bool)
    return Problem(model, (Recording(file["y"], u, missing),)), float(
        file["log_evidence_missing" if hide else "log_evidence"]
    )


def as_data(problem: Problem, *, standardise: Sequence[str] = ()) -> lr.SequenceData:
    """The sequences, float64, in one head `y` with NaN where entries are missing, and one covariate `u`."""
    return lr.SequenceData.from_arrays(
        {"y": [np.where(r.missing, np.nan, r.y) for r in problem.recordings]},
        {"u": [r.u for r in problem.recordings]} if problem.model.B.size else None,
        standardise=standardise,
        dtype=torch.float64,
    )


def as_model(problem: Problem, data: lr.SequenceData) -> lr.LatentRNN:
    """The package's form: Linear, MarkovNormal (its noise is diagonal, so in the diagonal form's basis), Gaussian."""
    form = oracles.diagonalise(problem.model)
    model = lr.LatentRNN(
        data.spec,
        transition=lr.Linear(len(form.model.b)),
        latent=lr.MarkovNormal(),
        observations={"y": lr.Gaussian(covariance="full")},
    ).double()
    set_linear(model, form.model)
    with torch.no_grad():
        model.latent.initial_loc.copy_(torch.as_tensor(form.initial_mean))
        model.latent.initial_log_scale.copy_(torch.as_tensor(0.5 * np.log(form.initial_variance)))
        model.latent.log_scale.copy_(torch.as_tensor(0.5 * np.log(np.diag(form.model.Q))))
    return model


def set_linear(model: lr.LatentRNN, numbers: oracles.LGSSM) -> None:
    """Set transition, readout and noise of a model with one head `y`; `numbers` are in the data's units."""
    transition, head = model.transition, model.observations["y"]
    with torch.no_grad():
        transition.recurrent_weight.copy_(torch.as_tensor(numbers.A))
        transition.bias.copy_(torch.as_tensor(numbers.b))
        transition.input_weight.zero_()
        if numbers.B.size:
            transition.input_weight[:, : numbers.B.shape[1]] = torch.as_tensor(numbers.B)
        head.readout.weight.copy_(torch.as_tensor(numbers.C) / head.scale.unsqueeze(-1))
        head.readout.baseline.copy_((torch.as_tensor(numbers.d) - head.location) / head.scale)
    head.set_noise_covariance(torch.as_tensor(numbers.R))


def exact_guide(problem: Problem) -> ExactGuide:
    """p(h_0, z_1, ..., z_T | y) of every sequence, in the basis of `as_model`."""
    form = oracles.diagonalise(problem.model)
    found = [oracles.dense_posterior(form.model, r.y, r.u, r.missing, with_initial=True) for r in problem.recordings]
    size = len(form.model.b)
    return ExactGuide([(p.mean.ravel(), p.covariance) for p in found], initial=size, along_time=("states", size))


class ExactGuide(nn.Module):
    """A guide that samples a given joint Gaussian over the initial latent and a trajectory; N(0, I) in padding.

    Args:
        posteriors: per sequence of the plate mean (initial + time * dim,) and covariance.
        initial: dimension of the site `initial`; 0 where there is none.
        along_time: name and dimension of the site along time, if any.
        inflate: every covariance is multiplied by it: 1 is exact.
        shift: added to every mean, in posterior standard deviations.
    """

    parameter_sites = None  # what Posterior asks of a guide

    def __init__(
        self,
        posteriors: Sequence[tuple[Array, Array]],
        *,
        initial: int,
        along_time: tuple[str, int] | None,
        inflate: float = 1.0,
        shift: float = 0.0,
    ) -> None:
        super().__init__()
        self.initial, self.along_time = initial, along_time
        largest = max(len(mean) for mean, _ in posteriors)
        means, trils = [], []
        for mean, covariance in posteriors:
            padding = largest - len(mean)
            tril = np.linalg.cholesky(inflate * covariance)
            full = np.eye(largest)
            full[: len(mean), : len(mean)] = tril
            means.append(np.pad(mean + shift * np.sqrt(np.diag(covariance)), (0, padding)))
            trils.append(full)
        self.register_buffer("loc", torch.as_tensor(np.stack(means)))
        self.register_buffer("tril", torch.as_tensor(np.stack(trils)))

    def forward(self, data: lr.SequenceData) -> dict[str, Tensor]:
        chosen = torch.arange(len(self.loc)) if data.indices is None else data.indices
        loc, tril, first = self.loc[chosen], self.tril[chosen], self.initial
        values = {}
        with sequence_plate(data):
            if first:
                start = dist.MultivariateNormal(loc[:, :first], scale_tril=tril[:, :first, :first])
                values["initial"] = pyro.sample("initial", start)
            if self.along_time is not None:
                # rows of the joint factor: z = m + L_zh e_h + L_zz e_z, and e_h is known from the initial latent
                name, dim = self.along_time
                last = first + data.num_steps * dim
                mean, factor = loc[:, first:last], tril[:, first:last, first:last]
                if first:
                    residual = (values["initial"] - loc[:, :first]).unsqueeze(-1)
                    noise = torch.linalg.solve_triangular(tril[:, :first, :first], residual, upper=False)
                    mean = mean + (tril[:, first:last, :first] @ noise).squeeze(-1)
                flat = dist.MultivariateNormal(mean, scale_tril=factor)
                shape = ReshapeTransform((last - first,), (data.num_steps, dim))
                values[name] = pyro.sample(name, dist.TransformedDistribution(flat, [shape]))
        return values
