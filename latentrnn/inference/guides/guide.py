"""The variational posterior: an encoder, a family over local latents, a family over parameters with priors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from latentrnn.data import SequenceData
from latentrnn.inference.guides.encoders import Encoder, Encoding
from latentrnn.inference.guides.families import Family, MeanField, default_family
from latentrnn.inference.guides.parameters import FAMILIES, ParameterFamily
from latentrnn.models.component import from_config
from latentrnn.models.parameters.priors import refuse_ignored_priors
from latentrnn.models.starting_weights import draw_weights
from latentrnn.models.state_space import LatentRNN, refuse_param_store, sequence_plate
from latentrnn.support.arguments import check_choice, check_size
from latentrnn.support.deprecations import former_methods
from latentrnn.support.notebooks import ShownInNotebooks


@former_methods
class Guide(nn.Module, ShownInNotebooks):
    """q(parameters) q(latents | data), as a Pyro program with the model's sites and plate.

    What is known of a sequence comes from the encoder, so that the posterior of a new sequence is one evaluation
    away (amortised), or, with the family `PerSequence`, from parameters of its own. In padding local latents equal the
    prior. Parameters with a prior have their own family, in unconstrained space. A guide keeps no reference to its
    model.

    Args:
        model: the model whose sites it covers; read once, for their shapes.
        encoder: summarises the data for local latents; it may be left out where the model has none.
        family: of the local latents: `MeanField`, `Markov`, `DrivenMarkov`, `GaussianChain`, a `Flow` on top of one of
            them, or `PerSequence` parameters for one of them. By default `Markov` where the latent is a state that is
            drawn at every step (`MarkovNormal`, `RecurrentNormal`), else `MeanField`.
        global_family: of the parameters with priors: "normal" (independent, for any number of them), "multivariate"
            (up to some 2,000), "low_rank" (independent, and correlated along a few directions), "flow" (some 500) or
            "point" (no spread).
        global_rank: directions of "low_rank"; by default the square root of how many numbers there are.

    Raises:
        ValueError: the model has local latents but no encoder is given; an unknown family; a head that feeds back
            while the encoder observes only others; a family that is too large for so many parameters, or has no best
            point; a rank of another family, or one that is too large.
        TypeError: something that is not an encoder, a family or a model.

    References:
        Kingma, Welling. Auto-encoding variational Bayes. 2014.
        Kucukelbir, Tran, Ranganath, Gelman, Blei. Automatic differentiation variational inference. 2017.
    """

    parameter_sites: ParameterFamily | None

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        former_methods(cls)

    def __init__(
        self,
        model: LatentRNN,
        *,
        encoder: Encoder | None = None,
        family: Family | None = None,
        global_family: str = "normal",
        global_rank: int | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(model, LatentRNN):
            raise TypeError(f"Guide: model must be a LatentRNN; found {type(model).__name__}")
        if encoder is not None and not isinstance(encoder, Encoder):
            raise TypeError(f"Guide: encoder must be an Encoder; found {type(encoder).__name__}")
        self.spec, self.sites = model.spec, model.latent_sites()
        family = default_family(self.sites) if family is None else family
        if not isinstance(family, Family):
            raise TypeError(f"Guide: family must be a Family, e.g. GaussianChain(); found {type(family).__name__}")
        self.global_family = check_choice("Guide", "global_family", global_family, FAMILIES)
        self.encoder = None if encoder is None else encoder.fresh()
        self.local = family.fresh()
        if self.sites:
            if encoder is None and family.amortised:
                names = [site.name for site in self.sites]
                raise ValueError(f"Guide: the model's latent sites {names} need an encoder, e.g. RNNEncoder(64)")
            sizes = 1, 1
            if self.encoder is not None:
                self.encoder.max_elements = model.max_elements
                self.encoder.build(model.spec, {name: head.encoder_input for name, head in model.observations.items()})
                _refuse_leaks(model, self.encoder)
                sizes = self.encoder.step_size, self.encoder.summary_size
            self.local.build(self.sites, *sizes)
        for argument, part in (("encoder", self.encoder), ("family", self.local)):
            if part is not None:
                refuse_ignored_priors(f"Guide: {argument}", part)
        self.global_rank = None if global_rank is None else check_size("Guide", "global_rank", global_rank)
        if self.global_rank is not None and global_family != "low_rank":
            raise ValueError(f"Guide: global_rank is of global_family='low_rank'; found {global_family!r}")
        self.parameter_sites = self._family_of_parameters(model) if model.parameter_sites() else None

    def _family_of_parameters(self, model: LatentRNN) -> ParameterFamily:
        """Return the family over the parameters of a model that has priors.

        Raises:
            ValueError: it is at a point that is none, or would be too large.
        """
        if self.global_family == "point" and (scales := model.given.learned_scales()):
            raise ValueError(
                f"Guide: global_family='point' has no best point where {scales} are inferred with the weights that "
                "they scale: the density grows without bound as both go to zero; use 'normal', or "
                "NetworkPrior(learned=False), whose scales are known"
            )
        spreads = {site: prior.fan_in**-0.5 for site, prior in model.network_weights().items()}
        options = {} if self.global_rank is None else {"rank": self.global_rank}
        return FAMILIES[self.global_family](model.parameter_sites(), spreads, **options)

    def forward(self, data: SequenceData) -> dict[str, Tensor]:
        """Run the Pyro program on a batch and return the value of every site."""
        refuse_param_store(self)
        values = {} if self.parameter_sites is None else self.parameter_sites()
        if self.sites:
            parameters = self.variational_parameters(data)
            with sequence_plate(data):
                values |= self.local.sample(parameters, data)
        return values

    def variational_parameters(self, data: SequenceData) -> dict[str, Tensor]:
        """Return all that the family knows of each sequence, by site: (sequence, time, n) or (sequence, n)."""
        if self.encoder is None:
            ones = data.lengths.new_ones(data.num_sequences, 1, dtype=data.dtype)
            encoding = Encoding(ones.unsqueeze(-1).expand(-1, data.num_steps, -1), ones)
        else:
            encoding = self.encoder(data)
        return self.local.variational_parameters(encoding, data)

    def draw_weights(self) -> None:
        """Draw the weights of all parts anew from torch's generators, children before parents."""
        draw_weights(self)

    def initialise(self, model: LatentRNN, data: SequenceData) -> None:
        """Start from the model's starting values and the training data's scales."""
        if self.encoder is not None and self.sites:
            self.encoder.initialise(data)
        if self.sites:
            self.local.initialise(data)
        if self.parameter_sites is not None:
            starts = {name: start for name, (_, start) in model.parameter_sites().items()}
            self.parameter_sites.start_at(starts, model.parameter_units())

    def config(self) -> dict[str, Any]:
        """Return the JSON form: all hyper-parameters, without the weights."""
        return {
            "encoder": None if self.encoder is None else self.encoder.config(),
            "family": self.local.config(),
            "global_family": self.global_family,
            **({} if self.global_rank is None else {"global_rank": self.global_rank}),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], model: LatentRNN) -> Guide:
        """Return an untrained guide for `model` from its JSON form."""
        encoder = None if config["encoder"] is None else from_config(config["encoder"])
        family = from_config(config["family"]) if "family" in config else MeanField()
        rank = config.get("global_rank")
        return cls(model, encoder=encoder, family=family, global_family=config["global_family"], global_rank=rank)

    def _shown(self) -> tuple[list[str], list[Any]]:
        drawn = ", ".join(site.name for site in self.sites) or "nothing local"
        return [f"of {drawn}", f"encoder: {self.encoder!r}", f"family: {self.local!r}"], []

    def __repr__(self) -> str:
        return f"Guide(sites={[site.name for site in self.sites]}, encoder={self.encoder!r}, family={self.local!r})"


def _refuse_leaks(model: LatentRNN, encoder: Encoder) -> None:
    for name, head in model.observations.items():
        if head.feedback is not None and head.head.per_step and name not in encoder.visible:
            raise ValueError(
                f"observations[{name!r}] feeds back into the state but is held out from the encoder: what is held out "
                "for co-smoothing must not reach the state by another way; drop its feedback, or let the encoder see it"
            )
