from .aioli import AioliEstimator as AioliEstimator
from .odm import ODMEstimator as ODMEstimator
from .robust import RobustEstimator as RobustEstimator
