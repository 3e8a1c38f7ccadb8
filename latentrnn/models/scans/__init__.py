"""Loops over time with a backward of their own, which takes every weight's gradient in one product after the loop."""

from latentrnn.models.scans.derivatives import again as again
from latentrnn.models.scans.derivatives import by_hand as by_hand
from latentrnn.models.scans.derivatives import wanted as wanted
