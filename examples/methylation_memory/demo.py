# %% [markdown]
# # Methylation as a memory that stays between zero and one
#
# The methylated share of a site follows its surroundings: a part `rate` of the difference is made up for in a day.
# Gains and losses share one rate, as the gates of a cell whose input gate is what its forget gate leaves. So the share
# is an exponential moving average of the exposure, never leaves [0, 1], and can be read as the probability that it is:
#
#     m_t = (1 - rate) m_{t-1} + rate x_t,   y_t ~ Binomial(20, m_t) every third day,   rate = 1 - exp(-1 / tau)
#     tau ~ LogNormal(log 5, 1) days,   m_0 ~ Beta(1, 1)
#
# With gates that are not tied, m_t = f m_{t-1} + i x_t, nothing keeps the state in its range. Simulated cultures of
# cells, sequenced for 90 days: `python examples/methylation_memory/demo.py --out build/methylation`.

# %%
from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # where `examples` is

import numpy as np
import pyro.distributions as dist
import torch

import latentrnn as lr
from examples.gallery import Result, enough, held, options, quantiles, shown
from examples.methylation_memory.baselines import by_curve, moving_averages
from examples.methylation_memory.cells import other_cells
from examples.methylation_memory.figure import draw
from examples.simulate import Array, Methylation, methylation
from latentrnn.models.observations.links import UnitLink

RATE, START, DEPTH, CULTURES = 0.08, 0.2, 20, 6


# %%
class AsItIs(UnitLink):
    """The predictor is a probability already."""

    def forward(self, eta: torch.Tensor) -> torch.Tensor:
        return eta

    def inverse(self, value: torch.Tensor) -> torch.Tensor:
        return value


def as_sequences(found: Methylation) -> lr.SequenceData:
    return lr.SequenceData.from_arrays({"reads": found.reads}, {"exposure": found.exposure}, dtype=torch.float64)


def memory(data: lr.SequenceData, *, tied: bool = True) -> lr.LatentRNN:
    """The equation above, or the one whose gates are free of each other."""
    times = {"time_constant": dist.LogNormal(np.log(5.0), 1.0)}
    if tied:
        transition = lr.LeakyIntegrator(1, average=True, priors=times, fixed={"input_weight": 1.0})
    else:
        transition = lr.LeakyIntegrator(1, priors=times | {"input_weight": dist.HalfNormal(1.0)})
    reads = lr.Binomial(DEPTH, link=AsItIs(), fixed={"weight": 1.0, "baseline": 0.0})
    start = lr.Deterministic(priors={"initial_state": dist.Beta(1.0, 1.0)})
    return lr.LatentRNN(data.spec, transition=transition, latent=start, observations={"reads": reads})


def rate(posterior: lr.Posterior, draws: int = 4000) -> torch.Tensor:
    """Draws of the rate, per day."""
    return -torch.expm1(-1 / posterior.parameters(draws)["transition.time_constant"])


def by_laplace(found: Methylation) -> Array:
    """90% interval of the rate, with its median in between, in a fraction of a second."""
    data = as_sequences(found)
    return quantiles(rate(lr.laplace(memory(data), data).posterior(data)))


# %%
def main() -> None:
    """Infer, compare, check the claim, and draw."""
    given = options(__file__)
    simulations, draws = (3, 100) if given.smoke else (100, 400)
    found = methylation(0, CULTURES)
    data, settings = as_sequences(found), {"num_samples": draws, "warmup": draws, "progress": False}
    tied, free = (lr.sample(memory(data, tied=tied), data, **settings) for tied in (True, False))
    ends = quantiles(rate(tied, 4 * draws))
    others = [methylation(seed, CULTURES) for seed in range(simulations)]
    ours, curve = [by_laplace(other) for other in others], [by_curve(other, DEPTH) for other in others]
    full = {"tied": tied, "free": free}
    full = {"tied": tied, "free": free}
    longest = {k: each.counterfactual({"exposure": 1.0}, num_samples=400).states for k, each in full.items()}
    leaves = {k: float((states.amax((1, 2, 3)) > 1).double().mean()) for k, states in longest.items()}
    print(
        f"rate: {shown(ends)} per day; 90% intervals hold in {held(ours, RATE)}, least squares' in {held(curve, RATE)}"
    )
    starts = tied.parameters(50)["latent.initial_state"].flatten().tolist()
    averages = moving_averages(found, rate(tied, 50).flatten().tolist(), starts)
    error = float(np.abs(tied.latents(50)["states"][..., 0].numpy() - averages).max())
    others_error = max(float(np.abs(each - found.level).max()) for each in other_cells(found, RATE, START).values())
    print(f"states less moving averages by pandas: {error:.1e}; other cells with tied gates: {others_error:.1e}")
    print(f"under full exposure leave [0, 1]: {leaves['tied']:.0%} of draws, gates not tied {leaves['free']:.0%}")

    assert max(error, others_error) < 1e-9, "states should be exponential moving averages"
    states = torch.cat([tied.latents(400)["states"], longest["tied"]])
    assert 0 <= states.min() <= states.max() <= 1, "states should stay in [0, 1]"
    assert leaves["free"] > 0, "with free gates some should not"
    assert ends[0] < RATE < ends[2] < 1.5 * ends[0], "the rate should be recovered"
    assert enough(ours, RATE), "intervals should hold as often as they say"

    which = int(np.argmax(found.exposure.std((1, 2))))
    culture = found.exposure[which, :, 0], found.reads[which, :, 0] / DEPTH, found.level[which, :, 0]
    levels = tied.latents(400)["states"][:, which, :, 0].numpy()
    exposed = {kind: each[:, which, :, 0].numpy() for kind, each in longest.items()}
    draw(given.out / "methylation_memory.png", culture, levels, exposed)
    Result(
        claim="a state with tied gates stays in [0, 1], is an exponential moving average, and its rate (0.08 per day) "
        "is recovered",
        found=f"rate {shown(ends)}, intervals hold in {held(ours, RATE)}; under full exposure no draw leaves [0, 1], "
        f"{leaves['free']:.0%} of draws do where the gates are not tied",
        baseline=f"least squares of the same equation: {shown(curve[0])}, {held(curve, RATE)}",
    ).write(given.out)


if __name__ == "__main__":
    main()

# %% [markdown]
# What to try next: a rate for each culture with a `lr.Population` as prior; gains faster than losses, by a transition
# of your own (docs/extending.md); reads with a share of errors, `priors={"baseline": ..., "weight": ...}` of the head.
