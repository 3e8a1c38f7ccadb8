"""The names of the Pyro sites and plates: said once, here. A head's site carries the head's own name."""

PLATE = "sequences"  # the one plate, at dim -1
INITIAL = "initial"  # the latent initial state, event (dim,)
INNOVATIONS = "innovations"  # u_{1:T}, event (time, dim)
SWITCH = "switch_logits"  # the path of a switch in real coordinates, event (time, dim)
STATES = "states"  # z_{1:T} of a Markov latent, event (time, dim)

LATENTS = (INITIAL, INNOVATIONS, SWITCH, STATES)


def parameter_site(owner: str, path: str) -> str:
    """Return the site name of a parameter with a prior, of a head or a population, e.g. `spikes.gain.beta`."""
    return f"{owner}.{path}"
