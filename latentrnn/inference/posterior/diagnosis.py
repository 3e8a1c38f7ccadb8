"""How good a variational posterior is, in numbers and in plain words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from latentrnn.inference.evidence.evidence import AIS, Evidence, summarise
from latentrnn.inference.evidence.pareto import LARGEST_GOOD
from latentrnn.inference.guides.guide import Guide
from latentrnn.inference.objectives.terms import elbo_terms, paired_traces, sampled_sites, trace_log_weights
from latentrnn.inference.posterior.densities import evidence, log_weights
from latentrnn.inference.posterior.draws.sampler import PosteriorSampler
from latentrnn.inference.posterior.refinement import refined
from latentrnn.models.sites import LATENTS
from latentrnn.support.arguments import check_size
from latentrnn.support.notebooks import ShownInNotebooks

if TYPE_CHECKING:
    import pandas

MOMENT_DRAWS = 512  # of guide and prior, for the divergence of each dimension
GRADIENTS = 16  # estimates of one gradient
SILENT = 0.02  # nats per step below which a dimension says nothing
ACTIVE = 0.01  # share of the prior's variance that posterior means of an active unit have (Burda et al. 2016)
LOOSE = 1.0  # nats per sequence between the ELBO and the best rung that are worth a remark
HEAVY = 0.25  # share of sequences with a heavy tail of weights that is worth a remark

ADVICE = {
    "collapsed": (
        "The latents say nothing about the data: the guide is the prior. Try a longer KL warm-up (KLWarmUp), "
        "ELBO(free_bits=...), a weaker readout or less feedback, or leave the latents out."
    ),
    "unused": "Some latent dimensions say nothing about the data: a smaller latent would do as well.",
    "narrow": (
        "The guide is narrower than the posterior: weights grow with the distance from its mean, and their tails are "
        "heavy. Do not believe evidence('iwae') here, nor intervals of the latents. Try a family with correlations "
        "over time (Markov, GaussianChain), a Flow on top, or the objective IWAE; judge by evidence('ais')."
    ),
    "heavy": (
        "Importance weights have heavy tails: the guide has another shape than the posterior, or a few draws are too "
        "few for so many dimensions. Do not believe evidence('iwae') here; judge by evidence('ais'), and try a richer "
        "family (GaussianChain, Flow)."
    ),
    "loose": (
        "The ELBO is well below the evidence. Try a richer family (GaussianChain, Flow), or a tighter objective (IWAE, "
        "FIVO)."
    ),
    "amortisation": (
        "Much of that is the encoder's: numbers optimised for each sequence do better. Try a larger encoder, more "
        "steps, a guide with PerSequence, or posterior.refined()."
    ),
    "good": "Nothing to complain about: the guide is close to the posterior by every measure here.",
}


@dataclass(frozen=True)
class Diagnosis(ShownInNotebooks):
    """What `Posterior.diagnose` found; `str` prints a table and the verdict.

    Attributes:
        rungs: estimates of the log evidence of the sequences looked at closely, by kind, from the loosest.
        pareto_k: k-hat of the importance weights of every sequence, (sequence,).
        kl: by latent site, nats per step (per sequence for a latent without time) and dimension, (dim,): of a Normal
            with the guide's moments from one with the prior's, so that it leaves out what dimensions and steps say
            together.
        active: by latent site, which dimensions have posterior means that vary by more than a hundredth of the
            prior's variance, (dim,).
        gap: nats per sequence from the ELBO to the last rung.
        width: correlation of log-weights with the distance from the guide's mean, in -1..1, averaged over sequences:
            above zero the guide is narrower than the posterior, below it is wider.
        amortisation_gap: nats per sequence that the ELBO gains by optimising the guide's numbers for each sequence;
            None where the guide has none.
        signal_to_noise: of the ELBO's gradient with one draw, the size of its mean over that of its spread, for
            "encoder" (all of the guide) and "model"; both are near zero where a fit has converged.
        findings: names of what was found, most important first: "collapsed", "unused", "narrow", "heavy",
            "loose", "amortisation", or "good" alone.
    """

    rungs: dict[str, Evidence]
    pareto_k: Tensor
    kl: dict[str, Tensor]
    active: dict[str, Tensor]
    gap: float
    width: float
    amortisation_gap: float | None
    signal_to_noise: dict[str, float]
    findings: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """What was found, in plain words, with what to try next."""
        return " ".join(ADVICE[finding] for finding in self.findings)

    def to_dataframe(self) -> pandas.DataFrame:
        """A row for each rung of the evidence: nats per sequence, its Monte Carlo error, the largest k-hat."""
        import pandas

        rows = {
            kind: {
                "nats_per_sequence": rung.total / len(rung.values),
                "standard_error": rung.total_standard_error / len(rung.values),
                "largest_pareto_k": float("nan") if rung.pareto_k is None else float(rung.pareto_k.max()),
            }
            for kind, rung in self.rungs.items()
        }
        return pandas.DataFrame.from_dict(rows, orient="index").rename_axis("rung")

    def _shown(self) -> tuple[list[str], list[Any]]:
        return [repr(self), self.verdict], [self.to_dataframe()]

    def __repr__(self) -> str:
        return f"Diagnosis({', '.join(self.findings)}: {self.gap:.2f} nats per sequence from the ELBO to the last rung)"

    def __str__(self) -> str:
        lines = [f"{'rung':<14}{'nats per sequence':>18}{'error':>10}{'largest k-hat':>15}"]
        for kind, rung in self.rungs.items():
            count = len(rung.values)
            largest = "" if rung.pareto_k is None else f"{float(rung.pareto_k.max()):.2f}"
            row = f"{kind:<14}{rung.total / count:>18.2f}{rung.total_standard_error / count:>10.2f}{largest:>15}"
            lines.append(row.rstrip())
        bad = int((self.pareto_k > LARGEST_GOOD).sum())
        lines.append(f"k-hat above {LARGEST_GOOD}: {bad} of {len(self.pareto_k)} sequences")
        for name, values in self.kl.items():
            shown = " ".join(f"{value:.2f}" for value in values.tolist())
            lines.append(f"KL of {name}, nats: {shown} ({int(self.active[name].sum())} of {len(values)} units active)")
        if self.amortisation_gap is not None:
            lines.append(f"amortisation gap: {self.amortisation_gap:.2f} nats per sequence")
        snr = ", ".join(f"{name} {value:.2g}" for name, value in self.signal_to_noise.items())
        lines.append(f"gradient signal to noise: {snr}")
        return "\n".join([*lines, "", f"{', '.join(self.findings)}: {self.verdict}"])


def diagnose(
    sampler: PosteriorSampler, *, num_particles: int, num_sequences: int, annealing: AIS, refinement_steps: int
) -> Diagnosis:
    """Return what `Posterior.diagnose` documents, whose arguments these are.

    Raises:
        ValueError: a model without local latents, or a number out of range.
    """
    if not sampler.model.latent_sites():
        raise ValueError("diagnose: the model has no latents of single sequences, so that its evidence is exact")
    check_size("diagnose", "num_sequences", num_sequences)
    if check_size("diagnose", "num_particles", num_particles) < 25:
        raise ValueError(f"diagnose: num_particles must be at least 25, for k-hat; found {num_particles}")
    few = sampler.restricted(min(num_sequences, len(sampler.data)))
    weights = log_weights(sampler, num_particles)
    close = weights[:, : len(few.data)]
    rungs = {"elbo": summarise("elbo", close), "iwae": summarise("iwae", close)}
    rungs["ais"] = evidence(few, annealing, max(25, num_particles // 8))
    pareto_k = summarise("iwae", weights).pareto_k
    assert pareto_k is not None
    gap = float((rungs["ais"].values - rungs["elbo"].values).mean())
    error = float((rungs["elbo"].standard_error.square() + rungs["ais"].standard_error.square()).sum().sqrt())
    kl, active = _per_dimension(sampler)
    gain = None
    if isinstance(sampler.guide, Guide):
        better = evidence(refined(few, refinement_steps), "elbo", num_particles)
        gain = float((better.values - rungs["elbo"].values).mean())
    certain = gap > LOOSE and gap > 3 * error / len(few.data)
    width = _width(few, num_particles)
    findings = _findings(pareto_k, kl, gap, width, certain, gain)
    return Diagnosis(rungs, pareto_k, kl, active, gap, width, gain, _signal_to_noise(few), findings)


def _findings(
    pareto_k: Tensor, kl: dict[str, Tensor], gap: float, width: float, loose: bool, gain: float | None
) -> tuple[str, ...]:
    silent = torch.cat([values < SILENT for values in kl.values()])
    found = ["collapsed"] if silent.all() else ["unused"] if silent.any() else []
    if (pareto_k > LARGEST_GOOD).double().mean() > HEAVY:
        found.append("narrow" if width > 0 else "heavy")
    if loose:
        found.append("loose")
        if gain is not None and gain > 0.5 * gap:
            found.append("amortisation")
    return tuple(found) or ("good",)


def _per_dimension(sampler: PosteriorSampler) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the divergence of each dimension from the prior, and whether its posterior means vary."""
    posterior_moments, prior_moments = (_moments(sampler, source) for source in ("posterior", "prior"))
    kl, active = {}, {}
    for name, (q, q_variance) in posterior_moments.items():
        p, p_variance = prior_moments[name]
        q_variance, p_variance = q_variance.clamp_min(1e-12), p_variance.clamp_min(1e-12)
        ratio = q_variance / p_variance
        kl[name] = (0.5 * (ratio - 1 - ratio.log() + (q - p) ** 2 / p_variance)).mean(0)
        # means of finitely many draws vary by themselves
        between = q.var(0) - q_variance.mean(0) / MOMENT_DRAWS
        active[name] = between > ACTIVE * p_variance.mean(0)
    return kl, active


