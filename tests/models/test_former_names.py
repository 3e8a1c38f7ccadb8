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


# -- where former names can stand: mixins, models, guides, what is handed to users, instances --------------------------


def test_a_mixin_that_overrides_the_former_method_works_as_it_did() -> None:
    class Mixin:
        def numbers(self, encoding: Any, data: Any) -> dict[str, Tensor]:
            return {name: value + 1 for name, value in super().numbers(encoding, data).items()}  # type: ignore[misc]

    with pytest.warns(DeprecationWarning, match=r"Shifted.numbers is a former name"):

        class Shifted(Mixin, lr.MeanField):
            pass

    model = make_model(lr.Poisson())
    guides = [lr.Guide(model, encoder=lr.RNNEncoder(4), family=family) for family in (Shifted(), lr.MeanField())]
    guides[1].load_state_dict(guides[0].state_dict())
    with pytest.warns(DeprecationWarning, match=r"MeanField.numbers is a former name"):
        shifted = guides[0].variational_parameters(DATA)["innovations"]
    torch.testing.assert_close(shifted, guides[1].variational_parameters(DATA)["innovations"] + 1)


def test_models_and_guides_that_override_former_methods_work_as_they_did() -> None:
    calls = []
    with pytest.warns(DeprecationWarning, match=r"use Noted.transition_inputs"):

        class Noted(lr.LatentRNN):
            def drive(self, data: lr.SequenceData) -> Tensor:
                calls.append("model")
                return super().drive(data)

    with pytest.warns(DeprecationWarning, match=r"use NotedGuide.variational_parameters"):

        class NotedGuide(lr.Guide):
            def numbers(self, data: lr.SequenceData) -> Any:
                calls.append("guide")
                return super().numbers(data)

    model = Noted(DATA.spec, transition=lr.GRU(3), latent=lr.Innovations(2), observations={"y": lr.Poisson()})
    guide = NotedGuide(model, encoder=lr.RNNEncoder(4))
    with pytest.warns(DeprecationWarning, match=FORMER):
        lr.elbo_terms(model, guide, DATA)
    assert {"model", "guide"} <= set(calls)


def test_a_cell_that_overrides_how_its_inputs_are_projected_works_as_it_did() -> None:
    with pytest.warns(DeprecationWarning, match=r"use Doubled.project_inputs"):

        class Doubled(lr.GatedTransition):
            def drive(self, inputs: Tensor) -> Tensor:
                return 2 * super().drive(inputs)

    cells = [Doubled(3), lr.GatedTransition(3)]
    for cell in cells:
        cell.build(2)
    cells[1].load_state_dict(cells[0].state_dict())
    inputs = torch.randn(4, 2)
    with pytest.warns(DeprecationWarning, match=FORMER):
        torch.testing.assert_close(cells[0].project_inputs(inputs), 2 * cells[1].project_inputs(inputs))


def test_former_names_of_what_users_are_handed() -> None:
    """Couplings and latents see a rollout, encoders the heads' inputs."""
    seen: dict[str, Any] = {}

    class Sees(lr.Coupling):
        def check(self, observations: Any) -> None:
            pass

        def penalty(self, course: Any) -> Tensor:
            with pytest.warns(DeprecationWarning, match=r"Rollout.drive is a former name.*Rollout.transition_inputs"):
                seen["drive"] = course.drive
            with pytest.warns(DeprecationWarning, match=FORMER):
                seen["feeding"] = course.feeding
            with pytest.warns(DeprecationWarning, match=FORMER):
                seen["precise"] = course.precise
            return course.states().square().sum((-1, -2))

    model = lr.LatentRNN(
        DATA.spec, transition=lr.GRU(3), latent=lr.Innovations(2), observations={"y": lr.Poisson()}, couplings=[Sees()]
    )
    guide = lr.Guide(model, encoder=lr.RNNEncoder(4))
    lr.fit(model, guide, DATA, steps=1, reporting=lr.Reporting(progress=False))
    assert seen["drive"].shape[:2] == (3, 5)
    assert seen["feeding"] == []
    assert seen["precise"] is False
    shown = model.observations["y"].encoder_input
    values, mask = DATA.observations["y"], DATA.masks["y"]
    for former, present, arguments in (
        ("show", "encode", (values,)), ("spread", "expand_mask", (mask,)),
        ("scales", "centre_and_scale", (values, mask)),
    ):  # fmt: skip
        with pytest.warns(DeprecationWarning, match=FORMER):
            found = getattr(shown, former)(*arguments)
        torch.testing.assert_close(found, getattr(shown, present)(*arguments))


