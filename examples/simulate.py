"""Systems with planted numbers, in NumPy alone: the truth that the gallery's examples have to find.

Each function takes the numbers that it plants, and returns what an experimenter would have, as arrays (sequence, time,
channel) with NaN where nothing was measured. The same seed gives the same data.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def leaky(inputs: Array, retention: float, start: float = 0.0) -> Array:
    """Return h_t = retention * h_{t-1} + inputs_t along the second axis, h_0 = start."""
    states, state = np.zeros_like(inputs), np.full_like(inputs[:, 0], start)
    for t in range(inputs.shape[1]):
        state = retention * state + inputs[:, t]
        states[:, t] = state
    return states


class Depression(NamedTuple):
    """A depressing synapse and what was recorded of it."""

    pulses: Array  # (trial, time, 1), presynaptic spikes per bin
    spikes: Array  # (trial, time, 1), postsynaptic spikes in the bins that have a pulse, NaN in the others
    probe: NDArray[np.int_]  # (trial,), bin of the last pulse
    delay: Array  # (trial,), from the pulse before to the last one, seconds
    dt: float  # seconds per bin


def trains(trials: int, delays: Sequence[int] = (10, 15, 20, 30, 40, 60, 80)) -> Array:
    """Return pulses, (trial, time): a train of 8, two bins apart, and a probe after delays that take turns, in bins."""
    pulses, last = np.zeros((trials, 15 + max(delays))), 14
    pulses[:, : last + 1 : 2] = 1.0
    pulses[np.arange(trials), last + np.resize(delays, trials)] = 1.0
    return pulses


def depression(
    seed: int,
    pulses: Array,
    *,
    tau: float = 0.195,
    strength: float = 0.5,
    rest: float = 1.0,
    dt: float = 0.01,
) -> Depression:
    """Simulate short-term depression: every pulse weakens the synapse, which recovers with a time constant.

        d_t = exp(-dt / tau) d_{t-1} + x_t,   y_t ~ Poisson(rest * exp(-strength (d_t - 1))) where x_t = 1

    Args:
        seed: of the spikes.
        pulses: x, (trial, time), zeros and ones, at least two pulses in a trial; as from `trains`.
        tau: time constant of recovery, seconds; 0.195 is a forget gate of 0.95 in bins of 10 ms.
        strength: how much a pulse takes from the logarithm of the response to the next one.
        rest: expected postsynaptic spikes of a rested synapse, per pulse.
        dt: seconds per bin.

    References:
        Varela, Sen, Gibson, Fost, Abbott, Nelson. A quantitative description of short-term plasticity at excitatory
        synapses in layer 2/3 of rat primary visual cortex. 1997.
        Markram, Tsodyks. Redistribution of synaptic efficacy between neocortical pyramidal neurons. 1996 (trains and
        probes).
    """
    rate = rest * np.exp(-strength * (leaky(pulses, np.exp(-dt / tau)) - 1.0))
    spikes = np.where(pulses > 0, np.random.default_rng(seed).poisson(rate), np.nan)
    ends = np.array([np.flatnonzero(trial)[-2:] for trial in pulses])
    return Depression(pulses[..., None], spikes[..., None], ends[:, 1], dt * (ends[:, 1] - ends[:, 0]), dt)


class Attention(NamedTuple):
    """A memory that lets a stimulus in where a gate is open, and what was recorded of it."""

    stimulus: Array  # (trial, time, 1)
    cue: Array  # (trial, time, 1)
    gate: Array  # (trial, time, 1), in [0, 1]: the share of the stimulus that was let in
    response: Array  # (trial, time, 1)
    dt: float  # seconds per bin


def attention(
    seed: int,
    trials: int,
    *,
    sharp: float = 4.0,
    own: float = 0.0,
    steps: int = 60,
    tau: float = 0.1,
    noise: float = 0.3,
    dt: float = 0.01,
) -> Attention:
    """Simulate attention: a cue says how much of a stimulus gets into a memory, and the stimulus may say so itself.

        m_t = exp(-dt / tau) m_{t-1} + g_t x_t,   g_t = sigmoid(sharp * u_t + own * x_t),   y_t ~ Normal(m_t, noise)

    x is white noise, and the cue u_t = 0.9 u_{t-1} + noise; both have standard deviation one.

    Args:
        seed: of stimuli, cues and noise.
        trials: number of trials.
        sharp: how far the cue opens the gate.
        own: how far the stimulus itself opens the gate: what stands out draws attention.
        steps: bins of each trial.
        tau: time constant of the memory, seconds.
        noise: standard deviation of what is recorded of it.
        dt: seconds per bin.

    References:
        Reynolds, Heeger. The normalization model of attention. 2009.
        Itti, Koch. Computational modelling of visual attention. 2001 (what stands out draws attention).
    """
    rng = np.random.default_rng(seed)
    cue = leaky(np.sqrt(0.19) * rng.normal(size=(trials, steps)), 0.9, rng.normal(size=trials))
    stimulus = rng.normal(size=(trials, steps))
    gate = 1 / (1 + np.exp(-sharp * cue - own * stimulus))
    memory = leaky(gate * stimulus, np.exp(-dt / tau))
    response = memory + noise * rng.normal(size=memory.shape)
    return Attention(*(each[..., None] for each in (stimulus, cue, gate, response)), dt)


class Valve(NamedTuple):
    """A memory that is read through a valve, and counts that follow what is read."""

    stimulus: Array  # (trial, time, 1)
    cue: Array  # (trial, time, 1)
    memory: Array  # (trial, time, 1)
    gate: Array  # (trial, time, 1), in [0, 1]: how far the valve is open
    counts: Array  # (trial, time, 1)
    dt: float  # seconds per bin


def valve(
    seed: int,
    trials: int,
    *,
    weight: float = 1.5,
    sharp: float = 4.0,
    steps: int = 60,
    tau: float = 0.1,
    dt: float = 0.01,
) -> Valve:
    """Simulate working memory whose read-out is gated: a cue says how far counts follow what is held.

        m_t = exp(-dt / tau) m_{t-1} + x_t / 2,   g_t = sigmoid(sharp * u_t),   y_t ~ Poisson(exp(weight g_t tanh(m_t)))

    x is white noise, and the cue u_t = 0.9 u_{t-1} + noise; both have standard deviation one.

    Args:
        seed: of stimuli, cues and counts.
        trials: number of trials.
        weight: how far the logarithm of the rate follows what is read.
        sharp: how far the cue opens the valve.
        steps: bins of each trial.
        tau: time constant of the memory, seconds.
        dt: seconds per bin.

    References:
        Hochreiter, Schmidhuber. Long short-term memory. 1997 (output gates).
        O'Reilly, Frank. Making working memory work: a computational model of learning in the prefrontal cortex and
        basal ganglia. 2006 (output gating).
    """
    rng = np.random.default_rng(seed)
    cue = leaky(np.sqrt(0.19) * rng.normal(size=(trials, steps)), 0.9, rng.normal(size=trials))
    stimulus = rng.normal(size=(trials, steps))
    memory, gate = leaky(stimulus / 2, np.exp(-dt / tau)), 1 / (1 + np.exp(-sharp * cue))
    counts = rng.poisson(np.exp(weight * gate * np.tanh(memory))).astype(float)
    return Valve(*(each[..., None] for each in (stimulus, cue, memory, gate, counts)), dt)


class Delayed(NamedTuple):
    """A value that is shown once, and asked for at the end."""

    inputs: Array  # (trial, time, 1)
    answer: Array  # (trial, 1)


def delayed(seed: int, trials: int, *, delay: int = 60, distraction: float = 0.3, noise: float = 0.1) -> Delayed:
    """Simulate a delayed answer: the first of many inputs is to be told after the last.

        x_0 ~ Normal(0, 1),   x_t ~ Normal(0, distraction),   y ~ Normal(x_0, noise)

    Args:
        seed: of inputs and answers.
        trials: number of trials.
        delay: steps from the first input to the last.
        distraction: standard deviation of the inputs after the first.
        noise: standard deviation of the answer.

    References:
        Bengio, Simard, Frasconi. Learning long-term dependencies with gradient descent is difficult. 1994.
        Hochreiter, Schmidhuber. Long short-term memory. 1997.
    """
    rng = np.random.default_rng(seed)
    inputs = distraction * rng.normal(size=(trials, delay + 1, 1))
    inputs[:, 0] = rng.normal(size=(trials, 1))
    return Delayed(inputs, inputs[:, 0] + noise * rng.normal(size=(trials, 1)))


class Restarts(NamedTuple):
    """A memory that is emptied now and then, cues, and what was recorded of it."""

    inputs: Array  # (trial, time, 1)
    cue: Array  # (trial, time, 1), 0 or 1
    memory: Array  # (trial, time, 1)
    response: Array  # (trial, time, 1)


def restarts(
    seed: int, trials: int, *, informative: bool = True, steps: int = 60, kept: float = 0.95, noise: float = 0.1
) -> Restarts:
    """Simulate a memory whose past is worth nothing from a change on, of which a cue tells, or does not.

        m_t = kept (1 - u_t) m_{t-1} + x_t,   x_t ~ Normal(0, 0.3),   y_t ~ Normal(m_t, noise)

    u marks changes, one in fifteen steps. Where cues tell nothing, the memory goes on through as many.

    Args:
        seed: of inputs, cues and noise, the same whether cues tell or not.
        trials: number of trials.
        informative: whether a cue is a change.
        steps: of each trial; the first is no change.
        kept: share of the memory that is left a step later.
        noise: standard deviation of what is recorded.

    References:
        Cho, van Merrienboer, Gulcehre, Bahdanau, Bougares, Schwenk, Bengio. Learning phrase representations using RNN
        encoder-decoder for statistical machine translation. 2014 (a reset gate drops what is irrelevant from then on).
    """
    rng = np.random.default_rng(seed)
    inputs, cue = 0.3 * rng.normal(size=(trials, steps)), (rng.random((trials, steps)) < 1 / 15).astype(float)
    cue[:, 0] = 0.0
    memory, state = np.zeros_like(inputs), np.zeros(trials)
    for t in range(steps):
        state = kept * np.where(informative & (cue[:, t] > 0), 0.0, state) + inputs[:, t]
        memory[:, t] = state
    response = memory + noise * rng.normal(size=memory.shape)
    return Restarts(*(each[..., None] for each in (inputs, cue, memory, response)))


class Forgetting(NamedTuple):
    """Items that were rehearsed now and then, and whether they were recalled when asked for."""

    rehearsed: Array  # (item, trial, 1), 1 where the item was rehearsed
    recalled: Array  # (item, trial, 1), 0 or 1 where it was asked for, NaN elsewhere


def forgetting(
    seed: int, items: int, *, trials: int = 120, decay: float = 30.0, gain: float = 3.0, guess: float = -2.0
) -> Forgetting:
    """Simulate a forgetting curve with rehearsal: the log-odds of recall rise with rehearsals and fall in between.

        m_t = exp(-1 / decay) m_{t-1} + gain * x_t,   y_t ~ Bernoulli(sigmoid(guess + m_t)) where asked

    Every item is rehearsed with probability 1/25 in a trial, and asked for in every fourth trial.

    Args:
        seed: of rehearsals and answers.
        items: number of items, each a sequence of `trials`.
        trials: number of trials.
        decay: time constant of forgetting, in trials.
        gain: what a rehearsal adds to the log-odds.
        guess: log-odds of recall of an item never rehearsed.

    References:
        Ebbinghaus. Memory: a contribution to experimental psychology. 1885.
        Rubin, Wenzel. One hundred years of forgetting: a quantitative description of retention. 1996.
    """
    rng = np.random.default_rng(seed)
    rehearsed = (rng.random((items, trials)) < 1 / 25).astype(float)
    strength = leaky(gain * rehearsed, np.exp(-1.0 / decay))
    recalled = (rng.random((items, trials)) < 1 / (1 + np.exp(-guess - strength))).astype(float)
    recalled[:, np.arange(trials) % 4 != 3] = np.nan
    return Forgetting(rehearsed[..., None], recalled[..., None])


class Methylation(NamedTuple):
    """A methylated fraction that follows its surroundings, and reads of it."""

    exposure: Array  # (culture, day, 1), in [0, 1]
    reads: Array  # (culture, day, 1), methylated ones of `depth`, NaN on days without a sample
    level: Array  # (culture, day, 1), the fraction itself


def methylation(
    seed: int, cultures: int, *, days: int = 90, rate: float = 0.08, start: float = 0.2, depth: int = 20
) -> Methylation:
    """Simulate methylation as a memory of exposure: gains and losses share one rate, so that the level stays in [0, 1].

        m_t = (1 - rate) m_{t-1} + rate * x_t,   y_t ~ Binomial(depth, m_t) every third day

    The exposure is a share of each day; it changes on one day in fifteen, to a share uniform in [0, 1].

    Args:
        seed: of exposures and reads.
        cultures: number of cell cultures, each a sequence.
        days: length of each.
        rate: share of the difference to the exposure that is made up for in a day.
        start: level before the first day.
        depth: reads per sample.

    References:
        Sontag, Lorincz, Luebeck. Dynamics, stability and inheritance of somatic DNA methylation imprints. 2006.
    """
    rng = np.random.default_rng(seed)
    changes = np.cumsum(rng.random((cultures, days)) < 1 / 15, 1)
    exposure = np.take_along_axis(rng.random((cultures, days + 1)), changes, 1)
    level = leaky(rate * exposure, 1.0 - rate, start)
    reads = rng.binomial(depth, level).astype(float)
    reads[:, np.arange(days) % 3 != 2] = np.nan
    return Methylation(exposure[..., None], reads[..., None], level[..., None])


class Enhancers(NamedTuple):
    """Stretches of DNA with enhancers and promoters, and which promoters were active."""

    enhancer: Array  # (locus, position, 1), 1 where there is one
    active: Array  # (locus, position, 1), 0 or 1 at promoters, NaN elsewhere
    signal: Array  # (locus, position, 1), what has arrived of the enhancers upstream
    window: float  # how far downstream of a single enhancer a promoter is rather active than silent, positions


def enhancers(
    seed: int,
    loci: int,
    *,
    positions: int = 200,
    r: float = 0.95,
    threshold: float = 0.35,
    slope: float = 15.0,
) -> Enhancers:
    """Simulate enhancers whose signal decays along DNA, and promoters that switch on above a threshold of it.

        h_t = r h_{t-1} + x_t,   y_t ~ Bernoulli(sigmoid(slope (h_t - threshold))) at promoters

    One position in forty has an enhancer, one in fifteen a promoter.

    Args:
        seed: of places and activity.
        loci: number of stretches, each a sequence.
        positions: length of each, in kilobases.
        r: what is left of the signal a position further on.
        threshold: signal at which a promoter is active as often as not.
        slope: how sharply it switches.

    References:
        Zuin, Roth, Zhan, Cramard, Redolfi, Piskadlo, Mach, Kryzhanovska, Tihanyi, Kohler, Eder, Leemans, van
        Steensel, Meister, Smallwood, Giorgetti. Nonlinear control of transcription through enhancer-promoter
        interactions. 2022.
    """
    rng = np.random.default_rng(seed)
    enhancer = (rng.random((loci, positions)) < 1 / 40).astype(float)
    signal = leaky(enhancer, r)
    active = (rng.random((loci, positions)) < 1 / (1 + np.exp(-slope * (signal - threshold)))).astype(float)
    active[rng.random((loci, positions)) > 1 / 15] = np.nan
    return Enhancers(enhancer[..., None], active[..., None], signal[..., None], float(np.log(threshold) / np.log(r)))


def clicks(
    seed: int, visitors: int, *, pages: int = 8, shortest: int = 40, interest: float = 0.9
) -> list[NDArray[np.int_]]:
    """Simulate visitors of a site, who stay on a page, follow links, or go after interests of their own.

        p(y_t = k | past) = 0.3 [k = y_{t-1}] + 0.7 ((1 - interest) L[y_{t-1}, k] + interest v_k)

    v ~ Dirichlet(0.1) is a visitor's own, so that every earlier click tells something of the next one, which a Markov
    chain forgets. Where interest is zero the site is a Markov chain of the first order.

    Args:
        seed: of links, interests and clicks.
        visitors: number of sequences.
        pages: number of codes; rows of L, the links, are draws from Dirichlet(0.5).
        shortest: fewest clicks of a visit; those above are geometric, nine on average.
        interest: share of moves that follow interests.

    References:
        Cadez, Heckerman, Meek, Smyth, White. Model-based clustering and visualization of navigation patterns on a web
        site. 2003 (visitors of several kinds, each a Markov chain).
    """
    rng = np.random.default_rng(seed)
    links = rng.dirichlet(np.full(pages, 0.5), pages)
    found = []
    for _ in range(visitors):
        own = rng.dirichlet(np.full(pages, 0.1))
        move = 0.3 * np.eye(pages) + 0.7 * ((1 - interest) * links + interest * own)
        visit = [int(rng.integers(pages))]
        for _ in range(shortest + int(rng.geometric(0.1)) - 2):
            visit.append(int(rng.choice(pages, p=move[visit[-1]])))
        found.append(np.array(visit))
    return found


class Stays(NamedTuple):
    """Stays in intensive care, charted more or less often, and who died."""

    charts: Array  # (stay, hour, channel), NaN where a channel was not charted
    who: Array  # (stay, feature), what was known on admission, NaN where it was not
    died: Array  # (stay, 1), 0 or 1


def stays(seed: int, number: int, *, channels: int = 6, hours: int = 48, informative: float = 1.5) -> Stays:
    """Simulate patients of whom the sicker are charted more often.

        s_t = 0.98 s_{t-1} + 0.2 e_t,   charted_tk ~ Bernoulli(sigmoid(-2 + informative s_t)),
        y_tk ~ Normal(a_k s_t, 1) where charted,   died ~ Bernoulli(sigmoid(-2.5 + 2 s_T))

    s is severity, s_0 and e are standard normal, and a_k = 0.3 (-1)^k. Where informative is zero, gaps say nothing. The
    one thing known on admission, age in standard units, has no effect.

    Args:
        seed: of everything.
        number: of stays.
        channels: that are charted.
        hours: from admission on.
        informative: how far severity decides whether something is charted.

    References:
        Rubin. Inference and missing data. 1976.
        Agniel, Kohane, Weber. Biases in electronic health record data due to processes within the healthcare system.
        2018 (when a test was ordered says more of survival than its result).
    """
    rng = np.random.default_rng(seed)
    severity = leaky(0.2 * rng.normal(size=(number, hours)), 0.98, rng.normal(size=number))[..., None]
    charted = rng.random((number, hours, channels)) < 1 / (1 + np.exp(2.0 - informative * severity))
    sign = 0.3 * (-1.0) ** np.arange(channels)
    charts = np.where(charted, sign * severity + rng.normal(size=charted.shape), np.nan)
    died = (rng.random((number, 1)) < 1 / (1 + np.exp(2.5 - 2 * severity[:, -1]))).astype(float)
    return Stays(charts, rng.normal(size=(number, 1)), died)


class Reaches(NamedTuple):
    """Reaches of a hand to one of eight targets, and the spikes of a population meanwhile."""

    counts: Array  # (trial, bin, unit), spikes per bin
    velocity: Array  # (trial, bin, 2), of the hand, mm/s
    direction: NDArray[np.int_]  # (trial,), 0 to 7


def reaches(
    seed: int, trials: int, *, units: int = 40, bins: int = 19, tuning: float = 1.0, dt: float = 0.02
) -> Reaches:
    """Simulate motor cortex during reaches: every unit prefers a direction, and some speak up in all movement.

        log rate_it = b_i + tuning (c_i . v_{t + 100 ms} + a_i |v_{t + 100 ms}|),   counts ~ Poisson(rate)

    with |c_i| = 1, a_i ~ Normal(0, 0.5), and v in units of 80 cm/s. Speeds are bells of 300 ms that begin at 100 to
    160 ms and reach 60 to 100 cm/s.

    Args:
        seed: of reaches, preferences and spikes.
        trials: number of reaches.
        units: number of neurons, of 2 to 40 spikes per second at rest.
        bins: length of every trial.
        tuning: what movement in the preferred direction adds to the logarithm of the rate.
        dt: seconds per bin.

    References:
        Georgopoulos, Kalaska, Caminiti, Massey. On the relations between the direction of two-dimensional arm movements
        and cell discharge in primate motor cortex. 1982.
        Moran, Schwartz. Motor cortical representation of speed and direction during reaching. 1999.
    """
    rng = np.random.default_rng(seed)
    direction = rng.permutation(np.arange(trials) % 8)
    onset, height = rng.uniform(0.1, 0.16, (trials, 1)), rng.uniform(600.0, 1000.0, (trials, 1))

    def velocity(times: Array) -> Array:
        phase = np.clip((times - onset) / 0.3, 0, 1)
        towards = np.stack([np.cos(direction * np.pi / 4), np.sin(direction * np.pi / 4)], -1)
        return (height * np.sin(np.pi * phase) ** 2)[..., None] * towards[:, None]

    times = dt * np.arange(bins)
    coming = velocity(times + 0.1) / 800.0
    preferred, speed = rng.uniform(0, 2 * np.pi, units), rng.normal(0, 0.5, units)
    drive = coming @ np.stack([np.cos(preferred), np.sin(preferred)])
    drive = drive + speed * np.linalg.norm(coming, axis=-1, keepdims=True)
    rest = np.exp(rng.uniform(np.log(2.0), np.log(40.0), units))
    counts = rng.poisson(dt * rest * np.exp(tuning * drive)).astype(float)
    return Reaches(counts, velocity(times), direction)


class Market(NamedTuple):
    """Daily returns, and a sentiment that is known on the evening before."""

    returns: Array  # (day,), of standard deviation about one
    sentiment: Array  # (day,), of standard deviation one


def market(seed: int, days: int, *, effect: float = 0.5, leverage: float = 0.1, df: float = 8.0) -> Market:
    """Simulate returns whose volatility remembers them, rises with losses, and follows a sentiment, or does not.

        r_t = exp((l_t + effect x_t) / 2) e_t,   l_t = 0.96 l_{t-1} + 0.15 (|e_{t-1}| - E|e|) - leverage e_{t-1}

    where e_t ~ StudentT(df) of variance one, and x_t = 0.9 x_{t-1} + noise of standard deviation one.

    Args:
        seed: of shocks and sentiment.
        days: number of days.
        effect: of the sentiment on the log-variance.
        leverage: how much more a loss raises the log-variance than a gain.
        df: of the tails.

    References:
        Nelson. Conditional heteroskedasticity in asset returns: a new approach. 1991.
        Tetlock. Giving content to investor sentiment: the role of media in the stock market. 2007.
    """
    rng = np.random.default_rng(seed)
    shocks = rng.standard_t(df, days) * np.sqrt((df - 2) / df)
    sentiment = leaky(np.sqrt(1 - 0.9**2) * rng.normal(size=(1, days)), 0.9)[0]
    news = 0.15 * (np.abs(shocks) - np.abs(shocks).mean()) - leverage * shocks
    log_variance = leaky(np.concatenate([[0.0], news[:-1]])[None], 0.96)[0] + effect * sentiment
    return Market(np.exp(log_variance / 2) * shocks, sentiment)


class Junctions(NamedTuple):
    """Windows of 60 bases around a place that is a splice junction or not, between positions 29 and 30."""

    bases: NDArray[np.int_]  # (sequence, position), A, C, G, T
    kind: NDArray[np.int_]  # (sequence,): 0 donor (exon to intron), 1 acceptor (intron to exon), 2 neither
    ceiling: float  # share of right answers of who knows all but what nobody observed


def junctions(seed: int, number: int, *, absent: float = 0.3, branch: float = 0.0) -> Junctions:
    """Simulate splice junctions that are used only where a factor that nobody observed is present.

        donor: CAG|GTAAGT,   acceptor: thirteen pyrimidines, then CAG|G,   all but GT and AG themselves now and then off
        branch point, of a share of acceptors: CTGAC, its A 27 to 20 bases before the junction

    Half of the windows have a site, half of the others GT or AG in its place and nothing around it. Where the factor
    is absent, a site is labelled as none: no reader of the sequence is right more often than the ceiling.

    Args:
        seed: of sequences and factor.
        number: of windows.
        absent: share of windows without the factor.
        branch: share of acceptors with a branch point.

    References:
        Shapiro, Senapathy. RNA splice junctions of different classes of eukaryotes: sequence statistics and functional
        implications in gene expression. 1987.
    """
    rng = np.random.default_rng(seed)
    bases = rng.integers(0, 4, (number, 60))
    site, kept = rng.choice(3, number, p=[0.25, 0.25, 0.5]), rng.random((number, 60)) < 0.85
    donor, acceptor, decoy = site == 0, site == 1, (site == 2) & (rng.random(number) < 0.5)
    for place, base in zip(range(27, 36), (1, 0, 2, 2, 3, 0, 0, 2, 3), strict=True):
        bases[donor & kept[:, place], place] = base
    for place, base in zip(range(27, 31), (1, 0, 2, 2), strict=True):
        bases[acceptor & kept[:, place], place] = base
    rows, tract = np.nonzero(acceptor)[0][:, None], np.arange(14, 27)
    bases[rows, tract] = np.where(kept[rows, tract], rng.choice([1, 3], (len(rows), 13)), bases[rows, tract])
    branched = np.flatnonzero(acceptor & (np.random.default_rng([seed, 1]).random(number) < branch))
    adenosine = np.random.default_rng([seed, 2]).integers(3, 11, len(branched))
    for place, base in zip(range(-3, 2), (1, 3, 2, 0, 1), strict=True):
        bases[branched, adenosine + place] = base
    gt = donor | (decoy & (np.arange(number) % 2 == 0))
    ag = acceptor | (decoy & (np.arange(number) % 2 == 1))
    bases[gt, 30:32], bases[ag, 28:30] = (2, 3), (0, 2)
    missed = (rng.random(number) < absent) & (site < 2)
    return Junctions(bases, np.where(missed, 2, site), 1 - 0.5 * absent)


class Bits(NamedTuple):
    """Bits that pulses set, and spikes of neurons that are driven by them."""

    pulses: Array  # (trial, time, bit), -1, 0 or 1; all bits are set at the first step
    bits: Array  # (trial, time, bit), -1 or 1
    spikes: Array  # (trial, time, neuron)
    dt: float


def flip_flop(
    seed: int, trials: int, *, bits: int = 3, steps: int = 40, neurons: int = 24, kept: float = 1.0, dt: float = 0.02
) -> Bits:
    """Simulate a flip-flop: every bit keeps the sign of its last pulse.

        b_t = x_t where x_t is not 0, else kept b_{t-1};  y_t ~ Poisson(exp(C b_t)),  columns of C 0.8 long

    Args:
        seed: of pulses and spikes; the loadings C are the same for all.
        trials, bits, steps, neurons: how many.
        kept: of a bit, a bin later; below one nothing is remembered for good.
        dt: seconds per bin.

    References:
        Sussillo, Barak. Opening the black box: low-dimensional dynamics in high-dimensional recurrent neural networks.
        2013.
    """
    rng = np.random.default_rng(seed)
    pulses = rng.choice([-1.0, 0.0, 1.0], size=(trials, steps, bits), p=[0.05, 0.9, 0.05])
    pulses[:, 0] = rng.choice([-1.0, 1.0], size=(trials, bits))
    held, state = np.zeros_like(pulses), pulses[:, 0]
    for t in range(steps):
        state = np.where(pulses[:, t] != 0, pulses[:, t], kept * state)
        held[:, t] = state
    loading = np.random.default_rng(100).normal(size=(bits, neurons))
    loading *= 0.8 / np.linalg.norm(loading, axis=0)
    return Bits(pulses, held, rng.poisson(np.exp(held @ loading)).astype(float), dt)


class Angles(NamedTuple):
    """An angle that is cued, turned by its velocity and held, and spikes of neurons that prefer angles."""

    cue: Array  # (trial, time, 2), cosine and sine of the angle at the first step, then zeros
    velocity: Array  # (trial, time, 1), radians per bin
    angle: Array  # (trial, time), radians
    spikes: Array  # (trial, time, neuron)
    dt: float


def angle_memory(seed: int, trials: int, *, steps: int = 40, neurons: int = 24, dt: float = 0.02) -> Angles:
    """Simulate the memory of a heading: an angle goes by its velocity, which is zero most of the time.

        a_t = a_{t-1} + v_t;  y_t^i ~ Poisson(exp(1.2 cos(a_t - p_i))),  preferred angles p_i evenly spaced

    Args:
        seed: of all that is drawn.
        trials, steps, neurons: how many.
        dt: seconds per bin.

    References:
        Zhang. Representation of spatial orientation by the intrinsic dynamics of the head-direction cell ensemble: a
        theory. 1996.
    """
    rng = np.random.default_rng(seed)
    velocity = np.where(rng.random((trials, steps)) < 0.3, rng.normal(0.0, 0.5, (trials, steps)), 0.0)
    start = rng.uniform(0.0, 2 * np.pi, trials)
    velocity[:, 0] = 0.0
    angle = start[:, None] + np.cumsum(velocity, 1)
    cue = np.zeros((trials, steps, 2))
    cue[:, 0] = np.stack([np.cos(start), np.sin(start)], -1)
    preferred = np.linspace(0.0, 2 * np.pi, neurons, endpoint=False)
    spikes = rng.poisson(np.exp(1.2 * np.cos(angle[..., None] - preferred))).astype(float)
    return Angles(cue, velocity[..., None], angle, spikes, dt)


def lorenz(starts: Array, steps: int, *, step: float = 0.03, parts: int = 3) -> Array:
    """Return the path of the Lorenz system from each start, (start, time, 3), the start itself being the first step.

        dx/dt = 10 (y - x),   dy/dt = x (28 - z) - y,   dz/dt = x y - 8/3 z

    Args:
        starts: (start, 3).
        steps: of each path.
        step: of the system's time, from one to the next.
        parts: Runge-Kutta steps, of order four, in each.

    References:
        Lorenz. Deterministic nonperiodic flow. 1963.
        Sprott. Chaos and time-series analysis. 2003 (exponents 0.906, 0, -14.572).
    """

    def slope(state: Array) -> Array:
        x, y, z = state[..., 0], state[..., 1], state[..., 2]
        return np.stack([10.0 * (y - x), x * (28.0 - z) - y, x * y - 8.0 / 3.0 * z], -1)

    dt, state, path = step / parts, starts, [starts]
    for _ in range(steps - 1):
        for _ in range(parts):
            first = slope(state)
            second = slope(state + dt / 2 * first)
            third = slope(state + dt / 2 * second)
            state = state + dt / 6 * (first + 2 * second + 2 * third + slope(state + dt * third))
        path.append(state)
    return np.stack(path, -2)


def attractor(rng: np.random.Generator, runs: int, steps: int) -> Array:
    """Return paths on the attractor of the Lorenz system, 0.03 of its time from step to step, (run, time, 3)."""
    start = 8.0 * rng.normal(size=(runs, 3)) + [0.0, 0.0, 25.0]
    return lorenz(lorenz(start, 500)[:, -1], steps)


class Chaos(NamedTuple):
    """The state of a chaotic system, and spikes of neurons that are driven by it."""

    latents: Array  # (trial, time, 3), of variance one
    spikes: Array  # (trial, time, neuron)
    dt: float  # seconds per bin; one unit of the system's time is a second


def chaos(seed: int, trials: int, *, steps: int = 25, neurons: int = 500) -> Chaos:
    """Simulate a population that the Lorenz system drives.

        y_t ~ Poisson(exp(C z_t)),   columns of C 0.8 long,   bins of 30 ms

    Args:
        seed: of starts, loadings and spikes.
        trials, steps, neurons: how many.

    References:
        Pandarinath, O'Shea, Collins, Jozefowicz, Stavisky, Kao, Trautmann, Kaufman, Ryu, Hochberg, Henderson, Shenoy,
        Abbott, Sussillo. Inferring single-trial neural population dynamics using sequential auto-encoders. 2018.
    """
    rng = np.random.default_rng(seed)
    paths = attractor(rng, trials, steps)
    latents = (paths - paths.mean((0, 1))) / paths.std((0, 1))
    loading = rng.normal(size=(3, neurons))
    loading *= 0.8 / np.linalg.norm(loading, axis=0)
    return Chaos(latents, rng.poisson(np.exp(latents @ loading)).astype(float), 0.03)


class Gain(NamedTuple):
    """Counts that answer to a stimulus through a gate, and the gate."""

    counts: Array  # (trial, time, channel)
    stimulus: Array  # (trial, time, 1)
    gate: Array  # (trial, time, 1), as a share of its largest value
    beta: Array  # (channel,), gain of a fully open gate
    dt: float  # seconds per bin


def gain(seed: int, trials: int, *, channels: int = 8, bins: int = 120, tau: float = 0.3, dt: float = 0.02) -> Gain:
    """Simulate channels that hear a stimulus through one gate, which closes as the stimulus goes on.

        a_t = exp(-dt / tau) a_{t-1} + (1 - exp(-dt / tau)) s_t,  g_t = 1 / (1 + exp(8 (a_{t-1} - 0.4)))
        y_tk ~ Poisson(0.5 exp(beta_k g_t s_t)),  beta_k ~ Normal(0, 1)

    Args:
        seed: of stimulus, gains and counts.
        trials: how many.
        channels: of counts.
        bins: of a trial.
        tau: time constant of the adaptation, seconds.
        dt: seconds per bin.
    """
    rng, kept = np.random.default_rng(seed), np.exp(-dt / tau)
    stimulus = np.repeat((rng.random((trials, bins // 10)) < 0.5) * rng.uniform(0.5, 1.5, (trials, bins // 10)), 10, 1)
    level = leaky((1 - kept) * stimulus[..., None], kept)
    before = np.concatenate([np.zeros_like(level[:, :1]), level[:, :-1]], 1)
    gate = 1 / (1 + np.exp(8 * (before - 0.4)))
    beta = rng.normal(size=channels)
    counts = rng.poisson(0.5 * np.exp(beta * gate * stimulus[..., None]))
    return Gain(counts.astype(float), stimulus[..., None], gate / gate.max(), beta * gate.max(), dt)


class Gait(NamedTuple):
    """Joint angles of walkers, some of whom were given a load at their first stride."""

    hip: Array  # (walker, time, 1), degrees
    push: Array  # (walker, time, 1), force under the foot at the moment of loading, zero ever after
    knee: Array  # (walker, time, 1), degrees
    dt: float  # seconds


def gait(seed: int, walkers: int, *, strides: int = 12, load: float = 0.6, dt: float = 0.04) -> Gait:
    """Simulate gait whose knee remembers for hundreds of steps what was loaded on at the start.

        phase_t = phase_{t-1} + 2 pi dt c,   c ~ Normal(0.9, 0.05) strides per second
        hip_t  = 20 + 25 cos(phase_t) + noise,   push_t = L_t in the first second, else 0,   L ~ Uniform(0, 1)
        knee_t = (1 - load L) (30 - 18 cos(phase_t + 0.6) - 14 cos(2 phase_t + 0.9)) + noise

    The load shows in the force for five steps alone; the noise of either angle is of 1.5 degrees.

    Args:
        seed: of everything.
        walkers, strides: how many; a stride takes some 28 steps.
        load: by which share a full load stiffens the knee; zero leaves nothing to remember.
        dt: seconds per step.

    References:
        Winter. Biomechanics and motor control of human movement. 2009 (courses of the joints).
    """
    rng, steps = np.random.default_rng(seed), round(strides / 0.9 / dt)
    cadence, start = rng.normal(0.9, 0.05, (walkers, 1)), rng.uniform(0, 2 * np.pi, (walkers, 1))
    phase = start + 2 * np.pi * dt * cadence * np.arange(steps)
    weight = rng.random((walkers, 1))
    begins = rng.integers(0, 20, (walkers, 1))
    push = weight * ((np.arange(steps) >= begins) & (np.arange(steps) < begins + 5))
    course = 30 - 18 * np.cos(phase + 0.6) - 14 * np.cos(2 * phase + 0.9)
    loaded = 1 - load * weight * (np.arange(steps) >= begins)
    hip, knee = 20 + 25 * np.cos(phase), loaded * course
    hip, knee = (angle + 1.5 * rng.normal(size=angle.shape) for angle in (hip, knee))
    return Gait(hip[..., None], push[..., None], knee[..., None], dt)


class Battery(NamedTuple):
    """A test of a cell, a number for each record."""

    time: Array  # (record,), seconds
    current: Array  # (record,), A, negative where it discharges
    voltage: Array  # (record,)


def battery(seed: int, rate: float, *, cycles: int = 4, memory: float = 1.0, every: float = 30.0) -> Battery:
    """Simulate a cell that is discharged by 28 Ah, left alone, charged at 15 A and left alone, as often as that.

        V = U(q) + 0.002 i + memory (0.001 r^1 + 0.0015 r^2 + 0.02 h),   q charge above that of the full cell, Ah
        r^k: exponential averages of the current over 100 and 1500 s
        h <- exp(-0.5 |dq|) h + (1 - exp(-0.5 |dq|)) sign(dq)

    Args:
        seed: of the noise, of 1 mV.
        rate: of the discharge, in units of 30 A.
        cycles: how many.
        memory: of what the past adds; zero is a cell whose voltage says nothing of it.
        every: seconds between records.

    References:
        Plett. Extended Kalman filtering for battery management systems of LiPB-based HEV battery packs. 2004.
    """
    rest = int(1800 / every)
    steps = [round(28 * 3600 / (30 * rate) / every), round(28 * 3600 / 15 / every)]
    once = [[-30 * rate] * steps[0], [0.0] * rest, [15.0] * steps[1], [0.0] * rest]
    current = np.array([0.0] * rest + [value for part in once for value in part] * cycles)
    moved = current * every / 3600
    charge = np.minimum(np.cumsum(moved), 0.0)
    slow = [leaky((1 - kept) * current[None], kept)[0] for kept in np.exp([-every / 100, -every / 1500])]
    loop, path = 1.0, np.empty(len(current))
    for t, step in enumerate(moved):
        kept = np.exp(-0.5 * abs(step))
        path[t] = loop = kept * loop + (1 - kept) * np.sign(step) if step else loop
    open_circuit = 4.2 + 0.016 * charge - 0.4 * np.exp(-(charge + 30) / 1.5)
    past = 0.001 * slow[0] + 0.0015 * slow[1] + 0.02 * path
    noise = 0.001 * np.random.default_rng(seed).normal(size=len(current))
    return Battery(every * np.arange(len(current)), current, open_circuit + 0.002 * current + memory * past + noise)


def autoregression(seed: int, series: int, steps: int, *, phi: float = 0.9, noise: float = 0.0) -> Array:
    """Return series, (series, time, 1), of a stationary autoregression of first order, measured with noise.

        x_t = phi x_{t-1} + Normal(0, sqrt(1 - phi^2)),   y_t = x_t + Normal(0, noise),   so that x has variance one

    Args:
        seed: of everything.
        series, steps: how many.
        phi: correlation of one step and the next, inside (-1, 1).
        noise: standard deviation of what is added to every value; with any, y is no autoregression of first order.

    References:
        Hamilton. Time series analysis. 1994 (autoregressions, and their sums with noise).
    """
    rng = np.random.default_rng(seed)
    shocks = np.sqrt(1 - phi**2) * rng.normal(size=(series, steps, 1))
    shocks[:, 0] /= np.sqrt(1 - phi**2)
    return leaky(shocks, phi) + noise * rng.normal(size=shocks.shape)


class Reactor(NamedTuple):
    """Batches of a reactor and what was added to them; concentrations in mol/l."""

    charge: Array  # (batch,), of A at the start
    added: Array  # (batch, time, 1), of B in each step
    product: Array  # (batch, time, 1), of C by samples, NaN in the steps that have none
    course: Array  # (batch, time, 1), of C, without errors
    purity: Array  # (batch,), measured share of C in C and D at the end
    dt: float  # minutes


def reactor(seed: int, batches: int, *, react: float = 1.0, spread: float = 0.15, steps: int = 60) -> Reactor:
    """Simulate a semi-batch reactor: B is added in portions to A, and makes C of A, but D of C.

        da/dt = -k1 w a b,   db/dt = feed - k1 w a b - k2 w c b,   dc/dt = k1 w a b - k2 w c b,   dd/dt = k2 w c b
        k1 = 0.15, k2 = 0.03 l/mol/min,   w ~ LogNormal(0, spread) the activity of a batch,   a_0 ~ Uniform(0.8, 1.2)

    Three to eight portions of 0.05 to 0.3 mol/l come in the first 80 of 120 minutes; their volume is neglected. Every
    fifth step has a sample, with an error of 0.02 mol/l; that of purity is 0.01.

    Args:
        seed: of everything.
        batches: how many.
        react: factor of both rates; at zero nothing happens, whatever is added.
        spread: of the logarithm of the activity, which nobody measures.
        steps: of two minutes.

    References:
        Fogler. Elements of chemical reaction engineering. 2016 (semi-batch reactors, reactions in series).
    """
    rng, dt, parts = np.random.default_rng(seed), 2.0, 20
    charge, activity = rng.uniform(0.8, 1.2, batches), react * np.exp(spread * rng.normal(size=batches))
    added = np.zeros((batches, steps))
    for batch in range(batches):
        number = rng.integers(3, 9)
        np.add.at(added[batch], rng.integers(0, 2 * steps // 3, number), rng.uniform(0.05, 0.3, number))
    a, b, c, d = charge.copy(), *np.zeros((3, batches))
    course = np.zeros((batches, steps))
    for step in range(steps):
        for _ in range(parts):
            first, second = 0.15 * activity * a * b, 0.03 * activity * c * b
            a = a - dt / parts * first
            b = b + added[:, step] / parts - dt / parts * (first + second)
            c = c + dt / parts * (first - second)
            d = d + dt / parts * second
        course[:, step] = c
    product = course + 0.02 * rng.normal(size=course.shape)
    product[:, np.arange(steps) % 5 != 4] = np.nan
    purity = c / np.maximum(c + d, 1e-12) + 0.01 * rng.normal(size=batches)
    return Reactor(charge, added[..., None], product[..., None], course[..., None], purity, dt)
