"""Particle filters: with one particle importance weights, with exact proposals the evidence, always unbiased."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor

import latentrnn as lr
from latentrnn.inference.filters.particle_filter import ParticleFilter
from latentrnn.inference.guides.families import Proposals
from latentrnn.inference.objectives.terms import sampled_sites
from latentrnn.models.rollout import Rollout
from latentrnn.models.sites import LATENTS as LATENT_SITES
from tests import oracles
from tests.linear_gaussian import Problem, as_data, as_model, exact_guide, file_problem, needs_files, random_problem
from tests.registry import LATENTS, OBSERVATIONS, Fixed, default_transition, make_data, make_model, shake

BUDGET = 6  # Monte Carlo standard errors
FAMILIES = {
    "mean field": lr.MeanField(),
    "markov": lr.Markov(3),
    "markov, mixing of steps": lr.Markov(3, mixing="step"),
    "chain": lr.GaussianChain(),
}


def rollout_of(model: lr.LatentRNN, data: lr.SequenceData) -> Rollout:
    rollout = model.unroll(data)
    rollout.values = {name: data.observations[name] for name in rollout.feedback_heads}
    return rollout


class ExactProposals(Proposals):
    """p(h_0 | y) and p(z_t | z_{t-1}, y), from the dense posterior of each sequence; `claimed` is no longer true.

    Args:
        problem: its sequences.
        inflate: factor on every standard deviation.
        claimed: what densities are multiplied by, without anybody being told.
    """

    def __init__(self, problem: Problem, *, inflate: float = 1.0, claimed: float = 1.0) -> None:
        form = oracles.diagonalise(problem.model)
        self.inflate, self.claimed, self.dim = inflate, claimed, len(form.model.b)
        self.joint = [
            oracles.dense_posterior(form.model, r.y, r.u, r.missing, with_initial=True) for r in problem.recordings
        ]

    def _law(self, loc: Tensor, root: Tensor) -> dist.Distribution:
        law = dist.MultivariateNormal(loc, scale_tril=self.inflate * root, validate_args=False)
        return law if self.claimed == 1.0 else Claimed(law, self.claimed)

    def start(self, shape: tuple[int, ...]) -> dict[str, dist.Distribution]:
        d = self.dim
        loc = torch.as_tensor(np.stack([p.mean.ravel()[:d] for p in self.joint]))
        root = torch.as_tensor(np.stack([np.linalg.cholesky(p.covariance[:d, :d]) for p in self.joint]))
        return {"initial": self._law(loc.expand(*shape, d), root)}

    def step(self, t: int, before: Tensor | None, starts: dict[str, Tensor]) -> dist.Distribution:
        d, past = self.dim, starts["initial"] if before is None else before
        gains, offsets, roots = [], [], []
        for p in self.joint:
            last = slice(d * t, d * (t + 1))
            now = slice(d * (t + 1), d * (t + 2))
            mean, cov = p.mean.ravel(), p.covariance
            if now.stop > len(mean):  # padding
                gains.append(np.zeros((d, d))), offsets.append(np.zeros(d)), roots.append(np.eye(d))
                continue
            gain = np.linalg.solve(cov[last, last], cov[last, now]).T
            gains.append(gain), offsets.append(mean[now] - gain @ mean[last])
            roots.append(np.linalg.cholesky(cov[now, now] - gain @ cov[last, now]))
        gain, offset, root = (torch.as_tensor(np.stack(part)) for part in (gains, offsets, roots))
        return self._law(offset + (gain @ past.unsqueeze(-1)).squeeze(-1), root)


class Claimed(dist.MultivariateNormal):
    """Draws from one density and reports another, a constant factor away."""

    def __init__(self, law: dist.MultivariateNormal, factor: float) -> None:
        self.factor = factor
        super().__init__(law.loc, scale_tril=law.scale_tril, validate_args=False)

    def expand(self, batch_shape: Sequence[int], _instance: None = None) -> Claimed:
        return Claimed(dist.MultivariateNormal(self.loc, scale_tril=self.scale_tril).expand(batch_shape), self.factor)

    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob(value) + float(np.log(self.factor))


def off_the_mark(log_evidence: Tensor, evidence: np.ndarray) -> bool:
    """Whether the mean of Z / p(y) over filters differs from one by more than the budget, for any sequence."""
    ratio = (log_evidence - torch.as_tensor(evidence)).exp()
    return bool(((ratio.mean(0) - 1).abs() > BUDGET * ratio.std(0) / len(ratio) ** 0.5 + 1e-9).any())


# -- against Kalman --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [{"inputs": 0, "hide": 0.0}, {"inputs": 1, "hide": 0.3}], ids=["complete", "missing"])
def test_the_exact_posterior_as_proposal_gives_the_evidence_whatever_is_drawn(case: dict[str, Any]) -> None:
    problem = random_problem(0, [8, 5, 1], **case)
    data = as_data(problem)
    rollout = rollout_of(as_model(problem, data), data)
    with torch.no_grad():
        exact = ExactProposals(problem)
        run = ParticleFilter(rollout, 3, 4, proposals=exact, resample_below=0.0).run()
        assert not np.allclose(ParticleFilter(rollout, 3, 4).run().log_evidence, problem.evidence(), rtol=0, atol=0.1)
    np.testing.assert_allclose(run.log_evidence, np.broadcast_to(problem.evidence(), (4, 3)), rtol=0, atol=1e-9)


@pytest.mark.parametrize("proposal", ["prior", "wide"])
def test_the_estimate_is_unbiased(proposal: str) -> None:
    """Six comparisons at six standard errors: a chance of 1e-8 to fail by accident."""
    problem = random_problem(1, [8, 5, 2], inputs=1, hide=0.2)
    data = as_data(problem)
    torch.manual_seed(0)
    rollout = rollout_of(as_model(problem, data), data)
    proposals = None if proposal == "prior" else ExactProposals(problem, inflate=1.4)
    with torch.no_grad():
        log_evidence = ParticleFilter(rollout, 24, 1500, proposals=proposals).run().log_evidence
        assert not off_the_mark(log_evidence, problem.evidence())
        assert off_the_mark(log_evidence + 0.3, problem.evidence())  # negative control
    # it is a bound on average
    excess = log_evidence.mean(0) - torch.as_tensor(problem.evidence())
    assert (excess < BUDGET * log_evidence.std(0) / len(log_evidence) ** 0.5).all()


def test_a_proposal_whose_density_is_wrong_by_a_factor_is_caught() -> None:
    problem = random_problem(1, [8, 5, 2], inputs=1, hide=0.2)
    data = as_data(problem)
    torch.manual_seed(0)
    rollout = rollout_of(as_model(problem, data), data)
    with torch.no_grad():
        wrong = ExactProposals(problem, inflate=1.4, claimed=1.02)
        assert off_the_mark(ParticleFilter(rollout, 24, 1500, proposals=wrong).run().log_evidence, problem.evidence())


@needs_files
@pytest.mark.parametrize("hide", [False, True])
def test_long_sequences_keep_a_small_error(hide: bool) -> None:
    """An instance that other people's code computed, where importance weights of whole paths would give out."""
    problem, evidence = file_problem("lgssm_small", hide=hide)
    data = as_data(problem)
    torch.manual_seed(0)
    rollout = rollout_of(as_model(problem, data), data)
    with torch.no_grad():
        run = ParticleFilter(rollout, 100, 60, proposals=ExactProposals(problem, inflate=1.2)).run()
    assert not off_the_mark(run.log_evidence, np.array([evidence]))
    assert run.log_evidence.std() < 1.0


