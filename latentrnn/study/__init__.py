"""Many fits of one kind of data: models, seeds and settings, that several processes share and that survive kills."""

from latentrnn.study.study import Study as Study
from latentrnn.study.toml_models import model_from_toml as model_from_toml
from latentrnn.study.toml_models import model_to_toml as model_to_toml
