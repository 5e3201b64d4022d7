from .ado import ADOEstimator as ADOEstimator
from .aioli import AioliEstimator as AioliEstimator
from .fixed_and_bandit import (
    NaturalEstimator as NaturalEstimator,
    ODMEstimator as ODMEstimator,
    StratifiedEstimator as StratifiedEstimator,
)
from .gradient_scores import DoGEEstimator as DoGEEstimator, DoReMiEstimator as DoReMiEstimator
from .robust import RobustEstimator as RobustEstimator
from .skill_it import SkillItEstimator as SkillItEstimator
