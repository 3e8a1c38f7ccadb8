"""Files that other programs read: their keys, shapes and numbers, read back as those programs do."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import latentrnn as lr

DRAWS = 6


def make_data(seed: int = 0, *, dt: float | None = 0.02, forward: int = 0, hidden: bool = False) -> lr.SequenceData:
    rng = np.random.default_rng(seed)
    seen, out = rng.poisson(1.0, (7, 10, 4)).astype(float), rng.poisson(1.0, (7, 10, 2)).astype(float)
    if forward:
        seen[:, -forward:], out[:, -forward:] = np.nan, np.nan
    if hidden:
        out[:] = np.nan
    cue = rng.normal(size=(7, 10, 1))
    return lr.SequenceData.from_arrays({"heldin": seen, "heldout": out}, {"cue": cue}, dt=dt)


def posterior(data: lr.SequenceData, observes: list[str] | None = None, **heads: lr.Observation) -> lr.Posterior:
    parts = {"heldin": lr.Poisson(readout=lr.FactorReadout(3)), "heldout": lr.Poisson()} | heads
    torch.manual_seed(0)
    model = lr.LatentRNN(data.spec, transition=lr.GRU(5), latent=lr.Innovations(2, initial=4), observations=parts)
    guide = lr.Guide(model, encoder=lr.RNNEncoder(4, observes=["heldin"] if observes is None else observes))
    return lr.Posterior(model, guide, data, device="cpu")


def evaluated(path: Path, dataset: str, spikes: np.ndarray) -> float:
    """Bits per spike of held-out neurons, from the keys that nlb_tools' `evaluate` asks for, by its formula."""
    with h5py.File(path) as file:
        group = file[dataset]
        assert "train_rates_heldin" in group
        assert "train_rates_heldout" in group
        rates = group["eval_rates_heldout"][()].astype("float")
        np.concatenate([group["eval_rates_heldin"][()].astype("float"), rates], axis=-1)
    null = np.broadcast_to(np.nanmean(spikes, axis=(0, 1), keepdims=True), spikes.shape)
    log_likelihoods = [np.sum(spikes * np.log(r) - r) for r in (rates, null)]
    return float((log_likelihoods[0] - log_likelihoods[1]) / spikes.sum() / np.log(2))


def test_a_submission_scores_what_the_package_says(tmp_path: Path) -> None:
    train, test = make_data(0), make_data(1)
    found = lr.to_nlb(
        tmp_path / "submission.h5", "mc_maze_20", train=posterior(train), evaluation=posterior(test), num_samples=DRAWS
    )
    rates = posterior(test).mean("heldout", DRAWS)
    expected = lr.bits_per_spike(rates, test.observations["heldout"])
    spikes = test.observations["heldout"].numpy()
    assert evaluated(found, "mc_maze_20", spikes) == pytest.approx(float(expected), abs=1e-5)
    with h5py.File(found) as file:
        assert sorted(file) == ["mc_maze_20"]
        parts = [f"{part}_rates_{kind}" for part in ("eval", "train") for kind in ("heldin", "heldout")]
        assert sorted(file["mc_maze_20"]) == parts
        assert file["mc_maze_20/train_rates_heldin"].shape == (7, 10, 4)


def test_datasets_are_added_and_replaced(tmp_path: Path) -> None:
    path, own = tmp_path / "submission.h5", posterior(make_data(dt=None))
    for dataset in ("mc_rtt", "mc_maze_20", "mc_rtt"):
        lr.to_nlb(path, dataset, train=own, evaluation=own, num_samples=2)
    with h5py.File(path) as file:
        assert sorted(file) == ["mc_maze_20", "mc_rtt"]


def test_the_end_of_trials_is_predicted(tmp_path: Path) -> None:
    train, test = posterior(make_data(0)), posterior(make_data(1, forward=3))
    lr.to_nlb(tmp_path / "a.h5", "dmfc_rsg_20", train=train, evaluation=test, forward_steps=3, num_samples=DRAWS)
    with h5py.File(tmp_path / "a.h5") as file:
        whole = test.mean("heldin", DRAWS).double().numpy()
        np.testing.assert_array_equal(file["dmfc_rsg_20/eval_rates_heldin"][()], whole[:, :7])
        np.testing.assert_array_equal(file["dmfc_rsg_20/eval_rates_heldin_forward"][()], whole[:, 7:])
        assert file["dmfc_rsg_20/train_rates_heldout_forward"].shape == (7, 3, 2)


