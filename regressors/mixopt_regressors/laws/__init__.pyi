from .epochs import EpochsRegressor as EpochsRegressor
from .log_linear import LogLinearRegressor as LogLinearRegressor
from .skills import SkillsRegressor as SkillsRegressor
