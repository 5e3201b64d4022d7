from .auto import AutoRegressor as AutoRegressor
from .ensemble import EnsembleRegressor as EnsembleRegressor
