"""From the state to a head's raw outputs."""

from latentrnn.models.readouts.attention import AttentionReadout as AttentionReadout
from latentrnn.models.readouts.attention import CausalAttention as CausalAttention
from latentrnn.models.readouts.attention import ModulatedAttention as ModulatedAttention
from latentrnn.models.readouts.attention import WindowedAttention as WindowedAttention
from latentrnn.models.readouts.conjugate_force import ConjugateForce as ConjugateForce
from latentrnn.models.readouts.cross_attention import CrossAttention as CrossAttention
from latentrnn.models.readouts.factor import FactorReadout as FactorReadout
from latentrnn.models.readouts.linear import LinearReadout as LinearReadout
from latentrnn.models.readouts.linear import linear as linear
from latentrnn.models.readouts.mlp import MLPReadout as MLPReadout
from latentrnn.models.readouts.readout import Readout as Readout
from latentrnn.models.readouts.readout import Surroundings as Surroundings
from latentrnn.models.readouts.source_attention import SourceAttention as SourceAttention
