"""A chain of linear-Gaussian states given what is known of them: Kalman filter, smoother and exact draws.

What heads say of the states comes as information, p(y_t | z_t) = exp(j_t' z_t - z_t' J_t z_t / 2) times a constant, so
that a step costs states cubed however many channels there are. Covariances are carried as square roots (P = N N'),
never subtracted from each other: predicted ones are A N N' A' + Q, filtered ones

    P = L W^-1 L',   W = I + L' J L,   L the Cholesky factor of the predicted covariance

of which W has no eigenvalue below one. Nothing in a covariance depends on what was observed, only on where, so that
sequences without gaps share theirs, and soon have the same at every step.

References:
    Kalman. A new approach to linear filtering and prediction problems. 1960.
    Rauch, Tung, Striebel. Maximum likelihood estimates of linear dynamic systems. 1965.
    Frühwirth-Schnatter. Data augmentation and dynamic linear models. 1994.
    Anderson, Moore. Optimal filtering. 1979.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from latentrnn.models.scans.transforms import gradient_wanted
from latentrnn.support.private_symbols import transforms_active

BETWEEN_LOOKS = 16  # steps after which covariances are looked at again: whether they still change
LAST_DIGITS = 4  # rounding errors that are no change


class Dynamics(NamedTuple):
    """z_0 ~ Normal(m, diag(s^2));  z_t ~ Normal(A z_{t-1} + c_t, diag(q^2)), and Normal(0, I) in padding.

    Draws of parameters lead with axes (*sample, 1).

    Attributes:
        weight: A, (..., state, state).
        offset: c_{1:T}, (..., time, state).
        scale: q, (..., state), positive.
        initial_loc, initial_scale: m and s, (..., state); s may be zero.
        valid: booleans (sequence, time), False in padding; None where there is none.
    """

    weight: Tensor
    offset: Tensor
    scale: Tensor
    initial_loc: Tensor
    initial_scale: Tensor
    valid: Tensor | None = None

    @property
    def batch_shape(self) -> torch.Size:
        """The leading axes that parameters and inputs have, those of the covariances and of the offset together."""
        return torch.broadcast_shapes(self.covariance_shape, self.offset.shape[:-2], self.initial_loc.shape[:-1])

    @property
    def covariance_shape(self) -> torch.Size:
        """The leading axes of what prior covariances depend on."""
        padding = torch.Size() if self.valid is None else self.valid.shape[:1]
        scales = self.scale.shape[:-1], self.initial_scale.shape[:-1]
        return torch.broadcast_shapes(self.weight.shape[:-2], *scales, padding)

    @property
    def weights(self) -> Tensor:
        """A of every step, (..., time or 1, state, state), zero into padding."""
        weight = self.weight.unsqueeze(-3)
        return weight if self.valid is None else weight * self.valid[..., None, None]

    @property
    def offsets(self) -> Tensor:
        """c of every step, (..., time, state), zero in padding."""
        return self.offset if self.valid is None else self.offset * self.valid.unsqueeze(-1)

    @property
    def covariances(self) -> Tensor:
        """Q of every step, (..., time or 1, state, state), the identity in padding."""
        noise = torch.diag_embed(self.scale**2).unsqueeze(-3)
        return noise if self.valid is None else torch.where(self.valid[..., None, None], noise, identity_like(noise))


class Information(NamedTuple):
    """What is said of the states: J, (..., time, state, state), of length one in time where all are alike, and j."""

    precision: Tensor
    vector: Tensor

    def joined(self, other: Information) -> Information:
        """Return what both say, independently of each other given the states."""
        return Information(self.precision + other.precision, self.vector + other.vector)

    def beside(self, other: Information, dynamics: Dynamics) -> Information:
        """Return this and another, of two chains with the same dynamics, on a new axis of length two before all."""
        axes = max(self.vector.dim(), other.vector.dim(), len(dynamics.batch_shape) + 2)
        vectors = [part.reshape(*[1] * (axes - part.dim()), *part.shape) for part in (self.vector, other.vector)]
        matrices = [
            part.reshape(*[1] * (axes + 1 - part.dim()), *part.shape) for part in (self.precision, other.precision)
        ]
        return Information(*(torch.stack(torch.broadcast_tensors(*parts)) for parts in (matrices, vectors)))

    @classmethod
    def none(cls, dynamics: Dynamics) -> Information:
        """Nothing at all."""
        like = dynamics.offset
        return cls(like.new_zeros(1, *[like.shape[-1]] * 2), like.new_zeros(like.shape[-2:]))


class Filtered(NamedTuple):
    """What is known of every state from the past, and from past and present.

    Attributes:
        dynamics: of the chain.
        predicted_loc, predicted_tril: mean (..., time, state) of z_t before step t is seen, and the lower-triangular
            root of its covariance (..., time, state, state).
        loc, root: mean of z_t when it is, and a square root N of its covariance, P = N N'.
        log_det: half the log determinant by which step t divides the volume of the predicted covariance, (..., time).
    """

    dynamics: Dynamics
    predicted_loc: Tensor
    predicted_tril: Tensor
    loc: Tensor
    root: Tensor
    log_det: Tensor

    @property
    def log_normaliser(self) -> Tensor:
        """log p(y_{1:T}) less what the heads' log-densities at `loc` add up to, nats, (...).

        log p(y_t | y_{<t}) = log p(y_t | z_t) + log p(z_t | y_{<t}) - log p(z_t | y_{<=t}), taken at the filtered mean:
        no difference of large numbers is left.
        """
        inverse = torch.linalg.solve_triangular(self.predicted_tril, identity_like(self.predicted_tril), upper=False)
        moved = times(inverse, self.loc - self.predicted_loc)
        return -(0.5 * moved.square().sum(-1) + self.log_det).sum(-1)


class Moments(NamedTuple):
    """Mean (..., state) of a state given all up to its step, and a square root N of its covariance, P = N N'."""

    loc: Tensor
    root: Tensor


