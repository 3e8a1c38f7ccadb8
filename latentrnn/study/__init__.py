"""Many fits of one kind of data: models, seeds and settings, that several processes share and that survive kills."""

from latentrnn.study.study import Study as Study
