"""Long sequences in windows: their terms add up to those of the whole, and nothing else changes."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from pyro import poutine
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

import latentrnn as lr
from latentrnn.inference.fitting import evaluation
from latentrnn.inference.guides.windows import WindowPlan, window_plan
from latentrnn.inference.objectives.objective import Evaluation
from latentrnn.inference.objectives.terms import sampled_sites
from tests.inference.fitting.mishaps import Killed
from tests.registry import OBSERVATIONS as HEADS
from tests.registry import Fixed, default_transition, each_against_defaults, fixed_latents, make_data, make_model

LENGTHS = (11, 4, 7)


def parts_of(combination: tuple[str, str, str], **settings: Any) -> tuple[lr.SequenceData, lr.LatentRNN, lr.Guide]:
    data = make_data(HEADS[combination[2]], LENGTHS)
    return data, *make_model(*combination, data, direction="causal", **settings)


def cut(model: lr.LatentRNN, guide: lr.Guide, steps: int = 4) -> WindowPlan:
    return window_plan("test", lr.Window(steps), model, guide)


def can_be_cut(combination: tuple[str, str, str]) -> bool:
    _, model, guide = parts_of(combination)
    try:
        cut(model, guide)
    except ValueError:
        return False
    return True


def densities(
    model: lr.LatentRNN, guide: lr.Guide, data: lr.SequenceData, values: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Log-densities of all sites of model and guide at given values."""
    found = {}
    with Fixed(values), torch.no_grad():
        for label, program in (("q", guide), ("p", model)):
            for name, site in sampled_sites(poutine.trace(program).get_trace(data)):
                found[f"{label} {name}"] = site["fn"].log_prob(site["value"]).sum()
    return found


def of_window(values: dict[str, Tensor], model: lr.LatentRNN, start: int, stop: int) -> dict[str, Tensor]:
    along = {site.name for site in model.latent_sites() if site.along_time}
    return {name: value[..., start:stop, :] if name in along else value for name, value in values.items()}


def added_up(
    model: lr.LatentRNN,
    guide: lr.Guide,
    data: lr.SequenceData,
    values: dict[str, Tensor],
    steps: int = 4,
    *,
    forget: bool = False,
) -> dict[str, Tensor]:
    """The same densities, window by window; parameters count once."""
    found: dict[str, Tensor] = {}
    start, parameters = 0, model.parameter_sites()
    for window in cut(model, guide, steps).through(data):
        stop = start + window.num_steps
        if forget:
            window = dataclasses.replace(window, around=dataclasses.replace(window.around, carry_in=None))
        for name, value in densities(model, guide, window, of_window(values, model, start, stop)).items():
            found[name] = value if name.partition(" ")[2] in parameters else found.get(name, 0.0) + value
        start = stop
    assert start == data.num_steps
    return found


def agree(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.allclose(first[k], second[k], rtol=1e-10) for k in first)


COMBINATIONS = [c for c in each_against_defaults() if can_be_cut(c)]


def test_most_parts_can_be_cut() -> None:
    """What the next test runs over: every transition, most latents and heads."""
    assert len(COMBINATIONS) > 0.75 * len(each_against_defaults())
    assert {"innovations ar1", "markov normal", "recurrent normal", "relaxed discrete"} <= {c[1] for c in COMBINATIONS}
    assert {"gaussian irregular", "poisson history", "clocked", "per sequence", "poisson gain"} <= {
        c[2] for c in COMBINATIONS
    }


@pytest.mark.parametrize("combination", COMBINATIONS, ids="-".join)
def test_densities_of_windows_add_up_to_those_of_the_whole(combination: tuple[str, str, str]) -> None:
    data, model, guide = parts_of(combination)
    values = fixed_latents(model, data)
    whole = densities(model, guide, data, values)
    assert agree(added_up(model, guide, data, values), whole)
    assert not agree(added_up(model, guide, data, values, forget=True), whole)  # the state does matter


@pytest.mark.parametrize("cell", ["lstm", "tanh", "relu"])
def test_every_encoder_goes_on_from_the_window_before(cell: str) -> None:
    data, model, _ = parts_of(("gru", "innovations", "poisson"))
    encoder = lr.RNNEncoder(3, direction="causal", layers=2, cell=cell)
    guide = lr.Guide(model, encoder=encoder).double()
    values = fixed_latents(model, data)
    whole = densities(model, guide, data, values)["q innovations"]
    torch.testing.assert_close(added_up(model, guide, data, values)["q innovations"], whole, rtol=1e-10, atol=0)