class Smoothed(NamedTuple):
    """Mean (..., time, state) and covariance (..., time, state, state) of every state given all steps."""

    loc: Tensor
    covariance: Tensor

    @property
    def scale(self) -> Tensor:
        """Standard deviations, (..., time, state)."""
        return self.covariance.diagonal(dim1=-2, dim2=-1).sqrt()


def kalman_filter(dynamics: Dynamics, information: Information) -> Filtered:
    """Filter; gradients of all that comes in go through."""
    tril, root, log_det = _filtered_roots(dynamics, information.precision)
    covariance = root @ root.mT
    shrinkage = identity_like(root) - covariance @ information.precision  # what is left of the predicted mean
    loc = recursion(
        shrinkage @ dynamics.weights,
        times(shrinkage, dynamics.offsets) + times(covariance, information.vector),
        dynamics.initial_loc,
    )
    start = dynamics.initial_loc.unsqueeze(-2).expand(*loc.shape[:-2], 1, -1)
    predicted = times(dynamics.weights, torch.cat([start, loc[..., :-1, :]], -2)) + dynamics.offsets
    return Filtered(dynamics, predicted, tril, loc, root, log_det)


def filter_step(dynamics: Dynamics, information: Information, before: Moments | None) -> Filtered:
    """Filter a chain of one step that goes on from the moments of the step before; None where it begins."""
    if before is None:
        before = Moments(dynamics.initial_loc, torch.diag_embed(dynamics.initial_scale))
    given = dynamics.weights, dynamics.covariances, information.precision
    batch = torch.broadcast_shapes(*(part.shape[:-3] for part in given), before.root.shape[:-2])
    identity = identity_like(information.precision)
    weight, noise, seen = (_of_steps(part, batch, 1)[0] for part in given)
    root = before.root.expand(*batch, *identity.shape).reshape(-1, *identity.shape)
    tril, root, diagonal, failure = _next_roots(root, weight, noise, seen, identity)
    broken = (failure != 0)[:, None, None]
    tril, root = (part.masked_fill(broken, torch.nan).reshape(*batch, 1, *identity.shape) for part in (tril, root))
    log_det = diagonal.log().sum(-1, keepdim=True).masked_fill(broken[..., 0], torch.nan).reshape(*batch, 1)
    predicted = times(dynamics.weights, before.loc.unsqueeze(-2)) + dynamics.offsets
    covariance = root @ root.mT
    loc = predicted + times(covariance, information.vector - times(information.precision, predicted))
    return Filtered(dynamics, predicted, tril, loc, root, log_det)