def test_paths_that_survive_are_draws_from_the_posterior() -> None:
    problem = random_problem(2, [7, 4], hide=0.2)
    data = as_data(problem)
    torch.manual_seed(0)
    rollout = rollout_of(as_model(problem, data), data)
    with torch.no_grad():
        run = ParticleFilter(rollout, 400, 60, keep=True).run()
        paths, weights = run.paths(), run.log_weights.softmax(1)
    found = torch.cat([paths["initial"].unsqueeze(-2), paths["states"]], -2)
    means = (weights[..., None, None] * found).sum(1)  # (filter, sequence, 1 + time, dim)
    form = oracles.diagonalise(problem.model)
    for n, r in enumerate(problem.recordings):
        posterior = oracles.dense_posterior(form.model, r.y, r.u, r.missing, with_initial=True)
        ours = means[:, n, : len(r.y) + 1].flatten(1)
        expected = torch.as_tensor(posterior.mean.ravel())
        spread = torch.as_tensor(np.sqrt(np.diag(posterior.covariance)))
        error = ours.std(0) / len(ours) ** 0.5
        # the bias of a ratio is of the order of one over the number of particles
        assert ((ours.mean(0) - expected).abs() < BUDGET * error + 0.02 * spread).all()
        assert (error < 0.1 * spread).all()
        forgetful = torch.as_tensor(np.zeros_like(posterior.mean.ravel()))  # negative control
        assert ((ours.mean(0) - forgetful).abs() > BUDGET * error + 0.02 * spread).any()


