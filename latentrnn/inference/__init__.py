"""The variational side."""

from latentrnn.inference.coupling_report import CouplingReport as CouplingReport
from latentrnn.inference.elbo import Terms as Terms
from latentrnn.inference.elbo import elbo_terms as elbo_terms
from latentrnn.inference.encoders import Encoder as Encoder
from latentrnn.inference.encoders import RNNEncoder as RNNEncoder
from latentrnn.inference.encoders import StepEncoder as StepEncoder
from latentrnn.inference.evidence import Evidence as Evidence
from latentrnn.inference.families import Family as Family
from latentrnn.inference.families import Flow as Flow
from latentrnn.inference.families import GaussianChain as GaussianChain
from latentrnn.inference.families import Markov as Markov
from latentrnn.inference.families import MeanField as MeanField
from latentrnn.inference.families import PerSequence as PerSequence
from latentrnn.inference.filtering import OneStepAhead as OneStepAhead
from latentrnn.inference.guides import Guide as Guide
from latentrnn.inference.posterior import Posterior as Posterior
from latentrnn.inference.result import FitResult as FitResult
from latentrnn.inference.schedules import Adam as Adam
from latentrnn.inference.schedules import AdamW as AdamW
from latentrnn.inference.schedules import Constant as Constant
from latentrnn.inference.schedules import Cosine as Cosine
from latentrnn.inference.schedules import EarlyStopping as EarlyStopping
from latentrnn.inference.schedules import KLWarmUp as KLWarmUp
from latentrnn.inference.schedules import Plateau as Plateau
from latentrnn.inference.svi import fit as fit
