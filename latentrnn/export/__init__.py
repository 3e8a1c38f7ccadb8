"""Out of the package: ArviZ groups, labelled arrays, and files as other programs read them."""

from latentrnn.export.arviz import to_arviz as to_arviz
from latentrnn.export.labelled import posterior_to_xarray as posterior_to_xarray
from latentrnn.export.lfads import to_lfads as to_lfads
from latentrnn.export.nlb import to_nlb as to_nlb
from latentrnn.export.nwb import to_nwb as to_nwb
from latentrnn.export.prior import prior_to_arviz as prior_to_arviz
from latentrnn.export.streaming import to_netcdf as to_netcdf
from latentrnn.export.summary import summary as summary
