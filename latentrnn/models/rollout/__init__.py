"""One batch given one draw of the latents: its states, and the distributions of its heads."""

from latentrnn.models.rollout.rollout import Head as Head
from latentrnn.models.rollout.rollout import Rollout as Rollout