def smooth(filtered: Filtered) -> Smoothed:
    """Return the moments of every state given all steps, from the last one back (Rauch, Tung and Striebel)."""
    gain, rest = _backward(filtered)
    loc = _backward_recursion(filtered, gain, filtered.loc, torch.zeros_like(filtered.loc))
    last = filtered.root[..., -1:, :, :]
    last = last @ last.mT
    before = matrix_recursion(gain.flip(-3), (rest @ rest.mT).flip(-3), last.squeeze(-3)).flip(-3)
    return Smoothed(loc, torch.cat([before.expand(*last.shape[:-3], *before.shape[-3:]), last], -3))


@torch.no_grad()
def draw(filtered: Filtered, batch: torch.Size) -> Tensor:
    """Return draws of z_{1:T} given all steps, (*batch, time, state): filtering ahead, sampling back."""
    gain, rest = _backward(filtered)
    loc = filtered.loc.expand(*batch, *filtered.loc.shape[-2:])
    root = torch.cat([rest, filtered.root[..., -1:, :, :]], -3)
    return _backward_recursion(filtered, gain, loc, times(root, torch.randn_like(loc)))


def identity_like(matrices: Tensor) -> Tensor:
    """Return one identity of the size of these matrices."""
    return torch.eye(matrices.shape[-1], dtype=matrices.dtype, device=matrices.device)


def times(matrices: Tensor, vectors: Tensor) -> Tensor:
    """Return M_t v_t, (..., time, size), of (..., time or 1, size, state) and (..., time, state)."""
    return (matrices @ vectors.unsqueeze(-1)).squeeze(-1)


