"""The generative side."""

from latentrnn.models.features import Lags as Lags
from latentrnn.models.feedback import History as History
from latentrnn.models.gain import StimulusGain as StimulusGain
from latentrnn.models.latents import Deterministic as Deterministic
from latentrnn.models.latents import InitialState as InitialState
from latentrnn.models.latents import Innovations as Innovations
from latentrnn.models.latents import Latent as Latent
from latentrnn.models.latents import MarkovNormal as MarkovNormal
from latentrnn.models.observations import Bernoulli as Bernoulli
from latentrnn.models.observations import Categorical as Categorical
from latentrnn.models.observations import Gaussian as Gaussian
from latentrnn.models.observations import Link as Link
from latentrnn.models.observations import Multinomial as Multinomial
from latentrnn.models.observations import Observation as Observation
from latentrnn.models.observations import Poisson as Poisson
from latentrnn.models.readouts import LinearReadout as LinearReadout
from latentrnn.models.state_space import LatentRNN as LatentRNN
from latentrnn.models.transitions import GRU as GRU
from latentrnn.models.transitions import LSTM as LSTM
from latentrnn.models.transitions import Linear as Linear
from latentrnn.models.transitions import Transition as Transition
from latentrnn.models.transitions import VanillaRNN as VanillaRNN
