"""Observation heads, one family a file."""

from latentrnn.models.observations.bernoulli import Bernoulli as Bernoulli
from latentrnn.models.observations.categorical import Categorical as Categorical
from latentrnn.models.observations.gaussian import Gaussian as Gaussian
from latentrnn.models.observations.links import Link as Link
from latentrnn.models.observations.multinomial import Multinomial as Multinomial
from latentrnn.models.observations.observation import HeadInputs as HeadInputs
from latentrnn.models.observations.observation import Observation as Observation
from latentrnn.models.observations.poisson import Poisson as Poisson
