"""`torch.compile` on the numerical core: whole graphs where the code is ours, and a count of breaks around Pyro.

The backends here run the traced graphs as they are (no compiler is needed): what is checked is that tracing goes
through, where it stops, and that what comes out is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import latentrnn as lr
from latentrnn.inference.objectives.terms import elbo_terms
from tests.registry import OBSERVATIONS, make_data, make_model

# the tracer looks at every tensor's gradient
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")

LOOPS = {"gated": lr.GatedTransition(3), "leaky": lr.LeakyIntegrator(3), "linear": lr.Linear(3)}
MOST_BREAKS = 32  # of a step of the ELBO: one for every Pyro statement, message and fused kernel; 15 to 28 were counted


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch._dynamo.reset()
    validation = torch.distributions.Distribution._validate_args
    yield
    torch._dynamo.reset()
    torch.distributions.Distribution.set_default_validate_args(validation)  # tracing switches it off


@pytest.mark.parametrize("name", LOOPS)
def test_loops_of_ours_are_one_graph(name: str) -> None:
    cell = LOOPS[name].fresh()
    cell.build(2)
    inputs, state = torch.randn(4, 6, 2), torch.randn(4, cell.state_size)

    def scan(inputs: Tensor, state: Tensor) -> Tensor:
        return cell.scan(inputs, state)[0]

    compiled = torch.compile(scan, backend="aot_eager", fullgraph=True)  # an error where the graph breaks
    own, other = scan(inputs, state), compiled(inputs, state)
    torch.testing.assert_close(other, own)
    parameters = list(cell.parameters())
    for one, two in zip(
        torch.autograd.grad(own.square().sum(), parameters),
        torch.autograd.grad(other.square().sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(two, one)


@pytest.mark.parametrize("family", ["poisson", "gaussian"])
def test_a_head_is_one_graph(family: str) -> None:
    data = make_data(OBSERVATIONS[family])
    model, _ = make_model("gru", "initial state", family, data)
    ((name, head),) = model.observations.items()
    states = torch.randn(*data.valid.shape, model.transition.hidden_size, dtype=data.dtype)

    inputs = head.inputs(data)

    def log_likelihood(states: Tensor) -> Tensor:
        return head(states, inputs).log_prob(data.observations[name])

    own = log_likelihood(states)
    torch.testing.assert_close(torch.compile(log_likelihood, backend="aot_eager", fullgraph=True)(states), own)


@pytest.mark.parametrize("latent", ["innovations with initial", "markov normal"])
@pytest.mark.slow
def test_a_whole_step_breaks_around_pyro_and_gives_the_same(latent: str) -> None:
    data = make_data(OBSERVATIONS["poisson"])
    model, _ = make_model("gru", latent, "poisson", data)
    guide = lr.Guide(model, encoder=lr.RNNEncoder(4), family=lr.Markov(3)).double()

    def elbo() -> Tensor:
        torch.manual_seed(0)
        return elbo_terms(model, guide, data).elbo()

    own = elbo()
    expected = torch.autograd.grad(own, list(guide.parameters()), allow_unused=True)
    graphs: list[torch.fx.GraphModule] = []

    def as_traced(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    found = torch.compile(elbo, backend=as_traced)()
    assert 0 < len(graphs) - 1 <= MOST_BREAKS
    torch.testing.assert_close(found, own)
    gradients = torch.autograd.grad(found, list(guide.parameters()), allow_unused=True)
    for one, two in zip(expected, gradients, strict=True):
        assert (one is None) == (two is None)
        if one is not None:
            torch.testing.assert_close(two, one)
