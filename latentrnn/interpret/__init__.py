"""A fitted model opened: gates, memories and dynamics as quantities with names, units and intervals.

Everything here takes a posterior (of a fit, of NUTS, of an ensemble, of Laplace's approximation) of any transition, a
user's own included, and gives labelled `xarray.Dataset`s with the dimensions sample, sequence, time (seconds, or steps
where the data have no clock) and unit; `summarise` makes means and intervals of them.
"""

from latentrnn.interpret.agreement.alignment import Alignment as Alignment
from latentrnn.interpret.agreement.alignment import align as align
from latentrnn.interpret.agreement.explained_variance import explained_variance as explained_variance
from latentrnn.interpret.agreement.replication import replication as replication
from latentrnn.interpret.attribution.attention import attention as attention
from latentrnn.interpret.attribution.mutagenesis import mutagenesis as mutagenesis
from latentrnn.interpret.attribution.saliency import saliency as saliency
from latentrnn.interpret.derivatives.gradient_flow import gradient_flow as gradient_flow
from latentrnn.interpret.derivatives.head_sensitivity import head_sensitivity as head_sensitivity
from latentrnn.interpret.derivatives.jacobians import jacobians as jacobians
from latentrnn.interpret.derivatives.sensitivity import sensitivity as sensitivity
from latentrnn.interpret.dynamics.attractors import attractor as attractor
from latentrnn.interpret.dynamics.fixed_points import FixedPoints as FixedPoints
from latentrnn.interpret.dynamics.fixed_points import fixed_points as fixed_points
from latentrnn.interpret.dynamics.lyapunov import lyapunov as lyapunov
from latentrnn.interpret.dynamics.lyapunov import lyapunov_along as lyapunov_along
from latentrnn.interpret.dynamics.trajectories import phase_portrait as phase_portrait
from latentrnn.interpret.dynamics.trajectories import trajectories as trajectories
from latentrnn.interpret.heads.head_gradients import HeadGradients as HeadGradients
from latentrnn.interpret.heads.head_gradients import head_gradients as head_gradients
from latentrnn.interpret.heads.mask_sensitivity import mask_sensitivity as mask_sensitivity
from latentrnn.interpret.interventions.adaptation import adaptation as adaptation
from latentrnn.interpret.interventions.gain_share import gain_share as gain_share
from latentrnn.interpret.interventions.interventions import Intervention as Intervention
from latentrnn.interpret.interventions.interventions import clamp as clamp
from latentrnn.interpret.interventions.interventions import contrast as contrast
from latentrnn.interpret.interventions.interventions import do as do
from latentrnn.interpret.interventions.interventions import intervene as intervene
from latentrnn.interpret.interventions.interventions import lesion as lesion
from latentrnn.interpret.interventions.interventions import perturb as perturb
from latentrnn.interpret.memories.spectrum import spectrum as spectrum
from latentrnn.interpret.memories.time_constants import time_constants as time_constants
from latentrnn.interpret.probes.probes import decode as decode
from latentrnn.interpret.probes.probes import probe as probe
from latentrnn.interpret.recorded.factors import factors as factors
from latentrnn.interpret.recorded.telemetry import telemetry as telemetry
from latentrnn.interpret.recorded.traces import trace as trace
from latentrnn.interpret.results.summaries import summarise as summarise
