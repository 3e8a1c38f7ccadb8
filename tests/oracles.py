"""Reference answers by independent code: NumPy and SciPy in float64, no import of ``latentrnn``.

The linear-Gaussian model of this file is

    z_1 ~ Normal(m0, S0);    z_t = A z_{t-1} + b + B u_t + Normal(0, Q),  t >= 2;    y_t = C z_t + d + Normal(0, R).

The package starts one step earlier, at a state h_0, and lets the input at t drive the state at t for every t >= 1.
Both are one model when h_0 ~ Normal(A^-1 (m0 - b), A^-1 (S0 - Q) A^-T) and u_1 = 0; then z_t of this file is h_t of
the package.
Arrays here belong to one sequence: (time, channel). ``missing`` is True where an entry was not observed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, special, stats

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class LGSSM:
    """Parameters of a linear-Gaussian state-space model, named as in the module's formula."""

    A: Array  # (state, state)
    b: Array  # (state,)
    B: Array  # (state, input)
    Q: Array  # (state, state)
    C: Array  # (channel, state)
    d: Array  # (channel,)
    R: Array  # (channel, channel)
    m0: Array  # (state,)
    S0: Array  # (state, state)

    @property
    def initial_state(self) -> tuple[Array, Array]:
        """Mean (state,) and covariance (state, state) of h_0, such that h_1 with u_1 = 0 is z_1."""
        inverse = np.linalg.inv(self.A)
        return inverse @ (self.m0 - self.b), _symmetric(inverse @ (self.S0 - self.Q) @ inverse.T)


@dataclass(frozen=True)
class Filtered:
    """What the Kalman filter gives: log p(y_t | y_<t) in nats (time,), and the moments of z_t given y_<t and y_<=t."""

    log_evidence: float
    log_predictive: Array
    predicted_means: Array
    predicted_covs: Array
    filtered_means: Array
    filtered_covs: Array


@dataclass(frozen=True)
class Trajectory:
    """The joint posterior of a whole trajectory: mean (time, state), covariance over the flattened (time * state)."""

    log_evidence: float
    mean: Array
    covariance: Array


@dataclass(frozen=True)
class DiagonalForm:
    """A model in coordinates z' = T z where the transition noise is the identity and h_0 has independent entries."""

    model: LGSSM
    T: Array
    initial_mean: Array  # (state,)
    initial_variance: Array  # (state,)


def kalman_filter(model: LGSSM, y: Array, u: Array | None = None, missing: Mask | None = None) -> Filtered:
    """Filter one sequence, conditioning at each step on the observed entries only (exact under a full R)."""
    u, observed = _inputs(model, y, u), _observed(y, missing)
    log_predictive, predicted, filtered = np.zeros(len(y)), [], []
    mean, cov = model.m0, model.S0
    for t in range(len(y)):
        if t > 0:
            mean = model.A @ mean + model.b + model.B @ u[t]
            cov = _symmetric(model.A @ cov @ model.A.T + model.Q)
        predicted.append((mean, cov))
        o = observed[t]
        if o.any():
            C, innovation = model.C[o], y[t, o] - model.d[o] - model.C[o] @ mean
            S = C @ cov @ C.T + model.R[np.ix_(o, o)]
            gain = np.linalg.solve(S, C @ cov).T
            log_predictive[t] = stats.multivariate_normal.logpdf(innovation, np.zeros(o.sum()), S)
            # Joseph's form stays symmetric and positive where (I - KC) P loses digits.
            rest = np.eye(len(mean)) - gain @ C
            mean, cov = mean + gain @ innovation, rest @ cov @ rest.T + gain @ model.R[np.ix_(o, o)] @ gain.T
        filtered.append((mean, cov))
    moments = [np.stack(part) for pairs in (predicted, filtered) for part in zip(*pairs, strict=True)]
    return Filtered(float(log_predictive.sum()), log_predictive, *moments)


