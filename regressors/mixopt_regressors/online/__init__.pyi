from .ado import ADOEstimator as ADOEstimator
from .aioli import AioliEstimator as AioliEstimator
from .doge import DoGEEstimator as DoGEEstimator
from .doremi import DoReMiEstimator as DoReMiEstimator
from .odm import ODMEstimator as ODMEstimator
from .robust import RobustEstimator as RobustEstimator
from .skill_it import SkillItEstimator as SkillItEstimator
from .static import NaturalEstimator as NaturalEstimator, StratifiedEstimator as StratifiedEstimator
