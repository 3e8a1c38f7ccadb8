"""Jacobians of a step against closed forms and differences, with gates free and with gates held."""

from __future__ import annotations

import numpy as np
import pyro.distributions as dist
import pytest
import torch

import latentrnn as lr
from tests.interpret.small import Adapting, posterior_of, recording
from tests.registry import OBSERVATIONS, TRANSITIONS, latent_for, make_data, make_model


def test_an_lstm_has_the_jacobians_of_its_equations() -> None:
    posterior = posterior_of(lr.LSTM(3), lr.Innovations(1))
    found = lr.interpret.jacobians(posterior, "cell", "input", num_samples=2)
    by_state = lr.interpret.jacobians(posterior, "cell", num_samples=2)
    gates = lr.interpret.trace(posterior, 2)
    kernel = posterior.model.transition.kernel
    (wi, wf, wg, _), (ui, uf, ug, _) = (w.detach().numpy().reshape(4, 3, -1) for w in kernel.all_weights[0][:2])
    here = {"sample": 1, "sequence": 0, "time": 5}
    i, f, g = (gates[name].isel(here).values[:, None] for name in ("input", "forget", "candidate"))
    c = gates.cell.isel(here | {"time": 4}).values[:, None]
    held = i * (1 - g**2) * wg
    np.testing.assert_allclose(found.direct.isel(here), held, atol=1e-12)
    np.testing.assert_allclose(found.total.isel(here), held + f * (1 - f) * c * wf + i * (1 - i) * g * wi, atol=1e-12)
    diagonal = f * np.eye(3)
    np.testing.assert_allclose(by_state.direct.isel(here), np.hstack([i * (1 - g**2) * ug, diagonal]), atol=1e-12)
    total = i * (1 - g**2) * ug + f * (1 - f) * c * uf + i * (1 - i) * g * ui
    np.testing.assert_allclose(by_state.total.isel(here), np.hstack([total, diagonal]), atol=1e-12)
    assert by_state.by.values.tolist() == [f"hidden[{k}]" for k in range(3)] + [f"cell[{k}]" for k in range(3)]
    assert found.by.values.tolist() == ["x[0]", "x[1]", "innovation[0]"]
    assert bool(found.total.isel(sequence=2, time=-1).isnull().all())  # padding


@pytest.mark.parametrize("name", TRANSITIONS)
def test_every_transition_answers_as_differences_say(name: str) -> None:
    data = make_data(OBSERVATIONS["poisson"])
    model, guide = make_model(name, latent_for(name, "poisson", "innovations"), "poisson", data)
    posterior = lr.Posterior(model, guide, data)
    (run,) = posterior.transition_runs(2)
    rng = torch.Generator().manual_seed(1)
    for by in ("state", "input"):
        found = lr.interpret.jacobians(posterior, by=by, path="total", num_samples=2)
        slope = torch.tensor(found.total.values[:, 0])
        at, other = (run.before, run.inputs) if by == "state" else (run.inputs, run.before)
        way = torch.randn(at[:, 0].shape, generator=rng, dtype=at.dtype)

        def moved(by_how_much: float) -> torch.Tensor:
            there = at[:, 0] + by_how_much * way  # noqa: B023
            pair = (there, other[:, 0]) if by == "state" else (other[:, 0], there)  # noqa: B023
            return run.transition.step(*pair).detach()

        torch.testing.assert_close(
            (slope @ way.unsqueeze(-1)).squeeze(-1), (moved(1e-6) - moved(-1e-6)) / 2e-6, rtol=1e-5, atol=1e-6
        )
        assert len(set(found.by.values.tolist())) == at.shape[-1]
        assert len(set(found.of.values.tolist())) == model.transition.state_size


