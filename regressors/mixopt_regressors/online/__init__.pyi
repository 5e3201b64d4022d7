from .ado import ADOEstimator as ADOEstimator
from .aioli import AioliEstimator as AioliEstimator
from .reweighting import (
    NaturalEstimator as NaturalEstimator,
    ODMEstimator as ODMEstimator,
    SkillItEstimator as SkillItEstimator,
    StratifiedEstimator as StratifiedEstimator,
)
from .robust import RobustEstimator as RobustEstimator
