"""h_t = a_t h_{t-1} + b_t for all steps at once, in a number of operations that grows with the logarithm of time."""

from __future__ import annotations

import torch
from torch import Tensor


def linear_recurrence(retention: Tensor, projected: Tensor, state: Tensor) -> Tensor:
    """Return h_{1:T} of h_t = a_t * h_{t-1} + b_t.

    Two steps after one another are one step of the same form, so neighbours are joined in pairs, pairs in fours, and
    so on: 2 log2(T) vectorised operations, work linear in T, and no division, so that small a_t do no harm.

    Args:
        retention: a_{1:T}, real or complex, broadcastable to `projected`.
        projected: b_{1:T}, (..., time, size).
        state: h_0, (..., size); its leading axes broadcast against those of `projected`.

    Returns:
        (..., time, size).

    References:
        Blelloch. Prefix sums and their applications. 1990.
        Martin, Cundy. Parallelizing linear recurrent neural nets over sequence length. 2018.
    """
    shape = torch.broadcast_shapes(projected.shape, (*state.shape[:-1], *projected.shape[-2:]))
    retention, projected = retention.expand(shape), projected.expand(shape)
    first = projected[..., :1, :] + retention[..., :1, :] * state.unsqueeze(-2)
    return _joined(retention, torch.cat([first, projected[..., 1:, :]], -2))


def _joined(a: Tensor, b: Tensor) -> Tensor:
    steps = b.shape[-2]
    if steps == 1:
        return b
    pairs = steps // 2 * 2
    a_odd, b_even = a[..., 1:pairs:2, :], b[..., 0:pairs:2, :]
    odd = _joined(a_odd * a[..., 0:pairs:2, :], a_odd * b_even + b[..., 1:pairs:2, :])  # h_2, h_4, ...
    rest = b[..., 2::2, :] + a[..., 2::2, :] * odd[..., : (steps - 1) // 2, :]
    even = torch.cat([b[..., :1, :], rest], -2)  # h_1, h_3, ...
    woven = torch.stack([even[..., : pairs // 2, :], odd], -2).flatten(-3, -2)
    return woven if pairs == steps else torch.cat([woven, even[..., -1:, :]], -2)
