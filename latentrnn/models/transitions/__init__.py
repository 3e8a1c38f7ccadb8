"""Learned transition functions, one concept a file."""

from latentrnn.models.transitions.coupled_gate_lstm import CoupledGateLSTM as CoupledGateLSTM
from latentrnn.models.transitions.decay import Decay as Decay
from latentrnn.models.transitions.diagonal import DiagonalLinear as DiagonalLinear
from latentrnn.models.transitions.gated import GatedTransition as GatedTransition
from latentrnn.models.transitions.gru import GRU as GRU
from latentrnn.models.transitions.leaky import LeakyIntegrator as LeakyIntegrator
from latentrnn.models.transitions.linear import Linear as Linear
from latentrnn.models.transitions.lstm import LSTM as LSTM
from latentrnn.models.transitions.min_gru import MinGRU as MinGRU
from latentrnn.models.transitions.modulated_forget_lstm import ModulatedForgetLSTM as ModulatedForgetLSTM
from latentrnn.models.transitions.neural_ode import NeuralODE as NeuralODE
from latentrnn.models.transitions.streams import Streams as Streams
from latentrnn.models.transitions.switching import SwitchingLinear as SwitchingLinear
from latentrnn.models.transitions.thermodynamic import ThermodynamicCell as ThermodynamicCell
from latentrnn.models.transitions.transition import Recording as Recording
from latentrnn.models.transitions.transition import Transition as Transition
from latentrnn.models.transitions.vanilla import VanillaRNN as VanillaRNN
