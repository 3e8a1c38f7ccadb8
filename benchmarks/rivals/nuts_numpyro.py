"""The densities of `nuts.py` in NumPyro, sampled by its compiled NUTS: run by that script with another interpreter.

Arguments: density, its file, chains, draws, whether the mass matrix is full, and the file to write draws to. The last
line that it prints is JSON: version and processor seconds, compilation included.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.linalg import solve_triangular
from numpyro.infer import MCMC, NUTS


def autoregression(data: Any) -> None:
    """As `nuts.autoregression`."""
    y, order = jnp.array(data["y"]), data["K"]
    lagged = jnp.stack([y[order - k - 1 : len(y) - k - 1] for k in range(order)], -1)
    alpha = numpyro.sample("alpha", dist.Normal(0.0, 10.0))
    beta = numpyro.sample("beta", dist.Normal(jnp.zeros(order), 10.0).to_event(1))
    sigma = numpyro.sample("sigma", dist.HalfCauchy(2.5))
    numpyro.sample("y", dist.Normal(alpha + lagged @ beta, sigma).to_event(1), obs=y[order:])


def volatility(data: Any) -> None:
    """As `nuts.volatility`."""
    y = jnp.array(data["centered_returns"])
    persistence = 2 * numpyro.sample("b", dist.Beta(20.0, 1.5)) - 1
    mean = numpyro.sample("mean_log_volatility", dist.Cauchy(0.0, 5.0))
    scale = numpyro.sample("white_noise_shock_scale", dist.HalfCauchy(2.0))
    shocks = numpyro.sample("shocks", dist.Normal(jnp.zeros(len(y)), 1.0).to_event(1))
    driven = shocks.at[0].divide(jnp.sqrt(1 - persistence**2))
    inverse = jnp.eye(len(y)) - persistence * jnp.eye(len(y), k=-1)
    path = solve_triangular(inverse, driven, lower=True, unit_diagonal=True)
    numpyro.sample("y", dist.Normal(0.0, jnp.exp((mean + scale * path) / 2)).to_event(1), obs=y)


def main() -> None:
    """Sample, and say how long it took."""
    name, file, chains, draws, dense, out = sys.argv[1:]
    numpyro.enable_x64()
    with open(file) as opened:
        data = json.load(opened)["data"]
    program = {"arK": autoregression, "stochastic_volatility_sp500_small": volatility}[name]
    start = time.process_time()
    mcmc = MCMC(
        NUTS(program, dense_mass=bool(int(dense))), num_warmup=int(draws), num_samples=int(draws),
        num_chains=int(chains), chain_method="sequential", progress_bar=False,
    )  # fmt: skip
    mcmc.run(jax.random.PRNGKey(0), data)
    values = {k: np.asarray(v) for k, v in mcmc.get_samples(group_by_chain=True).items()}
    np.savez(out, **values)
    print(json.dumps({"version": numpyro.__version__, "seconds": time.process_time() - start}))


if __name__ == "__main__":
    main()
