"""The loop of a Markov guide against the same steps followed by autograd, and its backward against differences."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import latentrnn as lr
from latentrnn.inference.guides.families.markov import MarkovPath
from latentrnn.inference.guides.families.markov_scan import MarkovWeights, markov_scan
from latentrnn.models.scans import packed_layout
from tests.registry import OBSERVATIONS, make_data, make_model, shake

CASES = {
    "one step": ((), 1, None),
    "several steps": ((), 4, None),
    "padding": ((), 4, (4, 2, 1)),
    "samples": ((2,), 3, None),
    "samples, padding": ((2, 2), 3, (1, 3, 2)),
    "a sequence without steps": ((), 3, (3, 0, 2)),
    "no steps at all": ((2,), 3, (0, 0, 0)),
    "a mixing of each step": ((), 4, None),
    "a mixing of each step, samples, padding": ((2,), 3, (1, 3, 2)),
}
every_case = pytest.mark.parametrize("case", CASES)


@pytest.fixture(params=["rows leave", "rows stay"], autouse=True)
def padding(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that have ended leave the loop on a CPU, and stay in it on a GPU."""
    if request.param == "rows stay":
        monkeypatch.setattr(packed_layout, "order_of", lambda valid, shape: None)


def arguments(case: str) -> tuple[tuple[Tensor, ...], Tensor, Tensor | None]:
    """Start, numbers and weights that want gradients; noise; what is valid. Three sequences, dim 2, hidden 3."""
    sample, steps, lengths = CASES[case]
    generator = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    mixing = (3, steps, 2, 2) if "mixing" in case else (2, 2)
    wanted = [draw(*sample, 3, 2), draw(3, steps, 7), *(draw(*s) for s in ((3, 2), (2, 2), (4, 3), mixing))]
    valid = None if lengths is None else torch.arange(steps) < torch.tensor(lengths)[:, None]
    return tuple(t.requires_grad_() for t in wanted), draw(*sample, 3, steps, 2), valid