# -- with one particle it is importance sampling, whatever the parts -------------------------------------------------


def one_particle(latent: str, observation: str, family: str | None, data: lr.SequenceData | None = None) -> None:
    """Z of a filter with one particle is p(y, z) / q(z) of the path that it drew."""
    data = make_data(OBSERVATIONS[observation]) if data is None else data
    model, _ = make_model(default_transition(observation), latent, observation, data)
    guide = lr.Guide(model, encoder=lr.RNNEncoder(3), family=FAMILIES[family or "mean field"]).double()
    shake(guide)
    torch.manual_seed(0)
    with torch.no_grad():
        with pyro.plate("draws", 4, dim=-2):
            parameters = {} if guide.parameter_sites is None else guide.parameter_sites()
        with Fixed({name: value.unsqueeze(1) for name, value in parameters.items()}):
            rollout = rollout_of(model, data)
        proposals = None if family is None else guide.local.proposals(guide.variational_parameters(data), data)
        run = ParticleFilter(rollout, 1, 4, proposals=proposals, keep=True).run()
        values = {name: value.squeeze(1) for name, value in run.paths().items()}
        expected = torch.zeros(4, len(data)).double()
        with pyro.plate("draws", 4, dim=-2), Fixed(values | parameters):
            guided, joint = (poutine.trace(part).get_trace(data) for part in (guide, model))
        for name, site in sampled_sites(joint):
            if site["is_observed"] or (name in LATENT_SITES and family is not None):
                expected = expected + site["fn"].log_prob(site["value"])
            if name in LATENT_SITES and family is not None:
                expected = expected - guided.nodes[name]["fn"].log_prob(site["value"])
    torch.testing.assert_close(run.log_evidence, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("family", [None, *FAMILIES])
@pytest.mark.parametrize("latent", [name for name in LATENTS if name != "deterministic"])
def test_one_particle_weighs_as_an_importance_sample(latent: str, family: str | None) -> None:
    one_particle(latent, "poisson", family)


@pytest.mark.parametrize("observation", OBSERVATIONS)
def test_one_particle_weighs_by_every_head(observation: str) -> None:
    one_particle("innovations ar1", observation, "markov")


def test_states_and_what_was_drawn_come_down_the_same_line() -> None:
    """Resampled many times: the heads counted at the end see the states that the surviving paths lead to."""
    data = make_data(OBSERVATIONS["several"], (6, 12, 3))
    model, _ = make_model("lstm", "innovations with initial", "several", data)
    torch.manual_seed(0)
    with torch.no_grad():
        model.observations["y"].readout.weight.mul_(5.0)  # decisive observations
        rollout = rollout_of(model, data)
        run = ParticleFilter(rollout, 32, 3, keep=True).run()
        paths = run.paths()
        first = paths["initial"].flatten(0, 1)
        assert len(first[:, 1].unique(dim=0)) < 32 * 3  # some lines died
        with pyro.plate("draws", 96, dim=-2), Fixed({name: v.flatten(0, 1) for name, v in paths.items()}):
            expected = model.unroll(data).states().unflatten(0, (3, 32))
        found = run.hidden_paths()
    inside = data.valid.expand(found.shape[:-1])
    torch.testing.assert_close(found[inside], expected[inside], rtol=0, atol=1e-10)


def test_context_is_not_evidence() -> None:
    """Like the importance weights, filters for evidence score what is scored."""
    data = make_data(OBSERVATIONS["poisson history"], (12,)).windows(6, context=2)
    assert data.host_context.any()
    one_particle("innovations", "poisson history", "markov", data)


# -- as a posterior reports it ---------------------------------------------------------------------------------------


def test_parameters_with_posteriors_are_integrated_as_importance_weights_do() -> None:
    data = make_data(OBSERVATIONS["gaussian priors"])
    model, guide = make_model("gru", "innovations", "gaussian priors", data)
    with torch.no_grad():
        for scale in guide.parameter_sites.log_scale.values():
            scale.fill_(-2.0)
        model.observations["y"].log_noise_scale.fill_(0.5)  # so that the prior is not far from the posterior
        model.latent.log_scale.zero_()
        head = guide.local.heads["innovations"]
        head.map.weight.mul_(0.1)
        head.map.bias.copy_(torch.tensor([0.0, 0.0, 1.6, 1.6]))
    posterior = lr.Posterior(model, guide, data, device="cpu")
    iwae = posterior.evidence("iwae", 20_000)
    smc = posterior.evidence(lr.SMC(num_filters=600), 20)
    error = (smc.standard_error**2 + iwae.standard_error**2).sqrt()
    assert ((smc.values - iwae.values).abs() < BUDGET * error).all()
    assert error.max() < 0.15
    assert smc.effective_sample_size is not None
    assert ((smc.effective_sample_size >= 1) & (smc.effective_sample_size <= 20)).all()
    assert smc.pareto_k is not None
    assert smc.spread is not None


def test_the_reported_error_is_the_spread_of_repeated_estimates() -> None:
    problem = random_problem(3, [6, 4])
    data = as_data(problem)
    posterior = lr.Posterior(as_model(problem, data), exact_guide(problem), data, device="cpu")
    found = [posterior.reseeded(seed).evidence(lr.SMC(8, "prior"), 100) for seed in range(60)]
    spread = torch.stack([e.values for e in found]).std(0)
    reported = torch.stack([e.standard_error for e in found]).mean(0)
    assert ((reported / spread - 1).abs() < 0.4).all()


def test_what_cannot_be_filtered_says_so() -> None:
    data = make_data(OBSERVATIONS["poisson"])
    model, _ = make_model("gru", "innovations", "poisson", data)
    guide = lr.Guide(model, encoder=lr.RNNEncoder(3), family=lr.Flow(lr.MeanField())).double()
    posterior = lr.Posterior(model, guide, data, device="cpu")
    with pytest.raises(ValueError, match="Flow cannot be drawn step by step; use MeanField, Markov or GaussianChain"):
        posterior.evidence("smc", 4)
    assert torch.isfinite(posterior.evidence(lr.SMC(proposal="prior"), 4).values).all()
    with pytest.raises(
        ValueError, match="evidence: kind must be one of 'auto', 'elbo', 'iwae', 'smc', 'ais', 'exact'; found 'nuts'"
    ):
        posterior.evidence("nuts")
    with pytest.raises(ValueError, match="SMC: num_filters must be at least 2, for the error; found 1"):
        lr.SMC(num_filters=1)
    with pytest.raises(ValueError, match="SMC: proposal must be one of 'guide', 'prior', 'mixture'; found 'posterior'"):
        lr.SMC(proposal="posterior")


def test_impossible_particles_end_in_no_evidence_and_not_in_nan() -> None:
    data = lr.SequenceData.from_arrays({"y": np.full((2, 4, 1), 3.0)}, dtype=torch.float64)
    model = lr.LatentRNN(
        data.spec, transition=lr.GRU(2), latent=lr.Innovations(1), observations={"y": lr.Poisson()}
    ).double()
    with torch.no_grad():
        model.observations["y"].readout.baseline.fill_(-torch.inf)
        run = ParticleFilter(rollout_of(model, data), 4, 2).run()
    assert torch.equal(run.log_evidence, torch.full((2, 2), -torch.inf).double())
    assert torch.isfinite(run.log_weights).all()
