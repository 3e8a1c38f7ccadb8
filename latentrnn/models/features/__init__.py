"""From named covariates to the channels that a transition, a gain or an encoder takes in."""

from latentrnn.models.features.bidirectional import BidirectionalRNN as BidirectionalRNN
from latentrnn.models.features.convolution import Convolution as Convolution
from latentrnn.models.features.feature import CovariateReader as CovariateReader
from latentrnn.models.features.feature import Feature as Feature
from latentrnn.models.features.feature import Identity as Identity
from latentrnn.models.features.feature import listed as listed
from latentrnn.models.features.feature import standardisation as standardisation
from latentrnn.models.features.gap import Gap as Gap
from latentrnn.models.features.lags import Lags as Lags
from latentrnn.models.features.lags import lagged as lagged
from latentrnn.models.features.symbols import Embedding as Embedding
from latentrnn.models.features.symbols import OneHot as OneHot
from latentrnn.models.features.symbols import Symbols as Symbols
