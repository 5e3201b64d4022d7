from .auto import AutoRegressor as AutoRegressor
from .combined import EnsembleRegressor as EnsembleRegressor