def _moments(sampler: PosteriorSampler, source: str) -> dict[str, tuple[Tensor, Tensor]]:
    """Return means and variances of every latent over draws, (sequence and step, dim), by site."""
    found: dict[str, list[tuple[Tensor, Tensor]]] = {}
    with sampler.drawing():
        for sampled in sampler.rollouts(MOMENT_DRAWS, latents=source):
            for name, value in sampled.latents.items():
                mean, variance = value.mean(0), value.var(0)
                if value.dim() == 4:
                    inside = sampled.rollout.data.valid
                    mean, variance = mean[inside], variance[inside]
                found.setdefault(name, []).append((mean.cpu(), variance.cpu()))
    return {
        name: (torch.cat([mean for mean, _ in parts]), torch.cat([variance for _, variance in parts]))
        for name, parts in found.items()
    }


@torch.no_grad()
def _width(sampler: PosteriorSampler, num_particles: int) -> float:
    """Return how log-weights go with the distance from the guide's mean: their correlation, over sequences averaged."""
    with sampler.seeded():
        guided, joint = paired_traces(sampler.model, sampler.guide, sampler.data, num_particles)
    weights = trace_log_weights(guided, joint, sampler.data, num_particles)
    distance = torch.zeros_like(weights)
    for name, site in sampled_sites(joint):
        if name in LATENTS:
            value = site["value"]
            squared = (value - value.mean(0)) ** 2 / value.var(0).clamp_min(1e-12)
            if value.dim() == 4:
                squared = torch.where(sampler.data.valid.unsqueeze(-1), squared, 0.0)
            distance = distance + squared.flatten(2).sum(-1)
    pair = [(part - part.mean(0)) / part.std(0).clamp_min(1e-6) for part in (weights.double(), distance.double())]
    return float((pair[0] * pair[1]).mean())


