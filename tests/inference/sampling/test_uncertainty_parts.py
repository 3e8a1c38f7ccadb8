"""What `lr.uncertainty` is made of: systems of singular and indefinite matrices, valleys, names of directions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import latentrnn as lr
from latentrnn.inference.sampling.uncertainty.derivatives import Expansion
from latentrnn.inference.sampling.uncertainty.directions import blocks
from latentrnn.inference.sampling.uncertainty.krylov import row_norms, solve, spectrum
from latentrnn.inference.sampling.uncertainty.polish import polished
from latentrnn.inference.sampling.uncertainty.valleys import Valleys
from latentrnn.inference.sampling.uncertainty.weights import Weights


def symmetric(seed: int, values: list[float]) -> tuple[torch.Tensor, torch.Tensor]:
    """A matrix with these eigenvalues, and its eigenvectors in columns."""
    rng = np.random.default_rng(seed)
    vectors = torch.from_numpy(np.linalg.qr(rng.normal(size=(len(values), len(values))))[0])
    return vectors @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ vectors.mT, vectors


@pytest.mark.parametrize("values", [[1.0] * 5 + [0.1, 0.01, 2.0], [3.0, -0.5, 0.2, 1.0, 0.7, 0.05]])
def test_a_regular_system_is_solved(values: list[float]) -> None:
    matrix, _ = symmetric(0, values)
    right = torch.arange(1.0, len(values) + 1, dtype=torch.float64)
    found = solve(matrix.mv, right, floor=1e-10, limit=100)
    assert torch.allclose(found.value, torch.linalg.solve(matrix, right), rtol=1e-8)
    assert found.resolved.all()
    assert found.residual < 1e-7


def test_of_a_singular_system_what_the_matrix_reaches_is_solved_and_the_rest_is_told() -> None:
    matrix, vectors = symmetric(1, [0.0, 1.0, 0.5, 2.0, 0.25, 1.5])
    right = matrix @ torch.ones(6, dtype=torch.float64)  # nothing along the first
    found = solve(matrix.mv, right, floor=1e-10, limit=100)
    assert torch.allclose(found.value, torch.linalg.pinv(matrix) @ right, rtol=1e-8)
    right = right + vectors[:, 0]
    found = solve(matrix.mv, right, floor=1e-10, limit=100)
    (flat,) = (~found.resolved).nonzero().flatten().tolist()
    assert abs(float(found.pairs.shares[flat])) * right.norm() == pytest.approx(1.0, rel=1e-8)
    assert abs(float(found.pairs.vectors[:, flat] @ vectors[:, 0])) == pytest.approx(1.0, rel=1e-8)


def test_a_system_that_takes_more_products_says_what_is_left() -> None:
    matrix, _ = symmetric(2, np.geomspace(1e-6, 1.0, 60).tolist())
    found = solve(matrix.mv, torch.ones(60, dtype=torch.float64), floor=1e-10, limit=8)
    assert found.residual > 1e-3


def test_the_outermost_eigenvalues_and_the_norms_of_rows() -> None:
    matrix, _ = symmetric(3, [-0.3, *np.linspace(0.1, 1.0, 30).tolist(), 4.0])
    generator = torch.Generator().manual_seed(0)
    found = spectrum(matrix.mv, torch.ones(32, dtype=torch.float64), count=20)
    assert float(found.values[0]) == pytest.approx(-0.3, rel=1e-6)
    assert float(found.values[-1]) == pytest.approx(4.0, rel=1e-6)
    norms = row_norms(matrix.mv, torch.ones(32, dtype=torch.float64), probes=4000, generator=generator)
    assert torch.allclose(norms, matrix.norm(dim=1), rtol=0.1)


def test_what_is_flat_falls_apart_into_what_belongs_together() -> None:
    """In whatever basis: two pairs of entries, each of which is flat by itself, and one entry that is not."""
    first = torch.tensor([1.0, -1.0, 0.0, 0.0, 0.0], dtype=torch.float64) / 2**0.5
    second = torch.tensor([0.0, 0.0, 0.6, 0.0, 0.8], dtype=torch.float64)
    basis = torch.stack([first + second, first - second], 1) / 2**0.5
    assert sorted(group.tolist() for group in blocks(basis)) == [[0, 1], [2, 4]]


def quartic(u: torch.Tensor) -> torch.Tensor:
    """A valley along the second entry that bends down at zero and up further out."""
    return 0.5 * u[0] ** 2 - 0.5e-4 * u[1] ** 2 + 0.25e-3 * u[1] ** 4


def test_a_valley_counts_by_how_steep_it_is_where_the_value_has_moved() -> None:
    expansion = Expansion(quartic, torch.zeros(2, dtype=torch.float64))
    along = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    valleys = Valleys(expansion, torch.ones(2, dtype=torch.float64), along, torch.tensor([-1e-4], dtype=torch.float64))
    # a value that moves by a hundredth of what it moves along the other entry: two standard deviations are 200 away
    (share,) = valleys.shares(torch.tensor([0.01], dtype=torch.float64), 1.0).tolist()
    rise = -0.5e-4 * 256**2 + 0.25e-3 * 256**4
    assert share == pytest.approx(0.01**2 * 256**2 / (2 * rise), rel=1e-6)
    # one that moves as much: two standard deviations are two away, where the density has hardly fallen
    assert valleys.shares(torch.tensor([1.0], dtype=torch.float64), 1.0).isinf().all()
    # and one that nothing else determines
    assert valleys.shares(torch.tensor([0.01], dtype=torch.float64), 0.0).isinf().all()


def test_where_the_density_rises_one_way_a_valley_is_open() -> None:
    expansion = Expansion(lambda u: 0.5 * u[0] ** 2 - 1e-6 * u[1] ** 3 - 1e-7 * u[1] ** 2, torch.zeros(2).double())
    along = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    valleys = Valleys(expansion, torch.ones(2).double(), along, torch.tensor([-2e-7], dtype=torch.float64))
    assert valleys.shares(torch.tensor([0.01], dtype=torch.float64), 1.0).isinf().all()


def rosenbrock(u: torch.Tensor) -> torch.Tensor:
    pairs = u.reshape(-1, 2)
    return (100 * (pairs[:, 1] - pairs[:, 0] ** 2) ** 2 + (1 - pairs[:, 0]) ** 2).sum()


@pytest.mark.parametrize("pairs", [1, 40])  # with all of the Hessian, and by its products alone
def test_newton_steps_find_the_least_value_of_a_bent_valley(pairs: int) -> None:
    start = torch.tensor([-1.2, 1.0], dtype=torch.float64).repeat(pairs)
    found = polished(rosenbrock, start, 200, torch.Generator().manual_seed(0))
    assert found.arrived
    assert torch.allclose(found.point, torch.ones_like(start), atol=1e-8)
    assert polished(rosenbrock, start, 3, torch.Generator().manual_seed(0)).steps == 3
    assert polished(rosenbrock, start, 0, torch.Generator().manual_seed(0)).steps == 0


def test_a_hessian_is_that_of_products() -> None:
    start = torch.tensor([0.3, -0.7, 1.2, 0.1], dtype=torch.float64)
    expansion = Expansion(rosenbrock, start)
    expected = torch.autograd.functional.hessian(rosenbrock, start)
    assert torch.allclose(expansion.hessian(), expected)
    assert torch.allclose(expansion.product(torch.ones(4).double()), expected.sum(1))
    linear = Expansion(lambda u: u.sum(), start)
    assert not linear.hessian().any()


def test_weights_go_by_the_names_of_the_table() -> None:
    data = lr.SequenceData.from_arrays({"y": np.ones((2, 3, 2))}, {"x": np.ones((2, 3, 1))})
    memory = lr.LeakyIntegrator(1, fixed={"input_weight": 1.0})
    heads = {"y": lr.Gaussian()}
    model = lr.LatentRNN(data.spec, transition=memory, latent=lr.Deterministic(), observations=heads, inputs="x")
    weights = Weights(model.double(), None)
    assert set(weights.owners) <= set(model.parameters_table().index)
    assert weights.names[:2] == ["transition.time_constant", "latent.initial_state"]
    assert "y.readout.weight[1, 0]" in weights.names
    assert weights.size == len(weights.names) == sum(parameter.numel() for parameter in model.parameters())
    # evaluating elsewhere leaves the model as it is
    before = model.transition.log_time_constant.clone()
    found = weights.evaluate(lambda m: m.transition.log_time_constant * 1, weights.start + 1.0)
    assert torch.allclose(found, before + 1.0)
    assert torch.equal(model.transition.log_time_constant, before)
