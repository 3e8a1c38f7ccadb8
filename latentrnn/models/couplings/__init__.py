"""Penalties that tie heads to each other while fitting, one a file."""

from latentrnn.models.couplings.coupling import Coupling as Coupling
from latentrnn.models.couplings.local_global_agreement import LocalGlobalAgreement as LocalGlobalAgreement
from latentrnn.models.couplings.outcome_calibration import OutcomeCalibration as OutcomeCalibration
from latentrnn.models.couplings.phase_class_agreement import PhaseClassAgreement as PhaseClassAgreement
from latentrnn.models.couplings.physical_penalty import PhysicalPenalty as PhysicalPenalty
from latentrnn.models.couplings.survival_consistency import SurvivalConsistency as SurvivalConsistency
