# %% [markdown]
# # Dynamical systems in a box: what a fit to spikes says of the system behind them
#
# Two memories are seen through spikes alone: three bits that pulses set (a flip-flop), and a heading that is cued,
# turned by its velocity and held in between. The same recurrent model is fitted to each, and opened:
#
#     h_t = GRU(h_{t-1}, x_t),   y_t ~ Poisson(exp(W h_t + b))
#
# Where does its state rest while nothing comes in? Three bits should be eight stable points, one for each word, with
# saddles between neighbours, which differ by one bit: the twelve edges of a cube. A heading should be a ring of points
# at which the state hardly moves. Neither is said anywhere in the model.
# Simulated: `python examples/dynamical_systems/demo.py --out build/dynamical_systems`.

# %%
from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # where `examples` is

import numpy as np
from scipy.ndimage import gaussian_filter1d

import latentrnn as lr
from examples.dynamical_systems.figure import draw
from examples.gallery import Result, options
from examples.simulate import Array, angle_memory, flip_flop


# %%
def memory(spikes: Array, covariates: dict[str, Array], dt: float, units: int, steps: int, rate: float) -> lr.Posterior:
    """The equation above, fitted with one seed."""
    data = lr.SequenceData.from_arrays({"spikes": spikes}, covariates, dt=dt)
    heads = {"spikes": lr.Poisson()}
    model = lr.LatentRNN(data.spec, transition=lr.GRU(units), latent=lr.Deterministic(), observations=heads)
    quiet = lr.Reporting(progress=False)
    fit = lr.fit(
        model, lr.Guide(model), data, seed=0, steps=steps, batch_size=100, optimizer=lr.AdamW(rate), reporting=quiet
    )
    return fit.posterior(data)


def reader(states: Array, planted: Array) -> Array:
    """Least squares from states to what was planted, a constant last."""
    x, y = states.reshape(-1, states.shape[-1]), planted.reshape(-1, planted.shape[-1])
    return np.linalg.lstsq(np.concatenate([x, np.ones((len(x), 1))], 1), y, rcond=None)[0]


def read(states: Array, weights: Array) -> Array:
    """What states say by these weights."""
    return states @ weights[:-1] + weights[-1]


# %%
def main() -> None:
    """Fit, open, check the claim, and draw."""
    given = options(__file__)
    bits, trials, steps = (2, 100, 250) if given.smoke else (3, 200, 500)
    switched = flip_flop(0, trials, bits=bits)
    words = memory(switched.spikes, {"pulses": switched.pulses}, switched.dt, 4 * bits, steps, 2e-2)
    points = lr.interpret.fixed_points(words, {"pulses": 0.0}, num_starts=300, noise=1.0)
    print(points)
    here, counts = points.dataset.isel(sample=0), points.counts()
    states = words.latents(1)["states"][0].numpy()
    weights = reader(states, switched.bits)
    found = np.sign(read(here.state.values[here.unstable.values == 0], weights))
    right = float((np.sign(read(states, weights)) == switched.bits).mean())
    counted = gaussian_filter1d(switched.spikes, 2.0, axis=1)
    smoothed = float((np.sign(read(counted, reader(counted, switched.bits))) == switched.bits).mean())
    saddles = int((here.unstable == 1).sum())
    print(f"bits read from states {right:.3f}, from smoothed counts {smoothed:.3f}; {saddles} saddles")

    turned = angle_memory(0, 100 if given.smoke else 300)
    held = {"cue": turned.cue, "velocity": turned.velocity}
    heading = memory(turned.spikes, held, turned.dt, 16, 50 if given.smoke else 800, 1e-2)
    ring = lr.interpret.fixed_points(heading, {"cue": 0.0, "velocity": 0.0}, noise=0.3)
    kind = lr.interpret.attractor(ring).isel(sample=0)
    circle = np.stack([np.cos(turned.angle), np.sin(turned.angle)], -1)
    around = read(ring.dataset.state.values[0], reader(heading.latents(1)["states"][0].numpy(), circle))
    radius = float(np.median(np.hypot(*around.T)))
    print(f"heading: {kind.kind.values}, {int(kind.number)} points, radius {radius:.2f}")

    assert counts["stable"] == 2**bits == len(np.unique(found, axis=0)), "each word should be a stable point"
    assert given.smoke or saddles >= 9, "most of the cube's twelve edges should have their saddle"
    assert given.smoke or str(kind.kind.values) == "ring", "what holds a heading should be a ring"
    assert given.smoke or abs(radius - 1) < 0.1, "on which the headings lie"
    assert right > smoothed, "states should say more of the bits than smoothed counts"

    draw(given.out / "dynamical_systems.png", words, points, heading, ring)
    slowest = float(here.time_constant.values[here.unstable.values == 0].max())
    Result(
        claim="from spikes alone: three bits are eight stable points with saddles between them, a heading is a ring",
        found=f"{counts['stable']} stable points, one for each word (slowest mode {slowest:.1f} s), {saddles} points "
        f"with one unstable mode for a cube's 12 edges; a {kind.kind.values} of {int(kind.number)} fixed and slow "
        f"points, radius {radius:.2f}; bits read from states {right:.3f} of the time (one seed each)",
        baseline=f"bits read from smoothed counts: {smoothed:.3f} of the time; of what is stable they say nothing",
    ).write(given.out)


if __name__ == "__main__":
    main()

# %% [markdown]
# What to try next: other seeds, and `lr.interpret.replication` of several; a vanilla RNN in the place of the GRU, whose
# saddles differ; a system that goes by itself, such as Lorenz's, with `lr.NeuralODE`, `lr.MarkovNormal` and
# `lr.interpret.lyapunov`.
