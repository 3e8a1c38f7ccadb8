"""One declaration of a head for the sessions of joined data, each with parameters of its own."""

from __future__ import annotations

from collections.abc import Mapping

from latentrnn.data import DataSpec
from latentrnn.models.observations import Observation


def per_session(spec: DataSpec, observations: Mapping[str, Observation]) -> dict[str, Observation]:
    """Return the heads of every session of joined data, each declared as named here and with its own parameters.

        y^{k,s}_t ~ family_k( link_k( readout_{k,s}(h_t) ) )    for head k in the sequences of session s

    All sessions share transition and latent; readout, baseline, noise scales and whatever else belongs to a head are
    each session's own. A head with priors has sites of its own in every session, e.g. `spikes_a.readout.weight`. A
    head that all sessions share, or one session's alone, may be named as it is in the data.

    Args:
        spec: the spec of data made by `SequenceData.join`.
        observations: head name as it was before joining, to what describes it.

    Raises:
        TypeError: no spec, or no heads by name.
        ValueError: a name that no session has.

    Example:
        >>> import numpy as np, latentrnn as lr
        >>> a, b = (lr.SequenceData.from_arrays({"spikes": np.ones((2, 5, n))}, dt=0.01) for n in (3, 4))
        >>> data = lr.SequenceData.join({"a": a, "b": b})
        >>> lr.per_session(data.spec, {"spikes": lr.Poisson()})
        {'spikes_a': Poisson(), 'spikes_b': Poisson()}
    """
    if not isinstance(spec, DataSpec):
        raise TypeError(f"per_session: expected a DataSpec (data.spec) first, found {type(spec).__name__}")
    if not isinstance(observations, Mapping):
        raise TypeError(
            f"per_session: expected a dict of head name to Observation, found {type(observations).__name__}"
        )
    heads: dict[str, Observation] = {}
    for name, observation in observations.items():
        names = [name] if name in spec.heads else list(spec.session_heads(name).values())
        heads |= dict.fromkeys(names, observation)
    return heads
