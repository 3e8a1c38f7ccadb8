# %% [markdown]
# # How far does an enhancer reach along DNA?
#
# What enhancers send downstream is added up and fades along the way; a promoter is active where enough of it arrives.
# Along DNA position takes the place of time, and the memory of a recurrent cell that of distance:
#
#     h_t = r h_{t-1} + x_t,   y_t ~ Bernoulli(sigmoid(b + w h_t)) at promoters,   r = exp(-1 / length)
#     length ~ LogNormal(log 10, 1) kb,   w ~ Normal(0, 20),   b ~ Normal(0, 10)
#
# From the activity of promoters alone: what is left of the signal a kilobase further on (r = 0.95), and the window
# below a single enhancer in which a promoter is active, to where exp(-distance / length) = -b / w. Simulated loci of
# 200 kb: `python examples/enhancer_decay/demo.py --out build/enhancer_decay`.

# %%
from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # where `examples` is

import numpy as np
import pyro.distributions as dist
import torch
from scipy.special import expit

import latentrnn as lr
from examples.enhancer_decay.baselines import by_curve, by_distance, since_last
from examples.enhancer_decay.figure import draw
from examples.gallery import Result, enough, held, options, quantiles, shown
from examples.simulate import Array, Enhancers, enhancers

R, THRESHOLD, LOCI = 0.95, 0.35, 100
LENGTH, WEIGHT, BASELINE = "transition.time_constant", "active.readout.weight", "active.readout.baseline"


# %%
def as_sequences(found: Enhancers) -> lr.SequenceData:
    heads, covariates = {"active": found.active}, {"enhancer": found.enhancer}
    return lr.SequenceData.from_arrays(heads, covariates, dtype=torch.float64)


def locus(data: lr.SequenceData) -> lr.LatentRNN:
    """The equation above."""
    priors = {"weight": dist.Normal(0.0, 20.0), "baseline": dist.Normal(0.0, 10.0)}
    length = {"time_constant": dist.LogNormal(np.log(10.0), 1.0)}
    return lr.LatentRNN(
        data.spec,
        transition=lr.LeakyIntegrator(1, priors=length, fixed={"input_weight": 1.0}),
        latent=lr.Deterministic(fixed={"initial_state": 0.0}),
        observations={"active": lr.Bernoulli(priors=priors)},
    )


def intervals(posterior: lr.Posterior, draws: int = 4000) -> dict[str, Array]:
    """90% intervals of r per kb and of the window below one enhancer, kb, with their medians in between."""
    length, weight, baseline = (posterior.parameters(draws)[name].flatten() for name in (LENGTH, WEIGHT, BASELINE))
    return {"r": quantiles(torch.exp(-1 / length)), "window": quantiles(-length * torch.log(-baseline / weight))}


def by_laplace(found: Enhancers) -> dict[str, Array]:
    """The same in a fraction of a second."""
    data = as_sequences(found)
    return intervals(lr.laplace(locus(data), data).posterior(data))


# %%
def main() -> None:
    """Infer, compare, check the claim, and draw."""
    given = options(__file__)
    simulations, loci, draws = (3, 50, 100) if given.smoke else (100, LOCI, 400)
    data = as_sequences(found := enhancers(0, loci))
    posterior = lr.sample(locus(data), data, num_samples=draws, warmup=draws, progress=False)
    ends = intervals(posterior, 4 * draws)
    planted = {"r": R, "window": found.window}
    others = [enhancers(seed, loci) for seed in range(simulations)]
    ours, curve = [by_laplace(each) for each in others], [by_curve(each) for each in others]
    distance = [by_distance(each) for each in others]
    hold = [" and ".join(held([e[k] for e in row], planted[k]) for k in planted) for row in (ours, curve)]
    print(f"r {shown(ends['r'], '.4f')}, window {shown(ends['window'])} kb (planted {found.window:.1f})")
    print(f"90% intervals of both hold in {hold[0]}, of least squares in {hold[1]}")
    print(f"window by the distance to the last: {shown(distance[0])} kb, holds in {held(distance, found.window)}")

    new = enhancers(10_000, 200)  # loci that nothing was learned from
    ahead = posterior.result.posterior(as_sequences(new))
    there, inside = np.isfinite(new.active[..., 0]), new.signal[..., 0] > THRESHOLD
    predicted = ahead.mean("active", 200)[..., 0].numpy()
    agreed = np.mean((predicted > 0.5)[there] == inside[there])
    sides = [there & inside, there & ~inside]
    shares = " and ".join(f"{new.active[..., 0][side].mean():.2f}" for side in sides)
    told = " and ".join(f"{predicted[side].mean():.2f}" for side in sides)
    print(f"{agreed:.1%} of new promoters are told inside from outside; active {shares} of them, predicted {told}")

    assert ends["r"][0] < R < ends["r"][2] < ends["r"][0] + 0.03, "r should be recovered"
    assert ends["window"][0] < found.window < ends["window"][2], "the window should be recovered"
    for name, value in planted.items():
        assert enough([each[name] for each in ours], value), "intervals should hold as often as they say"
    assert agreed > 0.95, "promoters should be active inside the window alone"
    if not given.smoke:
        assert not enough(distance, found.window), "the last enhancer alone should not do"

    which = int(np.argmax(np.nanvar(new.active[..., 0], 1) * (new.enhancer.sum((1, 2)) == 5)))
    locus_shown = new.enhancer[which, :, 0], new.active[which, :, 0], inside[which]
    length, weight, baseline = (posterior.parameters(400)[n].flatten().numpy() for n in (LENGTH, WEIGHT, BASELINE))
    single = expit(np.exp(-np.arange(60) / length[:, None]) * weight[:, None] + baseline[:, None])
    learned = np.isfinite(found.active[..., 0])
    promoters = since_last(found)[learned], found.active[..., 0][learned]
    rates = ahead.rates("active", 400)[:, which, :, 0].numpy()
    draw(given.out / "enhancer_decay.png", locus_shown, rates, single, promoters, found.window)
    first = {k: shown(v, ".3f" if k == "r" else ".3g") for k, v in curve[0].items()}
    Result(
        claim=f"r = 0.95 per kb and the window of {found.window:.1f} kb are recovered, and promoters are active inside "
        "the planted window alone",
        found=f"r {shown(ends['r'], '.3f')}, window {shown(ends['window'])} kb, which hold in {hold[0]}; {agreed:.1%} "
        f"of new promoters are told inside from outside, where {shares} are active, predicted {told}",
        baseline=f"least squares of the same equation: r {first['r']}, window {first['window']} kb, {hold[1]}; "
        f"logistic regression on the distance to the last enhancer: window {shown(distance[0])} kb, "
        f"{held(distance, found.window)}",
    ).write(given.out)


if __name__ == "__main__":
    main()

# %% [markdown]
# What to try next: enhancers of several strengths (`OneHot`, `input_weight` with a prior); signals that reach upstream
# too, by `BidirectionalRNN`; distances of irregular genes, with times in the place of steps.
