"""Fluorescence of a calcium indicator, driven by spike rates."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints

from latentrnn.data import DataSpec, HeadSpec, SequenceData
from latentrnn.models.features.units import like_the_others
from latentrnn.models.observations.drifting_normal import DriftingNormal
from latentrnn.models.observations.head_inputs import HeadInputs
from latentrnn.models.observations.links import IdentityLink, Link, PositiveLink, RealLink, as_link, check_link
from latentrnn.models.observations.observation import Observation, scale_in_units
from latentrnn.models.parameters.parameter_spec import TIME, ParameterSpec
from latentrnn.models.readouts import LinearReadout
from latentrnn.support.arguments import check_choice, check_flag, check_number, check_text
from latentrnn.support.clock import step_length

KERNELS = ("ar1", "ar2", "double_exponential")


class Calcium(Observation):
    """f_t = response(b + a (kernel * rate)_t) + drift_t + noise: events raise the calcium, which decays.

    The rate r_t (events per base step) is another head's expected count (`events="spikes"`: fluorescence and spikes
    of the same cells, of which either may be missing), or link(eta_t) of the head's own readout. The kernel at a lag of
    j base steps, with g = exp(-dt / tau):

        "ar1"                 g_d^j,                                  c_t = g_d c_{t-1} + r_t
        "ar2"                 (g_d^(j+1) - g_r^(j+1)) / (g_d - g_r),  c_t = (g_d + g_r) c_{t-1} - g_d g_r c_{t-2} + r_t
        "double_exponential"  (g_d^j - g_r^j) / its peak,             so that a is the peak of one event

    The convolution is one product of Fourier transforms for all steps, on the base clock; a slower head's frame is the
    calcium at its last base step. Before the start, the rate counts as what it is at the first step. The noise is
    Gaussian; noise, baseline, amplitude and time constants are per channel. Where `from_arrays` standardised the
    head, b, a, drift and noise are in standard units and are mapped back. Events add up inside the response: where
    fluorescence was compressed to tame its bursts, y = arcsinh(f / s), response="arcsinh" keeps b and a in units of s.

    Args:
        decay: tau_d, seconds (base steps where the data have no dt): where learning starts, or the known value.
        rise: tau_r < tau_d, for "ar2" and "double_exponential".
        kernel: "ar1", "ar2" or "double_exponential".
        learn_kernel: False keeps `decay` and `rise` as they are.
        drift: seconds (base steps) between the knots of a slow baseline, one for each sequence: an offset and a
            piecewise linear random walk with learned sizes, integrated out exactly. None for a constant baseline.
        events: name of the head whose expected counts are the rate, on the base clock and with as many channels.
            Without it only the product of rate and amplitude is known: a is one, the rate in units of fluorescence.
        link: "softplus", "exp" or a `PositiveLink`, of the head's own readout.
        response: "identity", "arcsinh" or a `RealLink`, from the sum of events to the fluorescence.
        **shared: see `Observation`.

    Raises:
        ValueError: an unknown kernel or link, time constants that are not positive or not in order, feedback, a
            per-sequence head, irregular times, or an `events` head that does not fit.

    References:
        Vogelstein, Packer, Machado, Sippy, Babadi, Yuste, Paninski. Fast nonnegative deconvolution for spike train
        inference from population calcium imaging. 2010.
        Friedrich, Zhou, Paninski. Fast online deconvolution of calcium imaging data. 2017.
    """

    declared: ClassVar = {
        "scale": scale_in_units("log_noise_scale"),
        "decay_time": ParameterSpec.positive("log_decay", unit=TIME, dims=("channel",)),
        "rise_share": ParameterSpec.unit_interval("rise_logit", unit="of the decay time", dims=("channel",)),
        "amplitude": ParameterSpec(
            "log_amplitude",
            value=lambda head, kept: head.response_unit * kept.exp(),
            tensor=lambda head, value: (value / head.response_unit).log(),
            support=constraints.positive,
            unit="of the response's argument",
            dims=("channel",),
        ),
        "offset_scale": scale_in_units("log_offset_scale"),
        "drift_scale": scale_in_units("log_drift_scale"),
    }

    instantaneous = False
    log_decay: Tensor
    rise_logit: Tensor

    def __init__(
        self,
        decay: float,
        rise: float | None = None,
        *,
        kernel: str = "ar1",
        learn_kernel: bool = True,
        drift: float | None = None,
        events: str | None = None,
        link: str | Link = "softplus",
        response: str | Link = "identity",
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        self.kernel = check_choice("Calcium", "kernel", kernel, KERNELS)
        self.decay = check_number("Calcium", "decay", decay, above=0)
        self.rise = None if rise is None else check_number("Calcium", "rise", rise, above=0)
        self.drift = None if drift is None else check_number("Calcium", "drift", drift, above=0)
        self.events = self.reads = None if events is None else check_text("Calcium", "events", events)
        self.learn_kernel = check_flag("Calcium", "learn_kernel", learn_kernel)
        if (rise is not None) != (kernel != "ar1"):
            raise ValueError(
                f"Calcium: rise goes with 'ar2' and 'double_exponential'; found {kernel!r} with rise {rise}"
            )
        if rise is not None and rise >= decay:
            raise ValueError(f"Calcium: rise must be below decay; found rise {rise} and decay {decay}")
        if self.feedback is not None:
            raise ValueError("Calcium: fluorescence does not drive what comes next; let the spikes' head feed back")
        of_readout = self.readout.own_priors() | self.readout.own_fixed()
        if events is not None and (self.gain is not None or self.covariates or of_readout or shared.get("readout")):
            raise ValueError(
                f"Calcium: with events={events!r} gain, covariates, priors and readout belong to that head"
            )
        self.link = check_link("Calcium", link, PositiveLink)
        self.response = check_link("Calcium", response, RealLink, "response")
        self.outputs_per_channel = 1 if events is None else 0

    def build(self, head: HeadSpec, spec: DataSpec, hidden_size: int) -> None:
        owner = f"observations[{head.name!r}]: Calcium"
        if not head.per_step:
            raise ValueError(f"{owner} needs a per-step head")
        if spec.irregular:
            raise ValueError(f"{owner} needs steps of equal length; the data have times of their own")
        if head.clock != 1 and self.gain is not None:
            raise ValueError(f"{owner}: a gain needs a head on the base clock; this one's clock is {head.clock}")
        self.dt = step_length(spec.dt)
        super().build(head, spec, hidden_size)
        if self.events is not None:
            self.readout = NoReadout()

    @property
    def in_units(self) -> bool:  # type: ignore[override]
        """Whether fluorescence comes in units: what a response compresses does not."""
        return isinstance(as_link(self.response), IdentityLink)

    def connect(self, source: Observation) -> None:
        owner = f"observations[{self.head.name!r}]: Calcium(events={self.events!r})"
        spec = source.head
        if not spec.per_step or spec.clock != 1 or spec.channels != self.head.channels:
            raise ValueError(
                f"{owner} needs a per-step head on the base clock with {self.head.channels} channels; "
                f"{spec.name!r} has {spec.channels}, clock {spec.clock}"
            )

    def build_family(self, head: HeadSpec) -> None:
        channels = head.channels
        self.log_noise_scale = nn.Parameter(torch.zeros(channels))
        self.fluorescence_baseline = nn.Parameter(torch.zeros(channels))
        if self.events is not None:
            self.log_amplitude = nn.Parameter(torch.zeros(channels))
        for name, value in self._kernel_starts():
            start = torch.full((channels,), value)
            if self.learn_kernel:
                self.register_parameter(name, nn.Parameter(start))
            else:
                self.register_buffer(name, start, persistent=False)
        if self.drift is not None:
            self.log_offset_scale = nn.Parameter(torch.full((channels,), -1.0))
            self.log_drift_scale = nn.Parameter(torch.full((channels,), -2.0))

    def _kernel_starts(self) -> list[tuple[str, float]]:
        starts = [("log_decay", math.log(self.decay))]
        if self.rise is not None:  # the rise is a fraction of the decay, so that their order is kept
            starts.append(("rise_logit", math.log(self.rise / (self.decay - self.rise))))
        return starts

    def reset_parameters(self) -> None:
        super().reset_parameters()
        with torch.no_grad():
            self.log_noise_scale.zero_()
            self.fluorescence_baseline.zero_()
            if self.events is not None:
                self.log_amplitude.zero_()
            for name, value in self._kernel_starts():
                getattr(self, name).fill_(value)
            if self.drift is not None:
                self.log_offset_scale.fill_(-1.0)
                self.log_drift_scale.fill_(-2.0)

    # -- the parameters, in words ----------------------------------------------------------------------------------

    @property
    def decay_time(self) -> Tensor:
        """tau_d, (channel,), seconds (base steps where the data have no dt)."""
        return self.log_decay.exp()

    @property
    def rise_time(self) -> Tensor:
        """tau_r, (channel,), like `decay_time`; not for "ar1"."""
        return self.decay_time * torch.sigmoid(self.rise_logit)

    @property
    def amplitude(self) -> Tensor:
        """a, (channel,): what one event adds (at its peak, for "double_exponential").

        In the data's units; with a response other than the identity, in those of the response's argument.
        """
        unit = self.response_unit
        return unit if self.events is None else unit * self.log_amplitude.exp()

    @property
    def response_unit(self) -> Tensor:
        """How much one of the head's own units is of what the response is given, (channel,)."""
        return self.scale if isinstance(as_link(self.response), IdentityLink) else torch.ones_like(self.scale)

    @property
    def resting_level(self) -> Tensor:
        """b, (channel,): the fluorescence without events, in the data's units.

        With a response other than the identity, in the units of the response's argument.
        """
        return (
            self.location + self.scale * self.fluorescence_baseline if self.in_units else self.fluorescence_baseline
        ).detach()

    @property
    def noise_scale(self) -> Tensor:
        """Standard deviation of the camera's noise, (channel,), in the data's units."""
        return self.scale * self.log_noise_scale.exp()

    # -- the model ---------------------------------------------------------------------------------------------------

    def _response(self, steps: int) -> tuple[Tensor, Tensor]:
        """Return the kernel at lags 0..steps-1 and its sum over all later lags, (lag, channel) each."""
        lag = torch.arange(steps, dtype=self.log_decay.dtype, device=self.log_decay.device)[:, None]
        rate = self.dt / self.decay_time

        def power(rate: Tensor, extra: int) -> Tensor:
            return (-(lag + extra) * rate).exp()

        if self.kernel == "ar1":
            return power(rate, 0), power(rate, 1) / -torch.expm1(-rate)
        fast = self.dt / self.rise_time
        if self.kernel == "ar2":
            norm, extra = (-rate).exp() - (-fast).exp(), 1
        else:
            peak = (fast / rate).log() / (fast - rate)
            norm, extra = (-peak * rate).exp() - (-peak * fast).exp(), 0
        kernel = power(rate, extra) - power(fast, extra)
        tail = power(rate, extra + 1) / -torch.expm1(-rate) - power(fast, extra + 1) / -torch.expm1(-fast)
        return kernel / norm, tail / norm

    def inputs(self, data: SequenceData) -> HeadInputs:
        running = data.valid.unsqueeze(-1) if data.padded else None
        return super().inputs(data)._replace(running=running)

    def calcium(self, rates: Tensor) -> Tensor:
        """Return kernel * rate, (..., time, channel), of rates (..., time, channel), events per base step.

        All steps share the rounding of the transforms, which is relative to the largest rate.
        """
        steps = rates.shape[-2]
        kernel, tail = self._response(steps)
        size = 2 * steps
        product = torch.fft.rfft(rates, size, -2) * torch.fft.rfft(kernel, size, -2)
        return torch.fft.irfft(product, size, -2)[..., :steps, :] + rates[..., :1, :] * tail

    def family(self, eta: Tensor) -> dist.Distribution:
        raise TypeError("Calcium joins the steps of a sequence; use distribution(eta, inputs)")

    def distribution(self, eta: Tensor, inputs: HeadInputs) -> dist.Distribution:
        return self.fluorescence(as_link(self.link)(eta), inputs)

    def fluorescence(self, rates: Tensor, inputs: HeadInputs) -> dist.Distribution:
        """Return the distribution of the fluorescence given rates, (..., base step, channel)."""
        if inputs.running is not None:  # a state left to itself in padding may give rates of any size
            rates = torch.where(inputs.running[:, : rates.shape[-2]], rates, 0.0)
        calcium = super().at_clock(self.calcium(rates), rates.shape[-2] // self.head.clock)
        amplitude = 1.0 if self.events is None else self.log_amplitude.exp()
        level = as_link(self.response)(self.fluorescence_baseline + amplitude * calcium)
        loc = self.location + self.scale * level
        if self.drift is not None:
            return DriftingNormal(loc, self.noise_scale, self._drift_loading(loc.shape[-2]), inputs.mask)
        frames = dist.Normal(loc, self.noise_scale, validate_args=False)
        return (frames if inputs.mask is None else frames.mask(inputs.mask)).to_event(2)

    def _drift_loading(self, frames: int) -> Tensor:
        """Return what each standard normal weight adds to each frame, (frame, weight, channel)."""
        assert self.drift is not None
        time = (torch.arange(frames, dtype=self.scale.dtype, device=self.scale.device) + 1) * self.head.clock * self.dt
        knots = math.ceil(frames * self.head.clock * self.dt / self.drift)
        ramps = (time[:, None] / self.drift - torch.arange(knots, dtype=time.dtype, device=time.device)).clamp(0, 1)
        offset, drift = (self.scale * kept.exp() for kept in (self.log_offset_scale, self.log_drift_scale))
        if offset.dim() > 1 or drift.dim() > 1:  # draws, with an axis for time
            offset, drift = torch.broadcast_tensors(offset, drift)
            offset, drift = offset.unsqueeze(-2), drift.unsqueeze(-2)
        ramps = ramps.unsqueeze(-1) * drift
        return torch.cat([offset.expand(*ramps.shape[:-2], 1, -1), ramps], -2)

    def at_clock(self, values: Tensor, frames: int) -> Tensor:
        """Return all base steps of the frames: the calcium integrates between them."""
        return values[..., : frames * self.head.clock, :]

    def forward(self, states: Tensor, inputs: HeadInputs, history: Tensor | None = None) -> dist.Distribution:
        """Return the distribution given states, or given the expected counts of the head that it reads."""
        return super().forward(states, inputs, history) if self.events is None else self.fluorescence(states, inputs)

    def entry_log_prob(self, distribution: dist.Distribution, value: Tensor) -> Tensor:
        """Return log-densities per entry, nats; with a drift, each given the entries before it."""
        if self.drift is None:
            return super().entry_log_prob(distribution, value)
        return distribution.entry_log_prob(value)

    def sample_missing(self, distribution: dist.Distribution, values: Tensor, mask: Tensor) -> Tensor:
        if self.drift is None:
            return super().sample_missing(distribution, values, mask)
        return distribution.completed(values, mask)

    # -- where a fit starts ------------------------------------------------------------------------------------------

    def _levels(self, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return baseline, mean rise above it and noise of each channel, (channel,) each, in standard units."""
        flat = torch.where(mask, (values - self.location) / self.scale, torch.nan).flatten(0, -2)
        flat = as_link(self.response).inverse(flat)
        flat = flat[:: 1 + flat.numel() // 2**22]  # torch's quantiles take no more than 2^24 entries
        base = flat.nanquantile(0.2, 0).nan_to_num(0.0)
        above = (flat.nanmean(0).nan_to_num(0.0) - base).clamp_min(1e-3)
        both = mask[:, 1:] & mask[:, :-1]
        steps = torch.where(both, values.diff(dim=1) / self.scale, 0.0) ** 2
        variance = steps.sum((0, 1)) / (2 * both.sum((0, 1)).clamp_min(1))
        noise = torch.where(variance > 0, variance, 1.0).sqrt()
        if not bool(mask.any()):
            return base, above, noise
        return like_the_others(base, mask), like_the_others(above, mask), like_the_others(noise, mask)

    def starting_baseline(self, values: Tensor, mask: Tensor) -> Tensor:
        if self.events is not None:
            return torch.zeros(0, dtype=values.dtype, device=values.device)
        kernel, tail = self._response(1)
        return as_link(self.link).inverse(self._levels(values, mask)[1] / (kernel + tail)[0]).detach()

    def initialise(self, values: Tensor, mask: Tensor) -> None:
        super().initialise(values, mask)
        base, above, noise = self._levels(values, mask)
        with torch.no_grad():
            self.fluorescence_baseline.copy_(base)
            self.log_noise_scale.copy_(noise.log())
            if self.events is not None:
                self.log_amplitude.copy_(above.log())


class NoReadout(LinearReadout):
    """In the place of a readout where another head's is read: no parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("baseline", torch.zeros(0), persistent=False)

    def reset_parameters(self) -> None:
        """Nothing to return to a start."""
