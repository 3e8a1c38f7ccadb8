"""Learned transition functions, one concept a file."""

from latentrnn.models.transitions.gru import GRU as GRU
from latentrnn.models.transitions.linear import Linear as Linear
from latentrnn.models.transitions.lstm import LSTM as LSTM
from latentrnn.models.transitions.transition import Transition as Transition
from latentrnn.models.transitions.vanilla import VanillaRNN as VanillaRNN
