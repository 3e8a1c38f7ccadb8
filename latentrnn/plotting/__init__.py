"""Plotting: Axes in, Axes out. Every function draws into the Axes given, or new ones, and returns them."""

from latentrnn.plotting.calibration import time_rescaling as time_rescaling
from latentrnn.plotting.checks import predictive_check as predictive_check
from latentrnn.plotting.dynamics import explained_variance as explained_variance
from latentrnn.plotting.dynamics import fixed_points as fixed_points
from latentrnn.plotting.dynamics import lyapunov as lyapunov
from latentrnn.plotting.dynamics import phase_portrait as phase_portrait
from latentrnn.plotting.dynamics import trajectories as trajectories
from latentrnn.plotting.gates import band as band
from latentrnn.plotting.gates import gate_map as gate_map
from latentrnn.plotting.history import history as history
from latentrnn.plotting.memories import gate_sensitivity as gate_sensitivity
from latentrnn.plotting.memories import gradient_flow as gradient_flow
from latentrnn.plotting.memories import sensitivity as sensitivity
from latentrnn.plotting.memories import spectrum as spectrum
from latentrnn.plotting.memories import time_constants as time_constants
from latentrnn.plotting.probes import probe as probe
from latentrnn.plotting.rates import raster as raster
from latentrnn.plotting.rates import rates as rates
from latentrnn.plotting.replication import alignment as alignment
from latentrnn.plotting.replication import replication as replication
from latentrnn.plotting.saliency import attention as attention
from latentrnn.plotting.saliency import mutagenesis as mutagenesis
from latentrnn.plotting.saliency import saliency as saliency
from latentrnn.plotting.simulation_based import coverage as coverage
from latentrnn.plotting.simulation_based import pit as pit
from latentrnn.plotting.simulation_based import rank_ecdf as rank_ecdf
