"""Out of the package: ArviZ groups and netCDF, checkpoints."""

from latentrnn.export.arviz import to_arviz as to_arviz
from latentrnn.export.checkpoints import load as load
from latentrnn.export.checkpoints import save as save
from latentrnn.export.streaming import to_netcdf as to_netcdf
