"""A fitted model opened: gates, memories and dynamics as quantities with names, units and intervals.

Everything here takes a posterior (of a fit, of NUTS, of an ensemble, of Laplace's approximation) of any transition, a
user's own included, and gives labelled `xarray.Dataset`s with the dimensions sample, sequence, time (seconds, or steps
where the data have no clock) and unit; `summarise` makes means and intervals of them.
"""

from latentrnn.interpret.adaptation import adaptation as adaptation
from latentrnn.interpret.alignment import Alignment as Alignment
from latentrnn.interpret.alignment import align as align
from latentrnn.interpret.attention import attention as attention
from latentrnn.interpret.attractors import attractor as attractor
from latentrnn.interpret.explained_variance import explained_variance as explained_variance
from latentrnn.interpret.factors import factors as factors
from latentrnn.interpret.fixed_points import FixedPoints as FixedPoints
from latentrnn.interpret.fixed_points import fixed_points as fixed_points
from latentrnn.interpret.gain_share import gain_share as gain_share
from latentrnn.interpret.gradient_flow import gradient_flow as gradient_flow
from latentrnn.interpret.head_gradients import HeadGradients as HeadGradients
from latentrnn.interpret.head_gradients import head_gradients as head_gradients
from latentrnn.interpret.head_sensitivity import head_sensitivity as head_sensitivity
from latentrnn.interpret.interventions import Intervention as Intervention
from latentrnn.interpret.interventions import clamp as clamp
from latentrnn.interpret.interventions import contrast as contrast
from latentrnn.interpret.interventions import do as do
from latentrnn.interpret.interventions import intervene as intervene
from latentrnn.interpret.interventions import lesion as lesion
from latentrnn.interpret.interventions import perturb as perturb
from latentrnn.interpret.jacobians import jacobians as jacobians
from latentrnn.interpret.lyapunov import lyapunov as lyapunov
from latentrnn.interpret.lyapunov import lyapunov_along as lyapunov_along
from latentrnn.interpret.mask_sensitivity import mask_sensitivity as mask_sensitivity
from latentrnn.interpret.mutagenesis import mutagenesis as mutagenesis
from latentrnn.interpret.probes import decode as decode
from latentrnn.interpret.probes import probe as probe
from latentrnn.interpret.replication import replication as replication
from latentrnn.interpret.saliency import saliency as saliency
from latentrnn.interpret.sensitivity import sensitivity as sensitivity
from latentrnn.interpret.spectrum import spectrum as spectrum
from latentrnn.interpret.summaries import summarise as summarise
from latentrnn.interpret.telemetry import telemetry as telemetry
from latentrnn.interpret.time_constants import time_constants as time_constants
from latentrnn.interpret.traces import trace as trace
from latentrnn.interpret.trajectories import phase_portrait as phase_portrait
from latentrnn.interpret.trajectories import trajectories as trajectories
