"""Classes of a user's own that saved fits call for."""

from __future__ import annotations

import latentrnn as lr


class Poisson(lr.Poisson):
    """Called as one of the package's."""