def test_what_would_mislead_is_refused(tmp_path: Path) -> None:
    own, path = posterior(make_data()), tmp_path / "a.h5"
    both = posterior(make_data(), observes=["heldin", "heldout"])
    cases = {
        "expected an encoder with observes": lambda: lr.to_nlb(path, "mc_maze_20", train=own, evaluation=both),
        "must be missing": lambda: lr.to_nlb(path, "mc_maze_20", train=own, evaluation=own, forward_steps=2),
        "bins of 0.005 s": lambda: lr.to_nlb(path, "mc_maze", train=own, evaluation=own),
        "dataset must be": lambda: lr.to_nlb(path, "maze", train=own, evaluation=own),
        "unknown head 'left'": lambda: lr.to_nlb(path, "mc_maze_20", train=own, evaluation=own, heldin="left"),
        "must be counts": lambda: lr.to_nlb(
            path, "mc_maze_20", train=own, evaluation=posterior(make_data(), heldout=lr.Gaussian())
        ),
    }
    for said, act in cases.items():
        with pytest.raises(ValueError, match=said):
            act()
    assert not path.exists()
    hidden = posterior(make_data(hidden=True), observes=["heldin", "heldout"])  # what is missing cannot be seen
    lr.to_nlb(path, "mc_maze_20", train=own, evaluation=hidden, num_samples=2)


def test_an_lfads_file_has_its_names_and_the_posterior_s_numbers(tmp_path: Path) -> None:
    parts = {"train": posterior(make_data(0)), "valid": posterior(make_data(1))}
    found = lr.to_lfads(tmp_path / "lfads.h5", parts, ["heldin", "heldout"], num_samples=DRAWS)
    shapes = {
        "output_params": (7, 10, 6), "factors": (7, 10, 3), "gen_states": (7, 10, 5), "gen_inputs": (7, 10, 3),
        "co_means": (7, 10, 2), "co_stds": (7, 10, 2), "ic_mean": (7, 4), "ic_std": (7, 4), "recon_data": (7, 10, 6),
        "ext_input": (7, 10, 1), "names": (7,),
    }  # fmt: skip
    with h5py.File(found) as file:
        assert {name: value.shape for name, value in file.items()} == {
            f"{part}_{name}": shape for part in parts for name, shape in shapes.items()
        }
        read = {name: value[()] for name, value in file.items()}
    valid = parts["valid"]
    latents = valid.latents(DRAWS)
    near = {"rtol": 1e-4, "atol": 1e-5}
    np.testing.assert_allclose(read["valid_co_means"], latents["innovations"].mean(0), **near)
    np.testing.assert_allclose(read["valid_co_stds"], latents["innovations"].std(0), **near)
    np.testing.assert_allclose(read["valid_ic_std"], latents["initial"].std(0), **near)
    np.testing.assert_allclose(read["valid_gen_states"], latents["states"].mean(0), **near)
    np.testing.assert_allclose(read["valid_gen_inputs"][..., :2], read["valid_co_means"])
    np.testing.assert_allclose(read["valid_gen_inputs"][..., 2], valid.data.covariates["cue"][..., 0], rtol=1e-6)
    np.testing.assert_allclose(read["valid_output_params"][..., 4:], valid.mean("heldout", DRAWS), rtol=1e-6)
    factors = valid.factors(DRAWS)["heldin"].mean("sample")
    np.testing.assert_allclose(read["valid_factors"], factors, rtol=1e-6)
    np.testing.assert_array_equal(read["valid_recon_data"][..., :4], valid.data.observations["heldin"])


def test_what_an_lfads_file_needs(tmp_path: Path) -> None:
    own = posterior(make_data())
    with pytest.raises(ValueError, match="2 or more"):
        lr.to_lfads(tmp_path / "a.h5", {"train": own}, num_samples=1)
    with pytest.raises(ValueError, match="one at least"):
        lr.to_lfads(tmp_path / "a.h5", {})
    with pytest.raises(FileNotFoundError, match="no folder"):
        lr.to_lfads(tmp_path / "none" / "a.h5", {"train": own})
    with pytest.raises(TypeError, match="must be a"):
        lr.to_lfads(tmp_path / "a.h5", {"train": own.data})  # type: ignore[dict-item]
