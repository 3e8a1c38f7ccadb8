"""From arrays, ragged lists and spike times to the one data object that models take."""

from latentrnn.data.protocol import Sequences as Sequences
from latentrnn.data.sequence_data import SequenceData as SequenceData
from latentrnn.data.spec import CovariateSpec as CovariateSpec
from latentrnn.data.spec import DataSpec as DataSpec
from latentrnn.data.spec import HeadSpec as HeadSpec
from latentrnn.data.spec import SequenceKey as SequenceKey
from latentrnn.data.stored.sequences import StoredSequences as StoredSequences