def test_a_read_in_of_sessions_goes_through_windows() -> None:
    """In a stretch in which nothing was recorded a sequence's own session is there all the same."""
    rng = np.random.default_rng(0)
    counts = {"one": rng.poisson(1.0, (2, 11, 3)).astype(float), "two": rng.poisson(2.0, (3, 11, 2)).astype(float)}
    counts["one"][0, 4:9] = np.nan
    parts = {name: lr.SequenceData.from_arrays({"y": values}, dtype=torch.float64) for name, values in counts.items()}
    data = lr.SequenceData.join(parts)
    heads = lr.per_session(data.spec, {"y": lr.Poisson()})
    model = lr.LatentRNN(data.spec, transition=lr.GRU(3), latent=lr.Innovations(2), observations=heads).double()
    guide = lr.Guide(model, encoder=lr.RNNEncoder(3, direction="causal", read_in=4)).double()
    with torch.no_grad():
        for parameter in guide.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    values = fixed_latents(model, data)
    assert agree(added_up(model, guide, data, values, 4), densities(model, guide, data, values))
    absent = dataclasses.replace(data, sessions=tuple(reversed(data.sessions)))
    assert not agree(added_up(model, guide, absent, values, 4), densities(model, guide, data, values))


@pytest.mark.parametrize("family", [lr.Markov(3), lr.DrivenMarkov(3), lr.Flow(lr.MeanField())], ids=repr)
@pytest.mark.parametrize("latent", ["innovations ar1", "markov normal"])
def test_families_go_on_from_the_window_before(family: lr.Family, latent: str) -> None:
    data, model, _ = parts_of(("gru", latent, "poisson"))
    guide = lr.Guide(model, encoder=lr.RNNEncoder(3, direction="causal", lag=2), family=family)
    guide.to(torch.float64)
    values = fixed_latents(model, data)
    assert agree(added_up(model, guide, data, values, 3), densities(model, guide, data, values))


def test_features_and_filters_see_what_lies_around_a_window() -> None:
    data = make_data(HEADS["poisson gain"], LENGTHS)
    heads = {
        "y": lr.Poisson(
            gain=lr.StimulusGain("stimulus", lags=3),
            feedback=lr.History(5, filters=2, into=("transition", "readout")),
            readout=lr.WindowedAttention(6, 2),
        )
    }
    inputs = [lr.Convolution(lr.Lags("drive", 2, future=1), 2, widths=3, dilations=2)]
    model = lr.LatentRNN(
        data.spec, transition=lr.LSTM(3), latent=lr.Innovations(2), observations=heads, inputs=inputs
    ).double()
    guide = lr.Guide(model, encoder=lr.RNNEncoder(3, direction="causal")).double()
    values = fixed_latents(model, data)
    for steps in (2, 5, 10, 11):
        assert agree(added_up(model, guide, data, values, steps), densities(model, guide, data, values))


def test_an_overlap_that_reaches_the_end_makes_a_bidirectional_encoder_exact() -> None:
    data, model, guide = parts_of(("gru", "innovations", "poisson"))
    guide = lr.Guide(model, encoder=lr.RNNEncoder(3)).double()
    values = fixed_latents(model, data)
    whole = densities(model, guide, data, values)["q innovations"]
    errors = []
    for overlap in (0, 4, 11):
        found, start = torch.zeros(()), 0
        for window in window_plan("test", lr.Window(4, overlap), model, guide).through(data):
            part = of_window(values, model, start, start + window.num_steps)
            found = found + densities(model, guide, window, part)["q innovations"]
            start += window.num_steps
        errors.append(float((found - whole).abs()))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-10 * float(whole.abs())


def test_a_context_and_particles_go_through_windows() -> None:
    data, model, guide = parts_of(("gru", "innovations ar1", "poisson"))
    data = data[[0, 2]].windows(7, context=3)
    torch.manual_seed(0)
    whole = lr.ELBO().step(Evaluation(model, guide, data, 4000)).bound
    cutting = cut(model, guide, 3)
    bounds = [lr.ELBO().step(Evaluation(model, guide, w, 4000)).bound for w in cutting.through(data, enlarged=True)]
    spread = 6 * abs(float(whole)) * 0.005  # bounds of 4,000 draws differ by less
    assert abs(float(torch.stack(bounds).mean() - whole)) < spread