def rts_smoother(
    model: LGSSM, y: Array, u: Array | None = None, missing: Mask | None = None
) -> tuple[Array, Array, Array]:
    """Smoothed means (time, state), covariances, and Cov(z_t, z_{t+1} | y) (time - 1, state, state)."""
    f = kalman_filter(model, y, u, missing)
    means, covs = f.filtered_means.copy(), f.filtered_covs.copy()
    cross = np.zeros((len(y) - 1, *model.A.shape))
    for t in reversed(range(len(y) - 1)):
        gain = np.linalg.solve(f.predicted_covs[t + 1], model.A @ f.filtered_covs[t]).T
        means[t] += gain @ (means[t + 1] - f.predicted_means[t + 1])
        covs[t] = _symmetric(covs[t] + gain @ (covs[t + 1] - f.predicted_covs[t + 1]) @ gain.T)
        cross[t] = gain @ covs[t + 1]
    return means, covs, cross


def trajectory_prior(
    model: LGSSM, num_steps: int, u: Array | None = None, *, with_initial: bool = False
) -> tuple[Array, Array]:
    """Mean and dense covariance of (z_1, ..., z_T), or of (h_0, z_1, ..., z_T), flattened over (time, state).

    The trajectory solves L z = drive + noise, with L unit block-lower-bidiagonal: no recursion shared with the filter.
    """
    u = np.zeros((num_steps, model.B.shape[1])) if u is None else u
    if with_initial:
        (first_mean, first_cov), inputs = model.initial_state, np.concatenate([np.zeros((1, u.shape[1])), u[1:]])
    else:
        (first_mean, first_cov), inputs = (model.m0, model.S0), u[1:]
    drive = np.concatenate([first_mean, (model.b + inputs @ model.B.T).ravel()])
    noise = linalg.block_diag(first_cov, *[model.Q] * len(inputs))
    lower = np.eye(len(drive)) - np.kron(np.eye(len(inputs) + 1, k=-1), model.A)
    unroll = linalg.solve_triangular(lower, np.eye(len(drive)), lower=True, unit_diagonal=True)
    return unroll @ drive, unroll @ noise @ unroll.T


def dense_posterior(
    model: LGSSM, y: Array, u: Array | None = None, missing: Mask | None = None, *, with_initial: bool = False
) -> Trajectory:
    """Evidence and trajectory posterior from the one joint Gaussian of all states and all observed entries.

    With ``with_initial`` the trajectory is (h_0, z_1, ..., z_T), which is what an exact guide of the package samples.
    """
    num_steps, n = len(y), len(model.b)
    mean, cov = trajectory_prior(model, num_steps, u, with_initial=with_initial)
    kept = _observed(y, missing).ravel()
    read = np.kron(np.eye(num_steps), model.C)
    if with_initial:
        read = np.concatenate([np.zeros((len(read), n)), read], axis=1)
    read, noise = read[kept], np.kron(np.eye(num_steps), model.R)[np.ix_(kept, kept)]
    residual = y.ravel()[kept] - np.tile(model.d, num_steps)[kept] - read @ mean
    S = _symmetric(read @ cov @ read.T + noise)
    factor = linalg.cho_factor(S, lower=True)
    log_evidence = -0.5 * (
        residual @ linalg.cho_solve(factor, residual)
        + 2 * np.log(np.diag(factor[0])).sum()
        + len(residual) * np.log(2 * np.pi)
    )
    gain = linalg.cho_solve(factor, read @ cov).T
    return Trajectory(float(log_evidence), (mean + gain @ residual).reshape(-1, n), _symmetric(cov - gain @ read @ cov))


