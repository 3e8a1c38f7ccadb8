"""Recordings that packages on PyPI ship, and files of public formats, as the one data object."""

from latentrnn.datasets.data_file import data_file as data_file
from latentrnn.datasets.grasshopper import grasshopper as grasshopper
from latentrnn.datasets.lfads import lfads_file as lfads_file
from latentrnn.datasets.series import co2 as co2
from latentrnn.datasets.series import nile as nile
from latentrnn.datasets.series import sunspots as sunspots
