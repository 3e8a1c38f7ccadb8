"""Single series that statsmodels ships, with their dates."""

from __future__ import annotations

from latentrnn.data import SequenceData
from latentrnn.datasets.shipped import shipped_by


def nile() -> SequenceData:
    """Yearly flow of the Nile at Aswan, 1871 to 1970, in 1e8 m^3: one sequence of 100 years, head `flow`.

    Raises:
        ModuleNotFoundError: statsmodels is not installed.

    References:
        J. Durbin, S. J. Koopman (2012), Time Series Analysis by State Space Methods.

    Example:
        >>> nile()
        SequenceData: 1 sequence of 100 steps, unit steps
          observations: flow (1 channel)
          dates: from 1871-01-01, steps of 'YS-JAN'
    """
    return _yearly("nile", "volume", "flow", 1871)


def sunspots() -> SequenceData:
    """Yearly mean of the daily numbers of sunspots, 1700 to 2008: one sequence of 309 years, head `sunspots`.

    Raises:
        ModuleNotFoundError: statsmodels is not installed.

    References:
        Royal Observatory of Belgium, World Data Center SILSO, International Sunspot Number.
    """
    return _yearly("sunspots", "SUNACTIVITY", "sunspots", 1700)


def co2() -> SequenceData:
    """Weekly carbon dioxide on Mauna Loa, 1958 to 2001, parts per million, some weeks missing: head `co2`.

    Raises:
        ModuleNotFoundError: statsmodels is not installed.

    References:
        C. Keeling, T. Whorf (2004), Atmospheric CO2 concentrations derived from flask air samples at sites in the SIO
        network.
    """
    frame = shipped_by("statsmodels", "statsmodels.datasets", "co2").co2.load_pandas().data
    return SequenceData.from_dataframe(frame, ["co2"])


def _yearly(name: str, column: str, head: str, first: int) -> SequenceData:
    import pandas

    table = getattr(shipped_by("statsmodels", "statsmodels.datasets", name), name).load_pandas().data
    years = pandas.date_range(f"{first}-01-01", periods=len(table), freq="YS", unit="s")
    return SequenceData.from_dataframe(table[[column]].set_axis(years), {head: column})
