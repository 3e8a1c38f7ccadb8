"""Random inputs to the transition at every step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints

from latentrnn.data import SequenceData
from latentrnn.models import sites
from latentrnn.models.features.gap import gaps, median_gap
from latentrnn.models.latents.autoregressive import AutoregressiveNormal
from latentrnn.models.latents.gaussian_process import KERNELS, NUGGET, GaussianProcess
from latentrnn.models.latents.initial_state import NormalStart
from latentrnn.models.latents.latent import DRAWN, STATE, Latent, along_time, learned_vector, where_valid
from latentrnn.models.latents.path import Carry, LatentSite, Path, Step
from latentrnn.models.latents.student_t import StudentTTrajectory
from latentrnn.models.parameters.parameter_spec import PER_GAP, TIME, ParameterSpec
from latentrnn.models.transitions import Transition
from latentrnn.models.transitions.transition import concatenate_channels
from latentrnn.support.arguments import check_choice, check_number, check_size
from latentrnn.support.clock import step_length


def _itself(value: Tensor) -> Tensor:
    return value


PRIORS = ("white", "student_t", "ar1", "matern32", "squared_exponential")


class Innovations(Latent):
    """u_t drives the transition: h_t = transition(s_{t-1}, [a_t, u_t]).

        white:      u_t ~ Normal(0, scale^2)
        student_t:  u_t ~ StudentT(degrees, 0, scale): rare large inputs among small ones
        ar1:        u_t ~ Normal(phi u_{t-1}, shock^2),  shock^2 = (1 - phi^2) scale^2,  phi = exp(-dt / tau),
                    u_1 ~ Normal(0, scale^2)
        matern32, squared_exponential:  a Gaussian process of standard deviation scale and length scale tau, smooth
                    once and infinitely often; a small share of its variance, the nugget, is white

    These are LFADS's inferred inputs, not the residuals of a Kalman filter. Scale, degrees of freedom (above 2) and
    tau (seconds with `dt` or times, otherwise steps) are learned for each dimension. The cost of a Gaussian process
    is cubic in the steps, of which there may be 2048; "ar1" is the Matern-1/2 process at linear cost. The squared
    exponential has no finite memory to step by, so that `Posterior.one_step_ahead` refuses it; "matern32" has one.

    Args:
        dim: dimension of u_t.
        initial: dimension of a Normal latent mapped to s_0; None for a learned constant s_0.
        prior: "white", "student_t", "ar1", "matern32" or "squared_exponential".
        nugget: share of a Gaussian process's variance that is white, one thousandth by default; much less takes double
            precision, in which matrices of smooth processes can still be factorised.

    Raises:
        ValueError: a dimension below one, an unknown prior, or a nugget that is no share or has no process.

    References:
        Pandarinath et al. Inferring single-trial neural population dynamics using sequential auto-encoders. 2018.
        Yu, Cunningham, Santhanam, Ryu, Shenoy, Sahani. Gaussian-process factor analysis for low-dimensional
        single-trial analysis of neural population activity. 2009.
        Hartikainen, Särkkä. Kalman filtering and smoothing solutions to temporal Gaussian process regression models.
        2010.
    """

    declared: ClassVar = {
        "scale": ParameterSpec.positive("log_scale", dims=("innovation",)),
        "time_constant": ParameterSpec.positive("log_time_constant", unit=TIME, dims=("innovation",)),
        "persistence": ParameterSpec(
            "log_time_constant",
            value=lambda latent, kept: torch.exp(-latent.dt / kept.exp()),
            tensor=lambda latent, value: (-latent.dt / value.log()).log(),
            support=constraints.unit_interval,
            unit=PER_GAP,
            dims=("innovation",),
        ),
        "shock": ParameterSpec(
            "log_scale",
            value=lambda latent, kept: kept.exp() * latent.fresh_share(),
            tensor=lambda latent, value: (value / latent.fresh_share()).log(),
            support=constraints.positive,
            dims=("innovation",),
            follows=("time_constant", "persistence"),
        ),
        "degrees": ParameterSpec.positive("log_excess_degrees", least=2.0, dims=("innovation",)),
        "initial_state": ParameterSpec("initial_state", dims=("state",)),
    }

    arguments_added_later: ClassVar = MappingProxyType({"nugget": None})

    def __init__(
        self, dim: int, initial: int | None = None, prior: str = "white", nugget: float | None = None, **shared: Any
    ) -> None:
        super().__init__(**shared)
        self.dim = self.input_size = check_size("Innovations", "dim", dim)
        self.initial = None if initial is None else check_size("Innovations", "initial", initial)
        self.prior = check_choice("Innovations", "prior", prior, PRIORS)
        if nugget is not None and self.prior not in KERNELS:
            raise ValueError(f"Innovations: a nugget is one of a Gaussian process; found prior={prior!r}")
        self.nugget = None if nugget is None else check_number("Innovations", "nugget", nugget, above=0.0, below=1.0)

    def arguments(self) -> dict[str, Any]:
        found = super().arguments()
        if self.nugget is None:
            del found["nugget"]  # described as before there was one, so that what was begun then goes on
        return found

    def build(self, transition: Transition, dt: float | None) -> None:
        self.dt = step_length(dt)
        self.log_scale = nn.Parameter(torch.zeros(self.dim))
        if self.prior in ("ar1", *KERNELS):
            self.log_time_constant = nn.Parameter(torch.full((self.dim,), math.log(10 * self.dt)))
        if self.prior == "student_t":
            self.log_excess_degrees = nn.Parameter(torch.full((self.dim,), math.log(3.0)))
        if self.initial is None:
            self.initial_state = learned_vector(transition.state_size)
        else:
            self.start = NormalStart(self.initial, transition.state_size)

    def reset_parameters(self) -> None:
        """Return to unit scale, a time constant of ten steps and five degrees of freedom."""
        with torch.no_grad():
            self.log_scale.zero_()
            if self.prior in ("ar1", *KERNELS):
                self.log_time_constant.fill_(math.log(10 * self.dt))
            if self.prior == "student_t":
                self.log_excess_degrees.fill_(math.log(3.0))
            if self.initial is None:
                self.initial_state.zero_()

    @property
    def timed(self) -> bool:  # type: ignore[override]
        """Whether neighbours are the more alike the less time lies between them."""
        return self.prior in ("ar1", *KERNELS)

    def initialise(self, data: SequenceData) -> None:
        """Start from a time constant of ten median gaps where steps are irregular."""
        if self.timed and (gap := median_gap(data)) is not None:
            with torch.no_grad():
                self.log_time_constant.fill_(math.log(10 * gap))

    @property
    def continues(self) -> bool:  # type: ignore[override]
        """Whether a window goes on from the one before: not of a process that remembers more than its last value."""
        return self.prior not in KERNELS

    @property
    def scale(self) -> Tensor:
        """The prior's standard deviation (of a Student-t, its scale), (dim,)."""
        return self.log_scale.exp().detach()

    @property
    def degrees(self) -> Tensor:
        """Degrees of freedom of the Student-t prior, above 2, (dim,)."""
        return self._degrees().detach()

    def _degrees(self) -> Tensor:
        return 2 + self.log_excess_degrees.exp()

    @property
    def time_constant(self) -> Tensor:
        """Tau of the AR(1) prior, or the length scale of a Gaussian process, (dim,), in seconds or steps."""
        return self.log_time_constant.exp().detach()

    @property
    def _white_share(self) -> float:
        return NUGGET if self.nugget is None else self.nugget

    def sites(self) -> list[LatentSite]:
        initial = [] if self.initial is None else [LatentSite(sites.INITIAL, self.initial, along_time=False)]
        return [*initial, LatentSite(sites.INNOVATIONS, self.dim, True, heavy_tailed=self.prior == "student_t")]

    def sample(self, transition: Transition, inputs: Tensor, data: SequenceData) -> Path:
        if data.carry_in is not None:
            start = data.carry_in[STATE]
        else:
            start = self.initial_state if self.initial is None else self.start.sample(data.num_sequences)
        return Path(start, innovations=pyro.sample(sites.INNOVATIONS, self.path_prior(data)))

    def path_prior(self, data: SequenceData) -> dist.Distribution:
        """Return the prior of u_{1:T} of a batch, event (time, dim); standard normal in padding."""
        shape = (data.num_sequences, data.num_steps, self.dim)
        if self.prior == "white":
            scale = where_valid(along_time(self.log_scale.exp()), data, 1.0)
            scale = scale.expand(torch.broadcast_shapes(scale.shape, shape))
            return dist.Normal(torch.zeros_like(scale), scale, validate_args=False).to_event(2)
        valid = data.valid if data.padded else None
        if self.prior == "ar1":
            before = None if data.carry_in is None else data.carry_in[DRAWN]
            memory, fresh = self._memory(gaps(data), along_time)
            return AutoregressiveNormal(memory, along_time(self.log_scale.exp()), shape, valid, before, fresh)
        if self.prior == "student_t":
            return StudentTTrajectory(along_time(self._degrees()), along_time(self.log_scale.exp()), shape, valid)
        times = data.times
        if times is None:
            times = self.dt * torch.arange(data.num_steps, dtype=data.dtype, device=data.device)
        scale, length = self.log_scale.exp(), self.log_time_constant.exp()
        return GaussianProcess(self.prior, scale, length, times, valid, data.num_sequences, self._white_share)

    def fresh_share(self) -> Tensor:
        """Return sqrt(1 - phi^2), (..., dim): how large what comes new in a step is beside the process of `scale`."""
        return self._memory(None)[1] if self.prior == "ar1" else torch.ones_like(self.log_scale)

    def _memory(self, gap: Tensor | None, spread: Callable[[Tensor], Tensor] = _itself) -> tuple[Tensor, Tensor]:
        """phi and sqrt(1 - phi^2), (..., dim), for gaps (...) in the clock's unit; None stands for one step."""
        passed = self.dt if gap is None else gap.unsqueeze(-1).to(self.log_scale)
        rate = passed / spread(self.log_time_constant.exp())
        # where a step has no length, the first of a sequence, the root has no gradient either
        fresh = -torch.expm1(-2 * rate)
        return torch.exp(-rate), fresh.clamp_min(torch.finfo(fresh.dtype).tiny).sqrt()

    def start_prior(self, shape: tuple[int, ...]) -> dict[str, dist.Distribution]:
        return {} if self.initial is None else {sites.INITIAL: self.start.prior(shape)}

    def begin_with(self, shape: tuple[int, ...], values: Mapping[str, Tensor]) -> Carry:
        if self.initial is None:
            return Carry(self.initial_state.expand(*shape, -1))
        return Carry(self.start.map.at_step(values[sites.INITIAL]))

    def step(self, transition: Transition, carry: Carry, a_t: Tensor, gap: Tensor | None) -> Step:
        if self.prior == "squared_exponential":
            raise ValueError(
                "Innovations: a squared-exponential process has no finite memory, so that it cannot be filtered step "
                "by step; use prior='matern32' or 'ar1', or judge by evidence on held-out sequences"
            )
        if self.prior == "matern32":
            return self._smooth_step(transition, carry, a_t, gap)
        u = carry.innovation
        shape = (*carry.state.shape[:-1], self.dim)
        prior: dist.Distribution
        if self.prior == "student_t":
            prior = dist.StudentT(self._degrees(), 0.0, self.log_scale.exp(), validate_args=False).expand(shape)
        elif self.prior == "white" or u is None:
            scale = self.log_scale.exp()
            prior = dist.Normal(scale.new_zeros(shape), scale.expand(shape), validate_args=False)
        else:
            phi, fresh = self._memory(gap)
            prior = dist.Normal(phi * u, fresh * self.log_scale.exp(), validate_args=False)

        def move(u_t: Tensor | None) -> Carry:
            assert u_t is not None
            return Carry(transition.step(carry.state, concatenate_channels(a_t, u_t)), u_t)

        return Step(prior.to_event(1), move)

    def _smooth_step(self, transition: Transition, carry: Carry, a_t: Tensor, gap: Tensor | None) -> Step:
        """p(u_t | u_{<t}) of the Matérn process: its smooth part and slope are a Markov process, filtered exactly.

        The carry holds u_t and, given u_{<=t}, mean and covariance of f_t and f'_t / rate, of unit variance.
        """
        shape = (*carry.state.shape[:-1], self.dim)
        if carry.innovation is None:
            one = torch.ones(shape, dtype=torch.float64, device=carry.state.device)
            f, slope, v_ff, v_fs, v_ss = 0 * one, 0 * one, one, 0 * one, one
        else:
            _, f, slope, v_ff, v_fs, v_ss = carry.innovation.chunk(6, -1)
            seconds = self.dt if gap is None else gap.unsqueeze(-1).double()
            length = self.log_time_constant.exp().double()  # in double: differences of nearly equal numbers follow
            x = math.sqrt(3) * seconds / length
            e, e2 = torch.exp(-x), torch.exp(-2 * x)
            ff, fs, sf, ss = e * (1 + x), e * x, -e * x, e * (1 - x)
            f, slope, v_ff, v_fs, v_ss = (
                ff * f + fs * slope,
                sf * f + ss * slope,
                # what is left of the stationary unit variances after the step comes last
                ff**2 * v_ff + 2 * ff * fs * v_fs + fs**2 * v_ss + 1 - e2 * (1 + 2 * x + 2 * x**2),
                ff * sf * v_ff + (ff * ss + fs * sf) * v_fs + fs * ss * v_ss + 2 * e2 * x**2,
                sf**2 * v_ff + 2 * sf * ss * v_fs + ss**2 * v_ss + 1 - e2 * (1 - 2 * x + 2 * x**2),
            )
        nugget = self._white_share
        share, scale = (1 - nugget) ** 0.5, self.log_scale.exp().double()
        variance = (1 - nugget) * v_ff + nugget
        loc, spread = (scale * share * f).to(a_t), (scale * variance.sqrt()).to(a_t)

        def move(u_t: Tensor | None) -> Carry:
            assert u_t is not None
            surprise = (u_t.double() / scale - share * f) / variance
            known = [f + share * v_ff * surprise, slope + share * v_fs * surprise]
            left = nugget / variance  # 1 - (1 - nugget) v_ff / variance, without the difference
            known += [left * v_ff, left * v_fs, v_ss - (1 - nugget) * v_fs**2 / variance]
            memory = torch.cat([u_t.double(), *(part.expand(shape) for part in known)], -1)
            return Carry(transition.step(carry.state, concatenate_channels(a_t, u_t)), memory)

        return Step(dist.Normal(loc, spread, validate_args=False).to_event(1), move)
