"""Former names of methods that users call or override: they work for one release, and say what to write instead."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import latentrnn as lr

DATA = lr.SequenceData.from_arrays({"y": np.random.default_rng(0).poisson(2.0, (3, 5, 2)).astype(float)}, dt=0.1)
FORMER = "is a former name"


def make_model(head: lr.Observation) -> lr.LatentRNN:
    return lr.LatentRNN(DATA.spec, transition=lr.GRU(3), latent=lr.Innovations(2), observations={"y": head})


def test_former_methods_of_a_model_and_of_a_guide_are_the_present_ones() -> None:
    model = make_model(lr.Poisson())
    guide = lr.Guide(model, encoder=lr.RNNEncoder(4))
    with pytest.warns(DeprecationWarning, match=r"LatentRNN.drive is a former name.*use LatentRNN.transition_inputs"):
        assert torch.equal(model.drive(DATA), model.transition_inputs(DATA))
    with pytest.warns(DeprecationWarning, match=FORMER):
        assert model.unfold(DATA).states().shape == (3, 5, 3)
    with pytest.warns(DeprecationWarning, match=FORMER):
        assert set(model.follow(DATA)[0]) == {"y"}
    with pytest.warns(DeprecationWarning, match=FORMER):
        found = guide.numbers(DATA)
    torch.testing.assert_close(found, guide.variational_parameters(DATA))


def test_a_family_that_overrides_the_former_method_works_as_it_did() -> None:
    with pytest.warns(
        DeprecationWarning, match=r"Shifted.numbers is a former name.*use Shifted.variational_parameters"
    ):

        class Shifted(lr.MeanField):
            def numbers(self, encoding: Any, data: Any) -> dict[str, Tensor]:
                return {name: value + 1 for name, value in super().numbers(encoding, data).items()}

    model = make_model(lr.Poisson())
    guides = [lr.Guide(model, encoder=lr.RNNEncoder(4), family=family) for family in (Shifted(), lr.MeanField())]
    guides[1].load_state_dict(guides[0].state_dict())
    with pytest.warns(DeprecationWarning, match=r"MeanField.numbers is a former name"):
        shifted = guides[0].variational_parameters(DATA)["innovations"]
    plain = guides[1].variational_parameters(DATA)["innovations"]
    torch.testing.assert_close(shifted, plain + 1)


def test_a_head_that_overrides_the_former_method_draws_what_is_missing() -> None:
    with pytest.warns(DeprecationWarning, match=r"use Constant.sample_missing"):

        class Constant(lr.Poisson):
            def complete(self, distribution: dist.Distribution, values: Tensor, mask: Tensor) -> Tensor:
                return torch.where(mask, values, torch.full_like(values, 7.0))

    data = DATA.mask_entries("y", torch.ones(3, 5, 2, dtype=torch.bool))
    model = make_model(Constant())
    posterior = lr.Posterior(model, lr.Guide(model, encoder=lr.RNNEncoder(4, mask_input=True)), data)
    assert (posterior.impute("y", num_samples=2) == 7).all()


def test_an_override_of_what_is_observed_is_known_to_depend_on_other_steps() -> None:
    class LaterOnly(lr.Poisson):
        def observed(self, data: lr.SequenceData) -> Tensor:
            return data.masks[self.head.name].cumsum(1) > 1

    assert lr.Poisson.mask_by_step
    assert not LaterOnly.mask_by_step
    model = make_model(LaterOnly())
    posterior = lr.Posterior(model, lr.Guide(model, encoder=lr.RNNEncoder(4, direction="causal")), DATA)
    with pytest.raises(ValueError, match="depends on more than the present state"):
        lr.OnlineFilter(posterior)


def test_present_names_do_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_model(lr.Poisson()).trace(DATA)
