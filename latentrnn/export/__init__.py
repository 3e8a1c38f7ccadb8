"""Out of the package: ArviZ groups and netCDF."""

from latentrnn.export.arviz import to_arviz as to_arviz
from latentrnn.export.prior import prior_to_arviz as prior_to_arviz
from latentrnn.export.streaming import to_netcdf as to_netcdf
from latentrnn.export.summary import summary as summary
