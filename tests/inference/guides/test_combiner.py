"""The deep Markov model's own guide: its loop against the formula, and its backward against differences."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import latentrnn as lr
from latentrnn.inference.guides.families.combiner import combiner_scan
from latentrnn.inference.guides.families.markov import MarkovPath
from latentrnn.models.scans import packed_layout
from tests.registry import OBSERVATIONS, make_data, make_model, shake

CASES = {
    "one step": ((), 1, None),
    "several steps": ((), 4, None),
    "padding": ((), 4, (4, 2, 1)),
    "samples, padding": ((2, 2), 3, (1, 3, 2)),
    "a sequence without steps": ((), 3, (3, 0, 2)),
    "no steps at all": ((2,), 3, (0, 0, 0)),
}
every_case = pytest.mark.parametrize("case", CASES)


@pytest.fixture(params=["rows leave", "rows stay"], autouse=True)
def padding(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that have ended leave the loop on a CPU, and stay in it on a GPU."""
    if request.param == "rows stay":
        monkeypatch.setattr(packed_layout, "order_of", lambda valid, shape: None)


def arguments(case: str) -> tuple[tuple[Tensor, ...], Tensor, Tensor | None]:
    """Start, features and weights that want gradients; noise; what is valid. Three sequences, dim 2, hidden 3."""
    sample, steps, lengths = CASES[case]
    generator = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    wanted = [draw(*sample, 3, 2), draw(3, steps, 3), *(draw(*s) for s in ((3, 2), (3,), (4, 3), (4,)))]
    valid = None if lengths is None else torch.arange(steps) < torch.tensor(lengths)[:, None]
    return tuple(t.requires_grad_() for t in wanted), draw(*sample, 3, steps, 2), valid


def run(wanted: tuple[Tensor, ...], noise: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
    start, features, *weights = wanted
    return combiner_scan(start, features, noise, valid, *weights)


def written_out(wanted: tuple[Tensor, ...], noise: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
    """The formula of the guide, followed by autograd."""
    z, features, recurrent, bias, out, out_bias = wanted
    path, scales = [], []
    for t in range(noise.shape[-2]):
        x = (torch.tanh(z @ recurrent.T + bias) + features[:, t]) / 2
        numbers = x @ out.T + out_bias
        scale = F.softplus(numbers[..., 2:] + torch.tensor(0.3, dtype=torch.float64).expm1().log()) + 1e-5
        z = numbers[..., :2] + scale * noise[..., t, :]
        if valid is not None:
            z = torch.where(valid[:, t, None], z, noise[..., t, :])
            scale = torch.where(valid[:, t, None], scale, 1.0)
        path.append(z)
        scales.append(scale)
    return torch.stack(path, -2), torch.stack(scales, -2)


@every_case
def test_values_and_gradients_are_those_of_the_formula(case: str) -> None:
    wanted, noise, valid = arguments(case)
    found, expected = run(wanted, noise, valid), written_out(wanted, noise, valid)
    for own, other in zip(found, expected, strict=True):
        torch.testing.assert_close(own, other, rtol=0, atol=1e-12)
    generator = torch.Generator().manual_seed(5)
    weights = [torch.randn(noise.shape, generator=generator, dtype=torch.float64) for _ in range(2)]
    for chosen in ([0], [1], [0, 1]):  # gradients into the draw alone, into the scales alone, into both
        totals = [sum((weights[k] * results[k]).sum() for k in chosen) for results in (found, expected)]
        totals = [total + 0.0 * sum(w.sum() for w in wanted) for total in totals]  # where there are no steps at all
        gradients = [torch.autograd.grad(total, wanted, retain_graph=True, allow_unused=True) for total in totals]
        for own, other in zip(*gradients, strict=True):
            assert other is not None or own is None or not own.any()
            if other is not None:
                torch.testing.assert_close(own, other, rtol=0, atol=1e-11)


@every_case
def test_derivatives_are_those_of_differences(case: str) -> None:
    wanted, noise, valid = arguments(case)
    assert torch.autograd.gradcheck(lambda *w: run(w, noise, valid), wanted)
    if case == "padding":
        assert torch.autograd.gradgradcheck(lambda *w: run(w, noise, valid), wanted, atol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(run(wanted, noise, valid), written_out(wanted, noise, valid), rtol=0, atol=1e-12)


def test_a_draw_has_the_density_of_its_value() -> None:
    data = make_data(OBSERVATIONS["poisson"])
    model, _ = make_model("gru", "markov normal", "poisson", data)
    guide = lr.Guide(model, encoder=lr.RNNEncoder(4), family=lr.Combiner()).double()
    shake(guide)
    start = torch.randn(3, 4, dtype=torch.float64)
    path = MarkovPath(
        guide.local.steps["states"], guide.variational_parameters(data)["states"], start, data.valid
    ).expand((6, 3))
    z = path.rsample()
    densities = path.log_prob(z), path.log_prob(z.clone())
    torch.testing.assert_close(*densities, rtol=0, atol=1e-10)
    weights = [guide.local.steps["states"].recurrent.weight, guide.local.steps["states"].out.bias]
    one, two = (torch.autograd.grad(d.sum(), weights, retain_graph=True) for d in densities)
    for own, other in zip(one, two, strict=True):
        assert other.abs().max() > 1e-3
        torch.testing.assert_close(own, other, rtol=0, atol=1e-9)
