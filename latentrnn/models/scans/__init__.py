"""Loops over time with a backward of their own, which takes every weight's gradient in one product after the loop."""

from latentrnn.models.scans.derivatives import again as again
from latentrnn.models.scans.derivatives import by_hand as by_hand
from latentrnn.models.scans.derivatives import wanted as wanted
from latentrnn.models.scans.directions import Layer as Layer
from latentrnn.models.scans.directions import among as among
from latentrnn.models.scans.directions import ends_of as ends_of
from latentrnn.models.scans.gru import gru_scan as gru_scan
from latentrnn.models.scans.library import layer_of as layer_of
from latentrnn.models.scans.library import loops as loops
from latentrnn.models.scans.library import reverse_within as reverse_within
from latentrnn.models.scans.library import run as run
from latentrnn.models.scans.library import run_ways as run_ways
from latentrnn.models.scans.members import of_members as of_members
from latentrnn.models.scans.members import together as together
from latentrnn.models.scans.ragged import Entries as Entries
from latentrnn.models.scans.vanilla import vanilla_scan as vanilla_scan