def _filtered_roots(dynamics: Dynamics, precision: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the roots of predicted and of filtered covariances, and half the log determinants of W."""
    batch = torch.broadcast_shapes(dynamics.covariance_shape, precision.shape[:-3])
    steps, identity = dynamics.offset.shape[-2], identity_like(precision)
    given = dynamics.weights, dynamics.covariances, precision
    alike = all(part.shape[-3] == 1 for part in given) and not gradient_wanted(*given, dynamics.initial_scale)
    settles = alike and precision.device.type == "cpu" and not transforms_active()  # what others cannot be asked
    root = torch.diag_embed(dynamics.initial_scale).expand(*batch, *identity.shape).reshape(-1, *identity.shape)
    found: list[tuple[Tensor, ...]] = []
    for weight, noise, seen in zip(*(_of_steps(part, batch, steps) for part in given), strict=True):
        tril, root, diagonal, failure = _next_roots(root, weight, noise, seen, identity)
        found.append((tril, root, diagonal, failure))
        if settles and len(found) % BETWEEN_LOOKS == 0 and _settled(tril, found[-BETWEEN_LOOKS // 2][0]):
            found += found[-1:] * (steps - len(found))
            break
    trils, roots, factors, failures = (torch.stack(part, 1) for part in zip(*found, strict=True))
    # a covariance that is singular to the last digit has no root, and what follows from it is unknown
    failed = (failures != 0).any(1).reshape(-1, 1)
    broken = failed[..., None, None]
    log_det = factors.log().sum(-1).masked_fill(failed, torch.nan).reshape(*batch, steps)
    trils, roots = (
        part.masked_fill(broken, torch.nan).reshape(*batch, steps, *identity.shape) for part in (trils, roots)
    )
    return trils, roots, log_det


def _next_roots(root: Tensor, weight: Tensor, noise: Tensor, seen: Tensor, identity: Tensor) -> tuple[Tensor, ...]:
    """Return the roots of the next predicted and filtered covariance, the diagonal of W's factor, and what failed.

    Args:
        root: of the filtered covariance of the step before, (row, state, state).
        weight, noise, seen: A, Q and J of the step, (row, state, state).
        identity: one of them, (state, state).
    """
    moved = weight @ root
    # no check at every step: waiting for the device would cost more than the step
    tril, failure = torch.linalg.cholesky_ex(torch.baddbmm(noise, moved, moved.mT))
    factor = torch.linalg.cholesky_ex(torch.baddbmm(identity, tril.mT @ seen, tril)).L
    root = torch.linalg.solve_triangular(factor, tril.mT, upper=False).mT
    return tril, root, factor.diagonal(dim1=-2, dim2=-1), failure


def _settled(tril: Tensor, before: Tensor) -> bool:
    """Return whether a covariance is what it was some steps before, to the last digits of every state's own scale."""
    most = LAST_DIGITS * torch.finfo(tril.dtype).eps * tril.norm(dim=-1, keepdim=True)
    return bool(((tril - before).abs() <= most).all())


def _backward(filtered: Filtered) -> tuple[Tensor, Tensor]:
    """Return K_t and R_t, (..., time - 1, state, state), of z_t = loc_t + K_t (z_{t+1} - predicted_{t+1}) + R_t e_t."""
    dynamics, root = filtered.dynamics, filtered.root[..., :-1, :, :]
    weights = dynamics.weights if dynamics.valid is None else dynamics.weights[..., 1:, :, :]
    moved = weights @ root
    gain = root @ torch.cholesky_solve(moved, filtered.predicted_tril[..., 1:, :, :]).mT
    standard = moved / dynamics.scale[..., None, :, None]
    factor = torch.linalg.cholesky(standard.mT @ standard + identity_like(root))
    return gain, torch.linalg.solve_triangular(factor, root.mT, upper=False).mT


def _backward_recursion(filtered: Filtered, gain: Tensor, loc: Tensor, noise: Tensor) -> Tensor:
    """Return x_t = loc_t + K_t (x_{t+1} - predicted_{t+1}) + noise_t, x_T = loc_T + noise_T, (..., time, state)."""
    last = loc[..., -1, :] + noise[..., -1, :]
    own = loc[..., :-1, :] + noise[..., :-1, :] - times(gain, filtered.predicted_loc[..., 1:, :])
    before = recursion(gain.flip(-3), own.flip(-2), last).flip(-2)
    return torch.cat([before, last.unsqueeze(-2)], -2)


def recursion(matrices: Tensor, vectors: Tensor, start: Tensor) -> Tensor:
    """Return x_t = M_t x_{t-1} + v_t from x_0 on, (..., sequence, time, state).

    Args:
        matrices: M, (..., [sequence or 1,] time or 1, state, state).
        vectors: v, (..., sequence, time, state).
        start: x_0, (..., [sequence,] state).
    """
    steps, size = vectors.shape[-2:]
    batch = torch.broadcast_shapes(vectors.shape[:-2], matrices.shape[:-3], start.shape[:-1])
    vectors, start = vectors.expand(*batch, steps, size), start.expand(*batch, size)
    # sequences that share their matrices are columns of one product
    shared = matrices.dim() == 3 or matrices.shape[-4] == 1
    if shared:
        matrices = matrices if matrices.dim() == 3 else matrices.squeeze(-4)
        vectors, state, rows = vectors.movedim(-3, -1), start.mT, batch[:-1]
    else:
        vectors, state, rows = vectors.unsqueeze(-1), start.unsqueeze(-1), batch
    columns, found = vectors.shape[-1], []
    state = state.reshape(-1, size, columns)
    of_steps = vectors.reshape(rows.numel(), steps, size, columns).unbind(1)
    for matrix, vector in zip(_of_steps(matrices, rows, steps), of_steps, strict=True):
        state = torch.baddbmm(vector, matrix, state)
        found.append(state)
    path = (torch.stack(found, 1) if found else vectors).reshape(*rows, steps, size, columns)
    return path.movedim(-1, -3) if shared else path.squeeze(-1)


def matrix_recursion(matrices: Tensor, additions: Tensor, start: Tensor) -> Tensor:
    """Return X_t = M_t X_{t-1} M_t' + D_t from X_0 on, (..., time, state, state).

    Args:
        matrices: M, (..., time or 1, state, state).
        additions: D, (..., time, state, state), or of length one in time where M is not.
        start: X_0, (..., state, state).
    """
    steps = max(matrices.shape[-3], additions.shape[-3])
    batch = torch.broadcast_shapes(matrices.shape[:-3], additions.shape[:-3], start.shape[:-2])
    state, found = start.expand(*batch, *start.shape[-2:]).reshape(-1, *start.shape[-2:]), []
    for matrix, addition in zip(*(_of_steps(part, batch, steps) for part in (matrices, additions)), strict=True):
        state = torch.baddbmm(addition, matrix @ state, matrix.mT)
        found.append(state)
    path = torch.stack(found, 1) if found else state.new_zeros(len(state), 0, *state.shape[-2:])
    return path.reshape(*batch, *path.shape[1:])


def _of_steps(matrices: Tensor, batch: torch.Size, steps: int) -> tuple[Tensor, ...]:
    """Return the matrices of every step, (row, state, state), of (..., time or 1, state, state)."""
    shape = matrices.shape[-3:]
    found = matrices.expand(*batch, *shape).reshape(batch.numel(), *shape).unbind(1)
    return found if len(found) == steps else found * steps
