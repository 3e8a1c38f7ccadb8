"""From what was observed to features of every step, for a guide to turn into posteriors."""

from latentrnn.inference.guides.encoders.encoder import Encoder as Encoder
from latentrnn.inference.guides.encoders.encoder import Encoding as Encoding
from latentrnn.inference.guides.encoders.rnn import RNNEncoder as RNNEncoder
from latentrnn.inference.guides.encoders.step import StepEncoder as StepEncoder
