"""Plotting: Axes in, Axes out. Every function draws into the Axes given, or new ones, and returns them."""

from latentrnn.plotting.calibration import time_rescaling as time_rescaling
from latentrnn.plotting.checks import predictive_check as predictive_check
from latentrnn.plotting.gates import band as band
from latentrnn.plotting.gates import gate_map as gate_map
from latentrnn.plotting.history import history as history
from latentrnn.plotting.rates import raster as raster
from latentrnn.plotting.rates import rates as rates
from latentrnn.plotting.simulation_based import coverage as coverage
from latentrnn.plotting.simulation_based import pit as pit
from latentrnn.plotting.simulation_based import rank_ecdf as rank_ecdf