# -- fitting -------------------------------------------------------------------------------------------------------


def recording(steps: int = 30, sequences: int = 3, seed: int = 0) -> lr.SequenceData:
    rng = np.random.default_rng(seed)
    drive = [rng.normal(size=(steps - 5 * i, 1)) for i in range(sequences)]
    return lr.SequenceData.from_arrays({"y": [rng.poisson(np.exp(x)) for x in drive]}, {"drive": drive}, dt=0.01)


def make_parts(data: Any, **changed: Any) -> tuple[lr.LatentRNN, lr.Guide]:
    settings = {"transition": lr.GRU(4), "latent": lr.Innovations(2, initial=2), "observations": {"y": lr.Poisson()}}
    model = lr.LatentRNN(data.spec, **(settings | {k: v for k, v in changed.items() if k in settings}))
    encoder = changed.get("encoder", lr.RNNEncoder(3, direction="causal"))
    return model, lr.Guide(model, encoder=encoder, family=changed.get("family", lr.MeanField()))


def fit(data: lr.SequenceData, validation: lr.SequenceData | None = None, **settings: Any) -> lr.FitResult:
    return lr.fit(
        *make_parts(data),
        data,
        validation,
        **({"steps": 12, "reporting": lr.Reporting(progress=False), "compute": lr.Compute(device="cpu")} | settings),
    )


def same(first: lr.FitResult, second: lr.FitResult) -> bool:
    pairs = zip((first.model, first.guide), (second.model, second.guide), strict=True)
    return all(
        torch.equal(a, b)
        for x, y in pairs
        for a, b in zip(x.state_dict().values(), y.state_dict().values(), strict=True)
    )


def test_a_window_that_holds_everything_changes_nothing() -> None:
    data, validation = recording(), recording(seed=1)
    whole = fit(data, validation, batch_size=2, objective=lr.ELBO(coordinated_dropout=0.3))
    windowed = fit(
        data,
        validation,
        batch_size=2,
        objective=lr.ELBO(coordinated_dropout=0.3),
        compute=lr.Compute(device="cpu", window=lr.Window(30)),
    )
    assert same(whole, windowed)
    assert whole.history == windowed.history
    assert not same(
        whole,
        fit(
            data,
            validation,
            batch_size=2,
            objective=lr.ELBO(coordinated_dropout=0.3),
            compute=lr.Compute(device="cpu", window=lr.Window(29)),
        ),
    )


def test_gradients_of_windows_average_to_that_of_the_whole_where_no_state_goes_on() -> None:
    """Without a recurrence truncation leaves nothing out, so the loss of a window is an unbiased one of the whole."""
    data = recording().to(dtype=torch.float64)
    model = lr.LatentRNN(
        data.spec,
        transition=lr.Linear(2),
        latent=lr.Deterministic(),
        observations={"y": lr.Poisson(covariates=["drive"])},
    ).double()
    with torch.no_grad():
        for parameter in model.transition.parameters():
            parameter.zero_()
    guide = lr.Guide(model)

    def gradient(batches: list[lr.SequenceData]) -> Tensor:
        model.zero_grad()
        for batch in batches:
            lr.ELBO().step(Evaluation(model, guide, batch)).surrogate.backward()
        return model.observations["y"].covariate_weight.grad / len(batches)

    windows = []
    for window in cut(model, guide, 8).through(data, enlarged=True):
        model(window)
        windows.append(window)
    assert len(windows) == 4
    assert torch.allclose(gradient(windows), gradient([data]), rtol=1e-10)


def test_validation_in_windows_is_that_of_the_whole() -> None:
    data = recording().to(dtype=torch.float64)
    model, guide = make_parts(data, latent=lr.Deterministic())
    model, guide = model.double(), lr.Guide(model).double()
    whole = evaluation.validation_bound(lr.ELBO(), model, guide, data, 1, batch_size=2)
    windowed = evaluation.validation_bound(lr.ELBO(), model, guide, data, 1, batch_size=2, windows=cut(model, guide, 7))
    assert windowed == pytest.approx(whole, rel=1e-12)


