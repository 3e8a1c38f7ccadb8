"""Where randomness enters the state, one concept a file."""

from latentrnn.models.latents.deterministic import Deterministic as Deterministic
from latentrnn.models.latents.discrete import Discrete as Discrete
from latentrnn.models.latents.initial_state import InitialState as InitialState
from latentrnn.models.latents.innovations import Innovations as Innovations
from latentrnn.models.latents.latent import Latent as Latent
from latentrnn.models.latents.linear_gaussian import LinearGaussian as LinearGaussian
from latentrnn.models.latents.markov_normal import MarkovNormal as MarkovNormal
from latentrnn.models.latents.path import Carry as Carry
from latentrnn.models.latents.path import LatentSite as LatentSite
from latentrnn.models.latents.path import Path as Path
from latentrnn.models.latents.path import Step as Step
from latentrnn.models.latents.recurrent_normal import RecurrentNormal as RecurrentNormal
from latentrnn.models.latents.relaxed_discrete import RelaxedDiscrete as RelaxedDiscrete
