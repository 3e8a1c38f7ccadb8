"""Loops over time with a backward of their own, which takes every weight's gradient in one product after the loop."""

from latentrnn.models.scans.gru import gru_scan as gru_scan
from latentrnn.models.scans.layout import Layer as Layer
from latentrnn.models.scans.layout import active_rows as active_rows
from latentrnn.models.scans.layout import final_states as final_states
from latentrnn.models.scans.library import layer_of as layer_of
from latentrnn.models.scans.library import loops as loops
from latentrnn.models.scans.library import reverse_within as reverse_within
from latentrnn.models.scans.library import run as run
from latentrnn.models.scans.library import run_directions as run_directions
from latentrnn.models.scans.packed_layout import PackedRows as PackedRows
from latentrnn.models.scans.transforms import PLAIN as PLAIN
from latentrnn.models.scans.transforms import gradient_wanted as gradient_wanted
from latentrnn.models.scans.transforms import gradients_by_autograd as gradients_by_autograd
from latentrnn.models.scans.transforms import over_members as over_members
from latentrnn.models.scans.transforms import step_is_recorded as step_is_recorded
from latentrnn.models.scans.transforms import vmap_over_members as vmap_over_members
from latentrnn.models.scans.unrolled import unrolled_scan as unrolled_scan
from latentrnn.models.scans.vanilla import vanilla_scan as vanilla_scan