def diagonalise(model: LGSSM) -> DiagonalForm:
    """Change coordinates so that Q and the covariance of h_0 are diagonal at once; the evidence of y does not change.

    By congruence: with Q = L L^T and L^-1 P0 L^-T = V diag(v) V^T, T = V^T L^-1 gives T Q T^T = I and
    T P0 T^T = diag(v).
    """
    mean, cov = model.initial_state
    whiten = np.linalg.inv(np.linalg.cholesky(model.Q))
    variance, V = np.linalg.eigh(_symmetric(whiten @ cov @ whiten.T))
    T = V.T @ whiten
    back = np.linalg.inv(T)
    moved = replace(
        model,
        A=T @ model.A @ back,
        b=T @ model.b,
        B=T @ model.B,
        Q=np.eye(len(T)),
        C=model.C @ back,
        m0=T @ model.m0,
        S0=_symmetric(T @ model.S0 @ T.T),
    )
    return DiagonalForm(moved, T, T @ mean, variance)


def random_lgssm(
    rng: np.random.Generator, state_dim: int = 2, channels: int = 3, inputs: int = 0, *, full_noise: bool = True
) -> LGSSM:
    """A stable model with S0 - Q positive definite, so that it has a package form."""
    rotation, _ = np.linalg.qr(rng.normal(size=(state_dim, state_dim)))
    Q = _random_covariance(rng, state_dim, 0.3)
    R = _random_covariance(rng, channels, 0.5)
    return LGSSM(
        A=rotation * rng.uniform(0.6, 0.95, state_dim),  # singular values in [0.6, 0.95]: stable and invertible
        b=0.3 * rng.normal(size=state_dim),
        B=rng.normal(size=(state_dim, inputs)),
        Q=Q,
        C=rng.normal(size=(channels, state_dim)),
        d=rng.normal(size=channels),
        R=R if full_noise else np.diag(np.diag(R)),
        m0=rng.normal(size=state_dim),
        S0=Q + _random_covariance(rng, state_dim, 0.5),
    )


def simulate_lgssm(
    rng: np.random.Generator, model: LGSSM, num_steps: int, u: Array | None = None
) -> tuple[Array, Array]:
    """States (time, state) and observations (time, channel) of one sequence."""
    u = np.zeros((num_steps, model.B.shape[1])) if u is None else u
    states = [rng.multivariate_normal(model.m0, model.S0)]
    for t in range(1, num_steps):
        states.append(rng.multivariate_normal(model.A @ states[-1] + model.b + model.B @ u[t], model.Q))
    z = np.stack(states)
    return z, z @ model.C.T + model.d + rng.multivariate_normal(np.zeros(len(model.d)), model.R, num_steps)


def hmm_forward(initial: Array, transition: Array, log_likelihood: Array) -> tuple[float, Array]:
    """Log evidence (nats) and smoothed state probabilities (time, state) of a hidden Markov model.

    ``transition[i, j]`` = p(j | i); ``log_likelihood`` is (time, state), log p(y_t | state).
    """
    log_P = np.log(transition)
    forward, backward = np.log(initial) + log_likelihood[0], np.zeros(len(initial))
    alphas, betas = [forward], [backward]
    for t in range(1, len(log_likelihood)):
        forward = special.logsumexp(forward[:, None] + log_P, axis=0) + log_likelihood[t]
        alphas.append(forward)
    for t in reversed(range(1, len(log_likelihood))):
        backward = special.logsumexp(log_P + log_likelihood[t] + backward, axis=1)
        betas.append(backward)
    smoothed = special.softmax(np.stack(alphas) + np.stack(betas[::-1]), axis=1)
    return float(special.logsumexp(forward)), smoothed


def rnn_step(x: Array, h: Array, weights: dict[str, Array], activation: str = "tanh") -> Array:
    """h' = tanh(W_ih x + b_ih + W_hh h + b_hh), or relu. Weights by torch's names, without the layer's suffix."""
    total = weights["weight_ih"] @ x + weights["bias_ih"] + weights["weight_hh"] @ h + weights["bias_hh"]
    return np.tanh(total) if activation == "tanh" else np.maximum(total, 0.0)