@torch.enable_grad()
def _signal_to_noise(sampler: PosteriorSampler) -> dict[str, float]:
    """Return the size of the mean gradient over that of its spread, the mean's own error taken off."""
    parts: dict[str, nn.Module] = {"encoder": sampler.guide, "model": sampler.model}
    parameters = {name: [p for p in part.parameters() if p.requires_grad] for name, part in parts.items()}
    seen: dict[str, list[Tensor]] = {name: [] for name, own in parameters.items() if own}
    # fused kernels of CUDA have no backward pass in evaluation mode
    with sampler.seeded(), torch.backends.cudnn.flags(enabled=False):
        for _ in range(GRADIENTS):
            elbo = elbo_terms(sampler.model, sampler.guide, sampler.data).elbo()
            flat = [p for name in seen for p in parameters[name]]
            found = iter(torch.autograd.grad(elbo, flat, allow_unused=True))
            for name, gradients in seen.items():
                own = [(p, next(found)) for p in parameters[name]]
                gradients.append(torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for p, g in own]))
    ratios = {}
    for name, gradients in seen.items():
        stacked = torch.stack(gradients)
        noise = float(stacked.var(0).sum())
        signal = max(float(stacked.mean(0).square().sum()) - noise / GRADIENTS, 0.0)
        ratios[name] = math.sqrt(signal / noise) if noise > 0 else math.inf
    return ratios
