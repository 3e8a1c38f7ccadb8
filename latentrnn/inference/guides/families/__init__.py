"""Families of distributions over a sequence's latents, given what an encoder says of it."""

from latentrnn.inference.guides.families.combiner import Combiner as Combiner
from latentrnn.inference.guides.families.default import default_family as default_family
from latentrnn.inference.guides.families.driven_markov import DrivenMarkov as DrivenMarkov
from latentrnn.inference.guides.families.family import Family as Family
from latentrnn.inference.guides.families.family import Proposals as Proposals
from latentrnn.inference.guides.families.flow import Flow as Flow
from latentrnn.inference.guides.families.gaussian_chain import GaussianChain as GaussianChain
from latentrnn.inference.guides.families.markov import Markov as Markov
from latentrnn.inference.guides.families.mean_field import MeanField as MeanField
from latentrnn.inference.guides.families.per_sequence import PerSequence as PerSequence