def gru_step(x: Array, h: Array, weights: dict[str, Array]) -> Array:
    """One step of the reset-after GRU, whose rows are ordered (reset, update, new), as torch's are.

    r = sigmoid(W_r x + U_r h + b_r);  z likewise;  n = tanh(W_n x + b_in + r * (U_n h + b_hn));  h' = (1 - z) n + z h.
    So z keeps the old state; the update gate of Cho et al. (2014) is 1 - z.
    """
    from_x = np.split(weights["weight_ih"] @ x + weights["bias_ih"], 3)
    from_h = np.split(weights["weight_hh"] @ h + weights["bias_hh"], 3)
    reset, keep = special.expit(from_x[0] + from_h[0]), special.expit(from_x[1] + from_h[1])
    candidate = np.tanh(from_x[2] + reset * from_h[2])
    return (1 - keep) * candidate + keep * h


def lstm_step(x: Array, h: Array, c: Array, weights: dict[str, Array]) -> tuple[Array, Array]:
    """One LSTM step, rows ordered (input, forget, cell, output): c' = f * c + i * g;  h' = o * tanh(c')."""
    total = weights["weight_ih"] @ x + weights["bias_ih"] + weights["weight_hh"] @ h + weights["bias_hh"]
    i, f, g, o = np.split(total, 4)
    c = special.expit(f) * c + special.expit(i) * np.tanh(g)
    return special.expit(o) * np.tanh(c), c


def poisson_log_prob(y: Array, rate: Array, missing: Mask | None = None) -> float:
    """Sum over the observed entries of log Poisson(y; rate), rate in counts per bin."""
    return float(stats.poisson.logpmf(y, rate)[_observed(y, missing)].sum())


def bernoulli_log_prob(y: Array, logits: Array, missing: Mask | None = None) -> float:
    """Sum over the observed entries of log Bernoulli(y; sigmoid(logits))."""
    return float(stats.bernoulli.logpmf(y, special.expit(logits))[_observed(y, missing)].sum())


def gaussian_log_prob(y: Array, mean: Array, covariance: Array, missing: Mask | None = None) -> float:
    """Sum over time of log Normal(y_t; mean_t, covariance) of each step's observed sub-vector."""
    total = 0.0
    for y_t, mean_t, o in zip(y, mean, _observed(y, missing), strict=True):
        if o.any():
            total += stats.multivariate_normal.logpdf(y_t[o], mean_t[o], covariance[np.ix_(o, o)])
    return float(total)


def multinomial_log_prob(y: Array, logits: Array, missing: Mask | None = None) -> float:
    """Sum over time of log Multinomial(y_t; sum_t, softmax(logits_t)), renormalised over the observed categories."""
    total = 0.0
    for y_t, logits_t, o in zip(y, logits, _observed(y, missing), strict=True):
        if o.any():
            total += stats.multinomial.logpmf(y_t[o], y_t[o].sum(), special.softmax(logits_t[o]))
    return float(total)


def categorical_log_prob(y: NDArray[np.int64], logits: Array, missing: Mask | None = None) -> float:
    """Sum over the observed entries of log softmax(logits)[y]; y (time, channel), logits (time, channel, class)."""
    one_hot = np.eye(logits.shape[-1])[y]
    return float(stats.multinomial.logpmf(one_hot, 1, special.softmax(logits, axis=-1))[_observed(y, missing)].sum())


def ar1_covariance(num_steps: int, coefficient: float, scale: float) -> Array:
    """Covariance (time, time) of a stationary AR(1) with marginal standard deviation ``scale``."""
    lag = np.abs(np.subtract.outer(np.arange(num_steps), np.arange(num_steps)))
    return scale**2 * coefficient**lag


def _inputs(model: LGSSM, y: Array, u: Array | None) -> Array:
    return np.zeros((len(y), model.B.shape[1])) if u is None else u


def _observed(y: NDArray[np.generic], missing: Mask | None) -> Mask:
    return np.ones(y.shape, dtype=bool) if missing is None else ~missing


def _symmetric(matrix: Array) -> Array:
    return 0.5 * (matrix + matrix.T)


def _random_covariance(rng: np.random.Generator, size: int, scale: float) -> Array:
    root = rng.normal(size=(size, size))
    return scale * (root @ root.T / size + 0.5 * np.eye(size))