def test_a_fit_in_windows_finds_what_a_fit_of_the_whole_finds() -> None:
    rng = np.random.default_rng(3)
    drive = rng.normal(size=(4, 100, 1))
    rate = np.exp(0.2 + 0.9 * drive @ np.array([[1.0, -1.0]]))
    data = lr.SequenceData.from_arrays({"y": rng.poisson(rate)}, {"drive": drive}, dt=0.01)
    model = lr.LatentRNN(
        data.spec, transition=lr.GRU(3), latent=lr.Deterministic(), observations={"y": lr.Poisson(covariates=["drive"])}
    )
    settings = {
        "steps": 120,
        "optimizer": lr.Adam(0.1),
        "reporting": lr.Reporting(progress=False),
        "compute": lr.Compute(device="cpu"),
    }
    found = lr.fit(model, lr.Guide(model), data, **(settings | {"compute": lr.Compute("cpu", window=lr.Window(20))}))
    planted = found.model.observations["y"].coefficients()["covariate_weight"][:, 0]
    assert torch.allclose(planted, torch.tensor([0.9, -0.9]), atol=0.25)
    assert found.settings["window"] == {"steps": 20, "overlap": 0}
    evidence = [
        r.posterior(data).evidence("elbo").total for r in (found, lr.fit(model, lr.Guide(model), data, **settings))
    ]
    assert evidence[0] > evidence[1] - 0.02 * abs(evidence[1])


def test_memory_that_windows_hand_on_has_no_gradient() -> None:
    data, model, guide = parts_of(("gru", "innovations ar1", "poisson"))
    for window in cut(model, guide).through(data):
        lr.ELBO().step(Evaluation(model, guide, window)).surrogate.backward()
        assert window.around is not None
        assert {"state", "drawn", "encoder"} <= window.around.carry_out.keys()
        assert not any(value.requires_grad for value in window.around.carry_out.values())


class Seeing(lr.RNNEncoder):
    """An encoder whose user writes down what it is shown."""

    seen: ClassVar[list[Tensor]]

    def inputs(self, data: lr.SequenceData) -> Tensor:
        self.seen.append(data.observations["y"])
        return super().inputs(data)


class Scoring(lr.ELBO):
    """The ELBO of a user who writes down which entries of a window are scored."""

    scored: ClassVar[list[Tensor]]
    name = "elbo"

    def step(self, at: Any) -> Any:
        self.scored.append(at.data.masks["y"])
        return super().step(at)