def test_a_former_name_can_be_assigned_to_an_instance() -> None:
    head = lr.Poisson()
    with pytest.warns(DeprecationWarning, match=r"Poisson.complete is a former name|Observation.complete"):
        head.complete = lambda distribution, values, mask: values + 7
    assert (head.sample_missing(None, torch.zeros(2), None) == 7).all()


def test_a_class_of_ones_own_of_the_same_name_is_left_alone() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")

        class Encoder(lr.Feature):
            def follow(self) -> str:
                return "mine"

            def size(self, spec: Any) -> int:
                return 1

        assert Encoder.follow(None) == "mine"  # type: ignore[arg-type]
    assert not hasattr(Encoder, "start_streaming")


def test_a_latent_may_still_refuse_couplings() -> None:
    class Alone(lr.Innovations):
        def check_couplings(self, couplings: Any) -> None:
            if couplings:
                raise ValueError("Alone: no couplings")

    class Any_(lr.Coupling):
        def check(self, observations: Any) -> None:
            pass

        def penalty(self, rollout: Any) -> Tensor:
            return torch.zeros(())

    parts = {"transition": lr.GRU(3), "observations": {"y": lr.Poisson()}, "couplings": [Any_()]}
    with pytest.raises(ValueError, match="Alone: no couplings"):
        lr.LatentRNN(DATA.spec, latent=Alone(2), **parts)

    class Shifted(lr.Innovations):
        def distribution(self, rollout: Any, name: str) -> dist.Distribution:
            return super().distribution(rollout, name)

    lr.LatentRNN(DATA.spec, latent=Shifted(2), **parts)  # another density is no reason to refuse


# -- traits that follow from an override ------------------------------------------------------------------------------


class ShiftedStates:
    """Mixed into a latent: readouts see states that are shifted by one."""

    def distribution(self, rollout: Any, name: str) -> dist.Distribution:
        return rollout.given(name, rollout.states() + 1)


class LaterSteps:
    """Mixed into a head: what was observed depends on other steps."""

    def observed(self, data: lr.SequenceData) -> Tensor:
        return data.masks[self.head.name].cumsum(1) > 1  # type: ignore[attr-defined]


def test_a_density_that_is_mixed_into_a_latent_is_the_one_that_is_taken() -> None:
    class Shifted(ShiftedStates, lr.InitialState):
        pass

    class Own(lr.InitialState):
        distribution = ShiftedStates.distribution

    assert Shifted.marginalises
    found = []
    for latent in (Shifted(2), Own(2)):
        for max_elements in (None, 8):
            torch.manual_seed(0)
            heads = {"y": lr.Poisson()}
            settings = {"transition": lr.GRU(3), "observations": heads, "max_elements": max_elements}
            model = lr.LatentRNN(DATA.spec, latent=latent.fresh(), **settings)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.uniform_(-0.5, 0.5)
            guide = lr.Guide(model, encoder=lr.RNNEncoder(4))
            for parameter in guide.parameters():
                torch.nn.init.zeros_(parameter)
            torch.manual_seed(1)
            found.append(lr.elbo_terms(model, guide, DATA).log_likelihood["y"])
    for other in found[1:]:
        torch.testing.assert_close(other, found[0])


def test_what_is_mixed_into_a_head_is_known_to_depend_on_other_steps() -> None:
    class Later(LaterSteps, lr.Poisson):
        pass

    class SaysSo(LaterSteps, lr.Poisson):
        mask_by_step = True

    assert not Later.mask_by_step
    assert SaysSo.mask_by_step  # what a class says itself counts
