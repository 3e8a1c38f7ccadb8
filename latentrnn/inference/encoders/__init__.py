"""From what was observed to features of every step, for a guide to turn into posteriors."""

from latentrnn.inference.encoders.encoder import Encoder as Encoder
from latentrnn.inference.encoders.encoder import Encoding as Encoding
from latentrnn.inference.encoders.rnn import RNNEncoder as RNNEncoder
from latentrnn.inference.encoders.step import StepEncoder as StepEncoder