def run(wanted: tuple[Tensor, ...], noise: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
    start, numbers, *weights = wanted
    return markov_scan(start, numbers, noise, valid, MarkovWeights(*weights))


def written_out(wanted: tuple[Tensor, ...], noise: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
    """The formula of the guide, entry by entry of the batch."""
    start, numbers, recurrent, dynamics, out, mixing = wanted
    leading, steps = noise.shape[:-2], noise.shape[-2]
    path, scales = torch.zeros(noise.shape, dtype=noise.dtype), torch.zeros(noise.shape, dtype=noise.dtype)
    for index in torch.cartesian_prod(*(torch.arange(n) for n in leading)).reshape(-1, len(leading)).tolist():
        z, sequence = start[tuple(index)], index[-1]
        for t in range(steps):
            e, l_t, r = numbers[sequence, t].split([3, 2, 2])
            x = torch.tanh(recurrent @ z + e)
            scale = torch.log(1 + torch.exp(out[2:] @ x + r + torch.tensor(0.3, dtype=torch.float64).expm1().log()))
            scale = scale + 1e-5
            mixing_t = mixing if mixing.dim() == 2 else mixing[sequence, t]
            z = dynamics @ z + out[:2] @ x + l_t + mixing_t @ (scale * noise[(*index, t)])
            if valid is not None and not valid[sequence, t]:
                z, scale = noise[(*index, t)], torch.ones(2, dtype=torch.float64)
            path = path.index_put(tuple(torch.tensor(i) for i in (*index, t)), z)
            scales = scales.index_put(tuple(torch.tensor(i) for i in (*index, t)), scale)
    return path, scales


@every_case
def test_values_and_gradients_are_those_of_the_formula(case: str) -> None:
    wanted, noise, valid = arguments(case)
    found, expected = run(wanted, noise, valid), written_out(wanted, noise, valid)
    weighting = torch.Generator().manual_seed(5)
    weights = [torch.randn(noise.shape, generator=weighting, dtype=torch.float64) for _ in range(2)]
    for own, other in zip(found, expected, strict=True):
        torch.testing.assert_close(own, other, rtol=0, atol=1e-12)
    for chosen in ([0], [1], [0, 1]):  # gradients into the draw alone, into the scales alone, into both
        totals = [sum((weights[k] * results[k]).sum() for k in chosen) for results in (found, expected)]
        totals = [total + 0.0 * sum(w.sum() for w in wanted) for total in totals]  # where there are no steps at all
        gradients = [torch.autograd.grad(total, wanted, retain_graph=True, allow_unused=True) for total in totals]
        for own, other in zip(*gradients, strict=True):
            assert other is not None or own is None or not own.any()
            if other is not None:
                torch.testing.assert_close(own, other, rtol=0, atol=1e-11)


@every_case
def test_first_and_second_derivatives_are_those_of_differences(case: str) -> None:
    wanted, noise, valid = arguments(case)
    assert torch.autograd.gradcheck(lambda *w: run(w, noise, valid), wanted)
    if case in ("several steps", "padding", "a mixing of each step"):
        assert torch.autograd.gradgradcheck(lambda *w: run(w, noise, valid), wanted, atol=1e-4)


@every_case
def test_without_gradients_it_draws_the_same(case: str) -> None:
    wanted, noise, valid = arguments(case)
    with torch.no_grad():
        found = run(wanted, noise, valid)
    for own, other in zip(found, run(wanted, noise, valid), strict=True):
        torch.testing.assert_close(own, other, rtol=0, atol=1e-14)


def test_it_goes_through_functional_transforms() -> None:
    wanted, noise, valid = arguments("padding")
    start, numbers, *weights = (w.detach() for w in wanted)

    def total(numbers: Tensor) -> Tensor:
        return run((start, numbers, *weights), noise, valid)[0].square().sum()

    several = torch.stack([numbers, numbers + 0.1])
    each = torch.func.vmap(torch.func.grad(total))(several)
    for chosen, own in zip(several, each, strict=True):
        chosen.requires_grad_()
        (expected,) = torch.autograd.grad(total(chosen), chosen)
        torch.testing.assert_close(own, expected, rtol=0, atol=1e-11)


def drawn_path(mixing: str = "shared") -> tuple[lr.Guide, MarkovPath]:
    """A path of a guide of ragged sequences, with what lies before the first step."""
    data = make_data(OBSERVATIONS["poisson"])
    model, _ = make_model("gru", "markov normal", "poisson", data)
    guide = lr.Guide(model, encoder=lr.RNNEncoder(4), family=lr.Markov(5, mixing=mixing)).double()
    shake(guide)
    start = torch.randn(3, 4, dtype=torch.float64)
    numbers = guide.variational_parameters(data)["states"]
    return guide, MarkovPath(guide.local.steps["states"], numbers, start, data.valid)


@pytest.mark.parametrize("mixing", ["shared", "step"])
@pytest.mark.parametrize("sample", [(), (6,)])
def test_a_draw_has_the_density_of_its_value(sample: tuple[int, ...], mixing: str) -> None:
    """What the draw remembers of itself gives the density, and its whole gradient, of the value as any other."""
    guide, path = drawn_path(mixing)
    torch.manual_seed(0)
    path = path.expand((*sample, 3))
    z = path.rsample()
    densities = path.log_prob(z), path.log_prob(z.clone())
    torch.testing.assert_close(*densities, rtol=0, atol=1e-10)
    names, parameters = zip(*guide.named_parameters(), strict=True)
    own, other = (torch.autograd.grad(d.sum(), parameters, retain_graph=True, allow_unused=True) for d in densities)
    assert sum(gradient is not None and bool(gradient.abs().max() > 1e-3) for gradient in own) > 5
    for name, one, two in zip(names, own, other, strict=True):
        if two is not None:
            one = torch.zeros_like(two) if one is None else one
            torch.testing.assert_close(one, two, rtol=0, atol=1e-9, msg=lambda text, name=name: f"{name}: {text}")


def test_a_value_drawn_without_a_graph_is_scored_with_one() -> None:
    guide, path = drawn_path()
    z = path.sample()
    assert not z.requires_grad
    found = path.log_prob(z)
    parameters = [guide.local.steps["states"].recurrent.weight, guide.local.steps["states"].noise.mixing]
    expected = path.log_prob(z.clone())
    for own, other in zip(
        torch.autograd.grad(found.sum(), parameters, retain_graph=True),
        torch.autograd.grad(expected.sum(), parameters),
        strict=True,
    ):
        assert other.abs().max() > 1e-3
        torch.testing.assert_close(own, other)
    with torch.no_grad():
        torch.testing.assert_close(path.log_prob(z), expected, rtol=0, atol=1e-10)