def test_an_encoder_never_sees_in_a_window_what_dropout_hid(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = torch.randn(3, 40, 2, generator=torch.Generator().manual_seed(0))
    data = lr.SequenceData.from_arrays({"y": recorded.numpy()}, standardise={"y": (0.0, 1.0)})
    seen: list[Tensor] = []
    scored: list[Tensor] = []
    monkeypatch.setattr(Seeing, "seen", seen, raising=False)
    monkeypatch.setattr(Scoring, "scored", scored, raising=False)
    model, guide = make_parts(data, encoder=Seeing(3), observations={"y": lr.Gaussian()})
    lr.fit(
        model,
        guide,
        data,
        steps=8,
        reporting=lr.Reporting(progress=False),
        objective=Scoring(coordinated_dropout=0.5),
        compute=lr.Compute(window=lr.Window(10, 5), device="cpu"),
    )
    assert len(seen) == len(scored) == 8
    assert {values.shape[1] for values in seen} == {10, 15}  # the last window has nothing after it
    for values, mask in zip(seen, scored, strict=True):
        # whatever it sees, what lies after the window too, is hidden or enlarged
        assert not torch.isin(values, recorded).any()
        for channel in range(2):
            inside, hidden = values[:, :10, channel], mask[..., channel]
            assert 0 < hidden.float().mean() < 1
            assert len(inside[hidden].unique()) == 1
            assert not torch.isin(inside[~hidden], inside[hidden]).any()


def test_lists_of_the_history_go_by_the_same_steps() -> None:
    """The initial state has a KL in the first window alone; in the others it adds nothing, and the bound is the sum."""
    result = fit(recording(), compute=lr.Compute("cpu", window=lr.Window(7)), batch_size=2, steps=14)
    history = result.history
    terms = [name for name in history if name.partition("/")[0] in ("log_likelihood", "kl")]
    assert {len(history[name]) for name in terms} == {len(history["step"])}
    sums = [
        sum(history[name][i] * (1 if name.startswith("log") else -1) for name in terms)
        for i in range(len(history["step"]))
    ]
    assert sums == pytest.approx(history["elbo"])
    assert 0.0 in history["kl/initial"]
    assert result.to_dataframe()["kl/initial"].tolist() == history["kl/initial"]


@pytest.mark.parametrize("killed_at", [4, 6])
def test_a_fit_in_windows_goes_on_bit_for_bit(tmp_path: Path, killed_at: int) -> None:
    data = recording()
    settings = {"compute": lr.Compute("cpu", window=lr.Window(7)), "batch_size": 2, "steps": 14}
    undisturbed = fit(data, **settings)
    steps = itertools.count(1)

    def dying(*_: Any) -> None:
        if next(steps) == killed_at:
            raise Killed

    hook = register_optimizer_step_post_hook(dying)
    with pytest.raises(Killed):
        fit(data, checkpointing=lr.Checkpointing(tmp_path, every=0.0), **settings)
    hook.remove()
    resumed = fit(data, checkpointing=lr.Checkpointing(tmp_path, resume=True), **settings)
    assert same(resumed, undisturbed)
    assert resumed.history == undisturbed.history


# -- what cannot be cut --------------------------------------------------------------------------------------------


def label(**changed: Any) -> dict[str, Any]:
    return changed


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "gaussian chain": (label(family=lr.GaussianChain()), "GaussianChain.*whole path"),
    "numbers per sequence": (label(family=lr.PerSequence(lr.MeanField())), "numbers for every step"),
    "bent chain": (label(family=lr.Flow(lr.Markov())), "Flow"),
    "matern": (label(latent=lr.Innovations(2, prior="matern32")), "Innovations.*more of it than its last value"),
    "discrete": (label(latent=lr.Discrete(2)), "Discrete"),
    "attention": (label(observations={"y": lr.Poisson(readout=lr.CausalAttention(2))}), "CausalAttention"),
    "calcium": (label(observations={"y": lr.Calcium(0.1)}), "more than the present state"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_cut_is_refused_with_the_reason(case: str) -> None:
    changed, message = REFUSED[case]
    data = recording()
    model, guide = make_parts(data, **changed)
    with pytest.raises(ValueError, match=f"fit: window: .*{message}"):
        lr.fit(
            model,
            guide,
            data,
            steps=1,
            compute=lr.Compute(window=lr.Window(10)),
            reporting=lr.Reporting(progress=False),
        )


def test_settings_of_windows_are_checked() -> None:
    data, (model, guide) = recording(), make_parts(recording())
    with pytest.raises(ValueError, match="Window: steps must be a whole number"):
        lr.Window(0)
    with pytest.raises(TypeError, match="window must be a Window"):
        lr.Compute(window=100)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="sum over the windows"):
        lr.fit(
            model, guide, data, steps=1, compute=lr.Compute(window=lr.Window(10)), objective=lr.IWAE(num_particles=2)
        )
    slow = make_data(HEADS["clocked"])
    model, guide = make_model(default_transition("clocked"), "innovations", "clocked", slow)
    with pytest.raises(ValueError, match="multiple of 2"):
        lr.fit(model, guide, slow, steps=1, compute=lr.Compute(window=lr.Window(3)))


@pytest.mark.gpu
def test_windows_of_files_go_to_a_gpu(tmp_path: Path) -> None:
    counts = np.random.default_rng(0).poisson(1.0, (4, 50, 3))
    np.save(tmp_path / "counts.npy", counts)
    stored = lr.StoredSequences.from_arrays({"y": np.load(tmp_path / "counts.npy", mmap_mode="r")})
    model, guide = make_parts(stored)
    settings = {
        "batch_size": 2,
        "steps": 12,
        "compute": lr.Compute(window=lr.Window(12, 4), device="cuda"),
        "reporting": lr.Reporting(progress=False),
    }
    result = lr.fit(model, guide, stored, **settings)
    again = lr.fit(model, guide, stored.load(), **settings)
    pairs = zip(result.model.state_dict().values(), again.model.state_dict().values(), strict=True)
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in pairs)
    posterior = result.posterior(stored.load(), window=lr.Window(12), device="cuda")
    assert posterior.mean("y", 10).shape == (4, 50, 3)
