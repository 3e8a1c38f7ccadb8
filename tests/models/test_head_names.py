"""A name that `from_arrays` takes works to the end: model, fit, posterior, export, saving and loading."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import latentrnn as lr
from latentrnn.data.ingest.names import AXES, SITES
from latentrnn.models.module_dict import NamedModules

COUNTS = np.random.default_rng(0).poisson(0.5, (5, 4, 2))
OF_TORCH = sorted({name for name in dir(nn.ModuleDict()) if name.isidentifier()} | {"values", "type", "train", "items"})


def model_of(data: lr.SequenceData) -> lr.LatentRNN:
    heads = {name: lr.Poisson() for name in data.observations}
    return lr.LatentRNN(data.spec, transition=lr.GRU(2), latent=lr.InitialState(1), observations=heads)


def test_every_name_that_torch_has_taken() -> None:
    data = lr.SequenceData.from_arrays(dict.fromkeys(OF_TORCH, COUNTS[:2, :2]))
    model = model_of(data)
    assert list(model.observations) == OF_TORCH
    assert {head.head.name for head in model.observations.values()} == set(OF_TORCH)
    again = copy.deepcopy(model)
    again.load_state_dict(model.state_dict())
    assert list(again.eval().train().to(torch.float64).observations.keys()) == OF_TORCH
    for name in dict(model.named_parameters()):
        model.get_parameter(name)  # torch's own ways by name lead there
    assert set(model(data)) == set(OF_TORCH)


def test_ordinary_names_are_stored_as_they_are() -> None:
    model = model_of(lr.SequenceData.from_arrays({"spikes": COUNTS}))
    assert "observations.spikes.readout.weight" in model.state_dict()


def test_to_the_end(tmp_path: Path) -> None:
    heads = {"values": COUNTS, "type": COUNTS, "spikes": COUNTS}
    data = lr.SequenceData.from_arrays(heads, {"x": np.ones((5, 4, 1))}, dt=0.1)
    model = model_of(data)
    guide = lr.Guide(model, encoder=lr.RNNEncoder(2, read_in=3))
    result = lr.fit(model, guide, data, steps=2, reporting=lr.Reporting(progress=False))
    result.save(tmp_path / "fit")
    posterior = result.posterior(data)
    again = lr.load(tmp_path / "fit").posterior(data)
    exported = posterior.to_arviz(num_samples=2, num_particles=2)["posterior_predictive"]
    for name in heads:
        assert torch.equal(posterior.mean(name, 2), again.mean(name, 2))
        assert name in exported


REFUSED = {
    **{f"head {name}": ({name: COUNTS}, {}) for name in (*SITES, *AXES, "_INPUT", "_RETURN")},
    **{
        f"covariate {name}": ({"spikes": COUNTS}, {name: COUNTS})
        for name in (*AXES, "dt", "spikes_mask", "spikes_total")
    },
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_work_is_refused_at_the_door(name: str) -> None:
    observations, covariates = REFUSED[name]
    with pytest.raises(ValueError, match="expected another name, since"):
        lr.SequenceData.from_arrays(observations, covariates)
    with pytest.raises(ValueError, match="expected another name, since"):
        lr.StoredSequences.from_arrays(observations, covariates)


def test_a_dict_of_modules_is_a_dict() -> None:
    modules = NamedModules({"values": nn.Identity()})
    modules["pop"] = nn.Linear(1, 1)
    modules.update({"keys": nn.Tanh()})
    assert list(modules.keys()) == list(modules) == ["values", "pop", "keys"]
    assert "pop" in modules
    assert "items" not in modules
    assert isinstance(modules.pop("pop"), nn.Linear)
    del modules["values"]
    assert [(name, type(part)) for name, part in modules.items()] == [("keys", nn.Tanh)]
    assert len(modules) == 1
