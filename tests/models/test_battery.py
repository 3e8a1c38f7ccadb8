"""What every component must do, among defaults and with every other: shapes, gradients, copies, files, samples."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable, Collection
from pathlib import Path

import pyro
import pytest
import safetensors.torch
import torch
from pyro import poutine
from torch import Tensor, nn

import latentrnn as lr
from latentrnn.inference.objectives.terms import log_weights
from latentrnn.models.component import Component, from_config
from latentrnn.models.sites import INITIAL
from tests.models.test_invariances import (
    check_closed_forms,
    check_context,
    check_one_step,
    check_padding_order_and_batches,
)
from tests.registry import (
    FAMILIES,
    FEATURES,
    LATENTS,
    MEETINGS,
    OBSERVATIONS,
    PRIORS,
    TRANSITIONS,
    WAYS,
    Combination,
    Fixed,
    check_each,
    covering_array,
    each_against_defaults,
    each_of,
    fixed_latents,
    make_data,
    make_model,
)


def parts_named() -> dict[str, Component]:
    """Every component of the registry, unbuilt."""
    found: dict[str, Component] = {name: make() for table in (TRANSITIONS, LATENTS) for name, make in table.items()}
    for name, heads in OBSERVATIONS.items():
        found |= {f"{name}: {head}": observation for head, observation in heads.observations().items()}
    for direction in ("causal", "backward", "bidirectional"):
        found[f"encoder {direction}"] = lr.RNNEncoder(3, direction=direction, observes=["y"], layers=2, mask_input=True)
    found["encoder lstm"] = lr.RNNEncoder(3, layers=2, cell="lstm")
    found |= {f"feature {name}": make() for name, make in FEATURES.items()}
    found["gain"] = lr.StimulusGain("stimulus", lags=3, gated=False)
    found["history"] = lr.History(5, filters=3, into=("transition", "readout"))
    return found


def weights(model: nn.Module, guide: nn.Module, data: lr.SequenceData, values: dict[str, Tensor]) -> Tensor:
    with Fixed(values), torch.no_grad():
        return log_weights(model, guide, data, 1)[0]


# -- every property of every combination ---------------------------------------------------------------------------

# Which properties are tried on which combinations: all of them on models that are built once.
SHAPED = covering_array(FAMILIES)
MET = covering_array(MEETINGS, among=SHAPED)
WINDOWED = covering_array(MEETINGS, lambda parts: "per_sequence" not in WAYS[parts[2]], among=MET)
COMBINATIONS = list(dict.fromkeys([*SHAPED, *MET, *WINDOWED]))
TRIED: dict[str, list[Combination]] = {
    "shapes": SHAPED,
    "a gradient for every parameter": MET,
    "padding, order and batches": MET,
    "closed forms": MET,
    "one step": MET,
    "context": WINDOWED,
    "copies": each_against_defaults(),
    "files": each_against_defaults(),
    "descriptions": each_against_defaults(),
    "precision": each_against_defaults(),
    "own samples": SHAPED,
}
SETS = {name: frozenset(combinations) for name, combinations in TRIED.items()}


@each_of(COMBINATIONS)
def test_a_combination_has_its_properties(parts: Combination, tmp_path: Path) -> None:
    properties = [name for name in TRIED if parts in SETS[name]]
    check_combination(parts, properties, tmp_path)


def check_combination(parts: Combination, properties: Collection[str], folder: Path) -> None:
    """Build a model of these parts and check properties of it, in the order of `TRIED`; some write into a folder."""
    heads = OBSERVATIONS[parts[2]]
    data = make_data(heads)
    model, guide = make_model(*parts, data)
    checks: dict[str, Callable[[], None]] = {
        "shapes": lambda: check_shapes(model, guide, data),
        "a gradient for every parameter": lambda: check_gradients(model, guide, data),
        "padding, order and batches": lambda: check_padding_order_and_batches(model, guide, data),
        "closed forms": lambda: check_closed_forms(model, guide, data),
        "one step": lambda: check_one_step(model, guide, heads),
        "context": lambda: check_context(model, guide, heads),
        "copies": lambda: check_copies(model, guide, data),
        "files": lambda: check_files(model, guide, data, folder),
        "descriptions": lambda: check_descriptions(model, guide, data),
        "precision": lambda: check_precision(model, guide, data),
        "own samples": lambda: check_samples(model, data),  # the last, for it changes weights
    }
    check_each({name: check for name, check in checks.items() if name in properties})


# -- shapes --------------------------------------------------------------------------------------------------------


def check_shapes(model: lr.LatentRNN, guide: lr.Guide, data: lr.SequenceData) -> None:
    """Every site of one draw, or of as many particles as there are, is of its shape; nothing else is random."""
    for sample in ((), (5,)):
        check_shapes_of_draws(model, guide, data, sample)


def check_shapes_of_draws(model: lr.LatentRNN, guide: lr.Guide, data: lr.SequenceData, sample: tuple[int, ...]) -> None:
    def run(program: nn.Module) -> poutine.Trace:
        if not sample:
            return poutine.trace(program).get_trace(data)
        with pyro.plate("particles", *sample, dim=-2):
            return poutine.trace(program).get_trace(data)

    guide_trace = run(guide)
    trace = run(poutine.replay(model, trace=guide_trace))
    batch = (*sample, len(data))
    for site in model.latent_sites():
        event = (data.num_steps, site.dim) if site.along_time else (site.dim,)
        for found in (guide_trace.nodes[site.name], trace.nodes[site.name]):
            assert found["value"].shape == (*batch, *event)
            assert found["fn"].event_shape == event
            assert found["fn"].log_prob(found["value"]).shape == batch
    for name, (_, start) in model.parameter_sites().items():
        assert trace.nodes[name]["fn"].event_shape == start.shape
        shape = trace.nodes[name]["value"].shape
        assert shape[len(shape) - start.dim() :] == start.shape
    for name in model.observations:
        site = trace.nodes[name]
        assert site["is_observed"]
        assert site["fn"].batch_shape == batch
        assert site["fn"].event_shape == data.observations[name].shape[1:]
        assert site["fn"].log_prob(site["value"]).shape == batch
    # nothing else is random, and the plate is the only one
    own = {site.name for site in model.latent_sites()} | set(model.parameter_sites()) | set(model.observations)
    assert {name for name, site in trace.nodes.items() if site["type"] == "sample"} - own <= {"sequences", "particles"}


# -- gradients -----------------------------------------------------------------------------------------------------


DEPENDENT = covering_array(PRIORS, lambda parts: "priors" in WAYS[parts[2]])


@each_of(DEPENDENT)
def test_every_parameter_has_a_gradient_where_sites_are_dependent(parts: Combination) -> None:
    data = make_data(OBSERVATIONS[parts[2]])
    check_gradients(*make_model(*parts, data, global_family="multivariate"), data)


def check_gradients(model: lr.LatentRNN, guide: lr.Guide, data: lr.SequenceData) -> None:
    lr.elbo_terms(model, guide, data, num_particles=16).elbo().backward()
    silent = []
    for owner, module in (("model", model), ("guide", guide)):
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None, f"{owner}.{name}: no gradient"
            assert torch.isfinite(parameter.grad).all(), f"{owner}.{name}: gradient is not finite"
            if not parameter.grad.any():
                silent.append(f"{owner}.{name}")
    assert silent == []


def test_the_parameters_that_cannot_have_a_gradient() -> None:
    """A causal encoder says nothing of the time before the data: with an initial state alone, its weights are idle."""
    data = make_data(OBSERVATIONS["poisson"])
    model, guide = make_model("gru", "initial state", "poisson", data, direction="causal")
    lr.elbo_terms(model, guide, data).elbo().backward()
    idle = {name for name, parameter in guide.named_parameters() if parameter.grad is None}
    assert idle == {name for name, _ in guide.named_parameters() if name.startswith("encoder.")}
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert guide.local.heads[INITIAL].map.weight.grad.any()


def test_gradients_agree_with_finite_differences() -> None:
    """The replayed ELBO is one differentiable function of the weights."""
    data = make_data(OBSERVATIONS["several"])
    model, guide = make_model("lstm", "innovations ar1", "several", data)
    values = fixed_latents(model, data)
    names = ["latent.log_time_constant", "observations.slow.log_noise_scale", "observations.y.covariate_weight"]
    chosen = [model.get_parameter(name).detach().clone().requires_grad_() for name in names]

    def loss(*parameters: Tensor) -> Tensor:
        with Fixed(values):
            substituted = dict(zip(names, parameters, strict=True))
            run = lambda batch: torch.func.functional_call(model, substituted, (batch,))  # noqa: E731
            return log_weights(run, guide, data, 1).sum()

    assert torch.autograd.gradcheck(loss, chosen)


# -- copies, files, descriptions -----------------------------------------------------------------------------------


def check_copies(model: lr.LatentRNN, guide: lr.Guide, data: lr.SequenceData) -> None:
    """Copies are equal and independent."""
    values = fixed_latents(model, data)
    expected = weights(model, guide, data, values)
    twins = copy.deepcopy(model), copy.deepcopy(guide)
    assert torch.equal(weights(*twins, data, values), expected)
    for part in twins:
        for parameter in part.parameters():
            torch.nn.init.constant_(parameter, 0.0)
    assert torch.equal(weights(model, guide, data, values), expected)


def check_files(model: lr.LatentRNN, guide: lr.Guide, data: lr.SequenceData, folder: Path) -> None:
    """Weights make the round trip through a file."""
    values = fixed_latents(model, data)
    expected = weights(model, guide, data, values)
    for name, module in (("model", model), ("guide", guide)):
        safetensors.torch.save_file(module.state_dict(), folder / f"{name}.safetensors")
    new_model = lr.LatentRNN.from_config(json.loads(json.dumps(model.config())), data.spec).to(data.dtype)
    new_guide = lr.Guide.from_config(json.loads(json.dumps(guide.config())), new_model).to(data.dtype)
    for name, module in (("model", new_model), ("guide", new_guide)):
        module.load_state_dict(safetensors.torch.load_file(folder / f"{name}.safetensors"))
    assert torch.equal(weights(new_model, new_guide, data, values), expected)


def check_descriptions(model: lr.LatentRNN, guide: lr.Guide, data: lr.SequenceData) -> None:
    """Descriptions make the round trip through JSON."""
    config = json.loads(json.dumps(model.config()))
    rebuilt = lr.LatentRNN.from_config(config, lr.DataSpec.from_json(json.loads(json.dumps(data.spec.to_json()))))
    assert rebuilt.config() == model.config()
    assert repr(rebuilt) == repr(model)
    assert {k: v.shape for k, v in rebuilt.state_dict().items()} == {k: v.shape for k, v in model.state_dict().items()}
    again = lr.Guide.from_config(json.loads(json.dumps(guide.config())), rebuilt)
    assert repr(again) == repr(guide)
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in guide.state_dict().items()}


@pytest.mark.parametrize("name", parts_named())
def test_a_part_is_its_arguments(name: str) -> None:
    part = parts_named()[name]
    rebuilt = from_config(json.loads(json.dumps(part.config())))
    assert type(rebuilt) is type(part)
    assert rebuilt.config() == part.config()
    assert repr(rebuilt) == repr(part)
    assert repr(part).startswith(f"{type(part).__name__}(")
    assert not list(part.parameters())  # an unbuilt part is a description only


def test_one_description_serves_several_models() -> None:
    data = make_data(OBSERVATIONS["poisson gain"])
    transition, latent, head = lr.GRU(4), lr.Innovations(2), lr.Poisson(gain=lr.StimulusGain("stimulus"))
    first, second = (
        lr.LatentRNN(data.spec, transition=transition, latent=latent, observations={"y": head}) for _ in range(2)
    )
    shared = {id(p) for p in first.parameters()} & {id(p) for p in second.parameters()}
    assert not shared
    assert not [*transition.parameters(), *latent.parameters(), *head.parameters()]


def test_one_input_may_stand_alone() -> None:
    data = make_data(OBSERVATIONS["poisson"])
    parts = {"transition": lr.GRU(4), "latent": lr.Innovations(2), "observations": {"y": lr.Poisson()}}
    for item in ("drive", lr.Lags("stimulus", 2)):
        alone, listed = (lr.LatentRNN(data.spec, **parts, inputs=inputs) for inputs in (item, [item]))
        assert alone.config() == listed.config()


# -- precision -----------------------------------------------------------------------------------------------------


def check_precision(model: lr.LatentRNN, guide: lr.Guide, data: lr.SequenceData) -> None:
    """Both precisions agree."""
    values = fixed_latents(model, data)
    double = weights(model, guide, data, values)
    assert double.dtype == torch.float64
    single = weights(
        copy.deepcopy(model).float(),
        copy.deepcopy(guide).float(),
        data.to(dtype=torch.float32),
        {name: value.float() for name, value in values.items()},
    )
    assert single.dtype == torch.float64  # where no gradient is wanted, densities are summed in double precision
    torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-3)


# -- samples -------------------------------------------------------------------------------------------------------


def check_samples(model: lr.LatentRNN, data: lr.SequenceData) -> None:
    """What is drawn, step by step or all at once, has as data the density that it was drawn with."""
    data = unmissing(data)
    for head in model.observations.values():  # counts that excite themselves may run away, weak as the filter may be
        if head.feedback is not None and "readout" in head.feedback.into:
            head.feedback.own.detach().abs_().neg_()
    values = fixed_latents(model, data)
    with Fixed(values), torch.no_grad():
        drawn = poutine.trace(poutine.uncondition(model)).get_trace(data)
        samples = {name: drawn.nodes[name]["value"] for name in model.observations}
        for name, sample in samples.items():
            assert sample.shape == data.observations[name].shape
            assert sample.dtype == data.dtype
            model.observations[name].check(name, sample, data.masks[name])  # inside the family's support
        scored = poutine.trace(model).get_trace(data.with_observations(samples))
        for name, sample in samples.items():
            expected = drawn.nodes[name]["fn"].log_prob(sample)
            found = scored.nodes[name]["fn"].log_prob(sample)
            assert torch.isfinite(found).all()
            torch.testing.assert_close(found, expected, rtol=0.0, atol=1e-9)


def unmissing(data: lr.SequenceData) -> lr.SequenceData:
    """Observed throughout: a missing entry counts as average in a history, its replicate as what it is."""

    masks = {}
    for name, mask in data.masks.items():
        spec = data.spec.heads[name]
        frames = torch.arange(mask.shape[1]) < (data.lengths // spec.clock)[:, None]
        masks[name] = frames[..., None].expand_as(mask) if spec.per_step else torch.ones_like(mask)
    heads = {name: dataclasses.replace(head, missing=False) for name, head in data.spec.heads.items()}
    return dataclasses.replace(data, masks=masks, spec=dataclasses.replace(data.spec, heads=heads))
