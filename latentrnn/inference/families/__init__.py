"""Families of distributions over a sequence's latents, given what an encoder says of it."""

from latentrnn.inference.families.combiner import Combiner as Combiner
from latentrnn.inference.families.family import Family as Family
from latentrnn.inference.families.family import Proposals as Proposals
from latentrnn.inference.families.flow import Flow as Flow
from latentrnn.inference.families.gaussian_chain import GaussianChain as GaussianChain
from latentrnn.inference.families.markov import Markov as Markov
from latentrnn.inference.families.mean_field import MeanField as MeanField
from latentrnn.inference.families.per_sequence import PerSequence as PerSequence
