"""Members whose steps are taken together are the fits that they would be alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch

import latentrnn as lr
from latentrnn.models.scans import layer_of, run, run_directions, vmap_over_members

SEEDS = [0, 1, 2]


def make_data(*, missing: bool = False, ragged: bool = False) -> lr.SequenceData:
    rng = np.random.default_rng(0)
    counts = rng.poisson(1.0, (18, 6, 3)).astype(float)
    counts[rng.random(counts.shape) < 0.2 * missing] = np.nan
    drive = rng.normal(size=(18, 6, 1))
    if ragged:
        return lr.SequenceData.from_arrays({"y": [c[: 4 + k % 3] for k, c in enumerate(counts)]}, dt=0.01)
    return lr.SequenceData.from_arrays({"y": counts}, {"drive": drive}, dt=0.01)


# what differs from the defaults below; the last batch of a pass is smaller
KINDS: dict[str, Callable[[], dict[str, Any]]] = {
    "defaults": dict,
    # the first step leads nowhere, those after it are small
    "rollback": lambda: {
        "objective": lr.ELBO(kl=lr.KLWarmUp(0.0)),
        "optimizer": lr.Adam(learning_rate=1e4, rollback=lr.Rollback(factor=1e-6)),
    },
    "early stopping": lambda: {
        "optimizer": lr.Adam(learning_rate=0.3),
        "stopping": lr.EarlyStopping(every=1, patience=3),
        "steps": 30,
        "objective": lr.ELBO(kl=lr.KLWarmUp(0.0)),
    },
    "one batch": lambda: {"optimizer": lr.AdamW(averaging=0.9), "batch_size": 64},
    "missing": lambda: {"data": make_data(missing=True), "objective": lr.ELBO(coordinated_dropout=0.3)},
    "priors": lambda: {"head": lr.Poisson(priors={"weight": dist.Normal(0.0, 1.0)})},
    "network prior": lambda: {
        "transition": lr.GRU(4, priors={"weights": lr.NetworkPrior()}),
        "head": lr.Poisson(priors={"weights": lr.NetworkPrior()}),
    },
    "chain": lambda: {"guide": {"family": lr.GaussianChain()}},
    "markov": lambda: {
        "transition": lr.VanillaRNN(4),
        "latent": lr.MarkovNormal(),
        "guide": {"family": lr.Markov(3)},
        "objective": lr.ELBO(num_particles=3),
    },
    "zoneout": lambda: {
        "transition": lr.GRU(4, zoneout=0.2),
        "objective": lr.IWAE(doubly_reparameterised=False, num_particles=2),
    },
    "fivo": lambda: {"objective": lr.FIVO(num_particles=3), "compute": lr.Compute("cpu", matmul_precision="highest")},
    "lstm": lambda: {"transition": lr.LSTM(4, layers=2), "guide": {"encoder": lr.RNNEncoder(3, layers=2)}},
    "recurrent": lambda: {"latent": lr.RecurrentNormal(2), "optimizer": lr.AdamW(schedule=lr.Plateau(1))},
    "switch": lambda: {"latent": lr.RelaxedDiscrete(2), "objective": lr.ELBO(sticking_the_landing=True)},
    "gaussian": lambda: {"head": lr.Gaussian(covariance="full"), "transition": lr.LeakyIntegrator(4)},
}
QUICK = ["defaults", "early stopping", "rollback", "missing"]


def setting(**settings: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    data = settings.pop("data", make_data())
    parts = {"transition": lr.GRU(4), "latent": lr.Innovations(2), "head": lr.Poisson(), "guide": {}}
    parts |= {name: settings.pop(name) for name in list(settings) if name in parts}
    model = lr.LatentRNN(
        data.spec, transition=parts["transition"], latent=parts["latent"], observations={"y": parts["head"]},
        max_elements=settings.pop("max_elements", None),
    )  # fmt: skip
    guide = lr.Guide(model, **({"encoder": lr.RNNEncoder(3)} | parts["guide"]))
    defaults = {
        "steps": 12,
        "batch_size": 5,
        "stopping": lr.EarlyStopping(every=5),
        "reporting": lr.Reporting(progress=False, every=2),
        "compute": lr.Compute(device="cpu"),
    }
    return (model, guide, data[:13], data[13:]), defaults | settings


def assert_same(found: lr.FitResult, expected: lr.FitResult) -> None:
    for part in ("model", "guide"):
        for name, value in getattr(expected, part).state_dict().items():
            torch.testing.assert_close(getattr(found, part).state_dict()[name], value, rtol=1e-4, atol=1e-5)
    assert found.history.keys() == expected.history.keys()
    for name, values in expected.history.items():
        assert found.history[name] == pytest.approx(values, rel=1e-4, abs=1e-4, nan_ok=True), name
    for name in ("best_step", "stop_reason", "seed", "settings", "used"):
        assert getattr(found, name) == getattr(expected, name), name
    assert [event.split(",")[0] for event in found.events] == [event.split(",")[0] for event in expected.events]


@pytest.mark.parametrize(
    "name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in KINDS if name not in QUICK)]
)
def test_members_are_the_fits_of_their_seeds(name: str) -> None:
    given, settings = setting(**KINDS[name]())
    generators = torch.get_rng_state()
    found = lr.fit_ensemble(*given, seeds=SEEDS, vectorised=True, **settings)
    assert torch.equal(torch.get_rng_state(), generators)
    for member, seed in zip(found.members, SEEDS, strict=True):
        assert_same(member, lr.fit(*given, seed=seed, **settings))
    first, second = (member.model.transition.state_dict() for member in found.members[:2])
    assert any(not torch.equal(value, second[key]) for key, value in first.items())


def make_windows() -> lr.SequenceData:
    """Windows of one length, the first of each sequence without context, so that batches differ in what is scored."""
    counts = np.random.default_rng(0).poisson(1.0, (5, 6, 3)).astype(float)
    return lr.SequenceData.from_arrays({"y": counts}, dt=0.01).windows(4, context=2)


@pytest.mark.parametrize("latent", [lr.Innovations(2), lr.Discrete(2)])
def test_context_is_not_scored_of_any_member(latent: Any) -> None:
    data = make_windows()
    assert set(data.host_context.tolist()) == {0, 2}
    settings: dict[str, Any] = {
        "steps": 10,
        "batch_size": 1,
        "reporting": lr.Reporting(every=1, progress=False),
        "compute": lr.Compute(device="cpu"),
    }
    model = lr.LatentRNN(data.spec, transition=lr.GRU(4), latent=latent, observations={"y": lr.Poisson()})
    guide = lr.Guide(model, encoder=lr.RNNEncoder(3) if model.latent_sites() else None)
    found = lr.fit_ensemble(model, guide, data, seeds=range(4), vectorised=True, **settings)
    for member in found.members:
        assert_same(member, lr.fit(model, guide, data, seed=member.seed, **settings))


def test_members_own_their_weights() -> None:
    given, settings = setting(steps=2)
    found = lr.fit_ensemble(*given, seeds=SEEDS, vectorised=True, **settings).members
    storages = {p.untyped_storage().data_ptr() for member in found for p in member.model.parameters()}
    assert len(storages) == sum(len(list(member.model.parameters())) for member in found)
    again = lr.fit(*given, start_from=found[1], **settings)
    assert again.used == found[1].used


def test_optimizers_of_their_own() -> None:
    given, settings = setting()
    optimizers = [lr.Adam(learning_rate=0.1), lr.AdamW(weight_decay=0.5, clip_norm=0.1), lr.AdamW(averaging=0.9)]
    found = lr.fit_ensemble(*given, seeds=SEEDS, optimizers=optimizers, vectorised=True, **settings)
    apart = lr.fit_ensemble(*given, seeds=SEEDS, optimizers=optimizers, **settings)
    for member, other, optimizer in zip(found.members, apart.members, optimizers, strict=True):
        assert_same(member, other)
        assert member.settings["optimiser"]["learning_rate"] == (optimizer.learning_rate or 3e-3)
    with pytest.raises(ValueError, match="optimizers must be one for each of 3 seeds"):
        lr.fit_ensemble(*given, seeds=SEEDS, optimizers=optimizers[:2], **settings)


def test_what_cannot_be_taken_together_is_refused() -> None:
    refused: dict[str, tuple[dict[str, Any], str]] = {
        "lengths": ({"data": make_data(ragged=True)}, "sequences of different lengths"),
        "window": (
            {"compute": lr.Compute(window=lr.Window(3)), "guide": {"encoder": lr.RNNEncoder(3, direction="causal")}},
            "a window",
        ),
        "sequences": ({"guide": {"family": lr.PerSequence(lr.MeanField())}}, "PerSequence.*belong to sequences"),
        "iwae": ({"objective": lr.IWAE(num_particles=2)}, "IWAE.*scales gradients draw by draw"),
        "kernel": ({"transition": lr.GRU(4, layers=2, dropout=0.5)}, r"a part of .* \(dropout inside a fused kernel\)"),
        "lstm": ({"transition": lr.LSTM(4, layers=2, dropout=0.5)}, r"a part of .* \(dropout inside a fused kernel\)"),
        "chunks": ({"max_elements": 20}, "max_elements, whose chunks"),
        "read-in": ({"max_elements": 20, "guide": {"encoder": lr.RNNEncoder(3, read_in=2)}}, "max_elements"),
    }
    for change, message in refused.values():
        given, settings = setting(**change)
        with pytest.raises(ValueError, match=f"vectorised=True does not go with {message}"):
            lr.fit_ensemble(*given, seeds=SEEDS, vectorised=True, **settings)


DRAWS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "returned": lambda like: torch.empty_like(like).normal_(std=0.1),
    "uniform": lambda like: torch.empty_like(like).uniform_(-1, to=-0.9),
    "like": lambda like: torch.rand_like(like, dtype=torch.float64).float(),
    "dropout": lambda like: torch.nn.functional.dropout(torch.ones_like(like), 0.5, True, True),
}


def _kept(like: torch.Tensor) -> torch.Tensor:
    noise = torch.empty_like(like)
    noise.normal_()
    return noise


def _row(like: torch.Tensor) -> torch.Tensor:
    noise = torch.zeros_like(like)
    noise[0].uniform_()
    return noise


def _viewed(like: torch.Tensor) -> torch.Tensor:
    noise = torch.zeros_like(like)
    view = noise.flatten()
    noise.exponential_()
    return view.view_as(like)


def _dropped(like: torch.Tensor) -> torch.Tensor:
    kept = torch.ones_like(like)
    torch.nn.functional.dropout(kept, 0.5, inplace=True)
    return kept


WRITTEN: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], str]] = {
    "kept": (_kept, "what normal_ wrote into a tensor"),
    "row": (_row, "what uniform_ wrote into a tensor"),
    "viewed": (_viewed, "what exponential_ wrote into a tensor"),
    "dropped": (_dropped, "what dropout wrote into a tensor"),
    "generator": (lambda like: torch.rand(like.shape, generator=torch.Generator()), "rand with generator="),
}


class NoisyGRU(lr.GRU):
    """A part of one's own, which draws in its own way."""

    def __init__(self, hidden_size: int, noise: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__(hidden_size)
        self.noise = noise

    def scan(self, inputs: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return super().scan(inputs + self.noise(inputs), state)


@pytest.mark.parametrize("name", DRAWS)
def test_draws_of_ones_own_are_those_of_each(name: str) -> None:
    given, settings = setting(transition=NoisyGRU(4, DRAWS[name]), steps=3)
    found = lr.fit_ensemble(*given, seeds=SEEDS[:2], vectorised=True, **settings)
    for member in found.members:
        assert_same(member, lr.fit(*given, seed=member.seed, **settings))


@pytest.mark.parametrize("name", WRITTEN)
def test_draws_that_members_would_lose_are_refused(name: str) -> None:
    noise, message = WRITTEN[name]
    given, settings = setting(transition=NoisyGRU(4, noise), steps=3)
    lr.fit(*given, **settings)
    with pytest.raises(ValueError, match=rf"vectorised=True does not go with a part of .* \({message}"):
        lr.fit_ensemble(*given, seeds=SEEDS[:2], vectorised=True, **settings)


# -- scans of members ----------------------------------------------------------------------------------------------


class Directions(torch.nn.Module):
    """Loops over time by the kernels of one or two directions."""

    def __init__(self, kernels: list[Any]) -> None:
        super().__init__()
        self.forwards, self.backwards = kernels if len(kernels) == 2 else (*kernels, None)

    def forward(self, inputs: torch.Tensor, state: torch.Tensor | None) -> torch.Tensor:
        kernels = [kernel for kernel in (self.forwards, self.backwards) if kernel is not None]
        if state is None:
            return run_directions(self.forwards, self.backwards, inputs, None)[0]
        return run(*kernels, inputs, state)[0]

    def with_weights(self, inputs: torch.Tensor, state: torch.Tensor | None, *values: torch.Tensor) -> torch.Tensor:
        names = [name for name, _ in self.named_parameters()]
        return torch.func.functional_call(self, dict(zip(names, values, strict=True)), (inputs, state))


@pytest.mark.parametrize("kind", [torch.nn.GRU, torch.nn.LSTM, torch.nn.RNN])
@pytest.mark.parametrize("ways", [(True, False), (False, True), (True, True)])
def test_scans_of_members_are_those_of_each(kind: Any, ways: tuple[bool, bool]) -> None:
    members, rows, steps, channels, hidden = 3, 4, 5, 2, 6
    scan = Directions([kind(channels, hidden, batch_first=True, dtype=torch.float64) if way else None for way in ways])
    names = [name for name, _ in scan.named_parameters()]
    weights = [torch.randn(members, *scan.get_parameter(name).shape).double().requires_grad_() for name in names]
    inputs = torch.randn(members, rows, steps, channels).double().requires_grad_()

    with vmap_over_members():
        found = torch.func.vmap(lambda x, *values: scan.with_weights(x, None, *values))(inputs, *weights)
    expected = torch.stack([_by_cells(kind, ways, inputs[m], [w[m] for w in weights]) for m in range(members)])
    torch.testing.assert_close(found, expected)
    ahead = torch.randn_like(found)
    for gradient, other in zip(
        torch.autograd.grad(found, [inputs, *weights], ahead),
        torch.autograd.grad(expected, [inputs, *weights], ahead),
        strict=True,
    ):
        torch.testing.assert_close(gradient, other)


def _by_cells(kind: Any, ways: tuple[bool, bool], inputs: torch.Tensor, weights: list[torch.Tensor]) -> torch.Tensor:
    """torch's own cells, step by step."""
    found = []
    for back in (False, True):
        if not ways[back]:
            continue
        own, weights = weights[:4], weights[4:]
        h = c = inputs.new_zeros(len(inputs), own[1].shape[1])
        steps = list(inputs.unbind(1))[:: -1 if back else 1]
        outputs = []
        for x in steps:
            if kind is torch.nn.LSTM:
                h, c = torch.lstm_cell(x, (h, c), *own)
            else:
                h = (torch.gru_cell if kind is torch.nn.GRU else torch.rnn_tanh_cell)(x, h, *own)
            outputs.append(h)
        found.append(torch.stack(outputs[:: -1 if back else 1], 1))
    return torch.cat(found, -1)


def test_the_backward_of_a_scan_of_members() -> None:
    scan = Directions([torch.nn.GRU(2, 2, batch_first=True, dtype=torch.float64)])
    shapes = [(2, 3, 4, 2), (2, 1, 3, 2), *((2, *p.shape) for p in scan.parameters())]
    values = [(0.5 * torch.randn(shape, dtype=torch.float64)).requires_grad_() for shape in shapes]
    with vmap_over_members():
        assert torch.autograd.gradcheck(torch.func.vmap(scan.with_weights), values)


def test_a_scan_goes_on_from_the_states_of_members() -> None:
    kernel = torch.nn.GRU(2, 3, 2, batch_first=True, dtype=torch.float64)
    start = torch.randn(4, 2, 5, 3).double().requires_grad_()
    inputs = torch.randn(4, 5, 6, 2).double()
    with vmap_over_members():
        found, last = torch.func.vmap(lambda x, h: run(kernel, x, h), in_dims=(0, 0))(inputs, start)
    pairs = [kernel(x, h) for x, h in zip(inputs, start, strict=True)]
    torch.testing.assert_close(found, torch.stack([outputs for outputs, _ in pairs]))
    torch.testing.assert_close(last, torch.stack([state for _, state in pairs]))
    (gradient,) = torch.autograd.grad(found.square().sum(), start)
    (other,) = torch.autograd.grad(sum(outputs.square().sum() for outputs, _ in pairs), start)
    torch.testing.assert_close(gradient, other)
    assert layer_of(kernel, 1).weight.shape == (9, 3)