def test_streams_layers_and_outputs_have_names() -> None:
    posterior = posterior_of(lr.Streams({"fast": lr.GRU(2), "slow": lr.LSTM(3, layers=2)}), lr.Innovations(1))
    found = lr.interpret.jacobians(posterior, "output", path="direct", num_samples=1)
    names = ["hidden[0]", "fast.hidden[1]", "slow.layer0.hidden[2]", "slow.layer1.cell[0]"]
    assert set(names[1:]) <= set(found.by.values.tolist())
    assert found.of.values.tolist() == [f"hidden[{place}]" for place in range(5)]
    # streams do not see each other
    fast = [name for name in found.by.values.tolist() if name.startswith("fast")]
    across = found.direct.sel(of=[f"hidden[{place}]" for place in range(2, 5)], by=fast)
    assert float(np.abs(across).max()) == 0.0 < float(np.abs(found.direct).max())


def test_a_transition_of_ones_own_has_both_paths() -> None:
    posterior = posterior_of(Adapting(3), lr.Innovations(1))
    found, traces = lr.interpret.jacobians(posterior, num_samples=2), lr.interpret.trace(posterior, 2)
    np.testing.assert_allclose(found.direct.values[0, 0, 3], 0.9 * np.eye(3), atol=1e-12)
    room, admitted = traces.room.values[0, 0, 3], traces.inputs.values[0, 0, 3]
    weight = posterior.model.transition.map
    admitted = admitted @ weight.weight.detach().numpy().T + weight.bias.detach().numpy()
    np.testing.assert_allclose(
        found.total.values[0, 0, 3], 0.9 * np.eye(3) - np.diag(room * (1 - room) * admitted), atol=1e-12
    )


def test_draws_of_parameters_have_jacobians_of_their_own() -> None:
    memory = lr.LeakyIntegrator(2, priors={"time_constant": dist.LogNormal(-3.0, 0.5)})
    posterior = posterior_of(memory, lr.Innovations(1))
    found = lr.interpret.jacobians(posterior, num_samples=4)
    (tau,) = posterior.parameters(4).values()
    expected = torch.diag_embed(torch.exp(-0.01 / tau)).reshape(4, 2, 2).numpy()
    for path in ("total", "direct"):
        np.testing.assert_allclose(found[path].values[:, 1, 4], expected, rtol=1e-6)
    weights = lr.LSTM(2, priors={"weights": lr.NetworkPrior()})
    posterior = posterior_of(weights, lr.Innovations(1))
    found, traces = lr.interpret.jacobians(posterior, "cell", num_samples=3), lr.interpret.trace(posterior, 3)
    forget = traces.forget.values[:, 0, 2]
    for sample in range(3):
        np.testing.assert_allclose(found.direct.values[sample, 0, 2, :, 2:], np.diag(forget[sample]), atol=1e-9)
    assert len(np.unique(found.direct.values[:, 0, 2, 0, 2])) == 3


def test_members_of_an_ensemble_answer_each_for_themselves() -> None:
    data = recording()
    members = [posterior_of(lr.GRU(3), lr.Innovations(1), data) for _ in range(2)]
    torch.nn.init.normal_(members[1].model.transition.kernel.weight_hh_l0)
    found = lr.interpret.jacobians(lr.EnsemblePosterior(members, torch.tensor([0.5, 0.5])), num_samples=4)
    alone = lr.interpret.jacobians(members[1], num_samples=2)
    np.testing.assert_array_equal(found.total.sel(sample=found.member == 1), alone.total)
    assert float(np.abs(found.total.values[:2, 0] - alone.total.values[:, 0]).max()) > 0.1


def test_mistakes_are_named() -> None:
    posterior = posterior_of(lr.GRU(3), lr.Innovations(1))
    with pytest.raises(ValueError, match=r"of .*'cell'"):
        lr.interpret.jacobians(posterior, "cell")
    with pytest.raises(ValueError, match=r"by .*'gate'"):
        lr.interpret.jacobians(posterior, by="gate")
    with pytest.raises(ValueError, match=r"path .*'held'"):
        lr.interpret.jacobians(posterior, path="held")
    with pytest.raises(TypeError, match="jacobians: expected a posterior; found LatentRNN"):
        lr.interpret.jacobians(posterior.model)
