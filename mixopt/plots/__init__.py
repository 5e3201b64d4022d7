"""Figures: functions that take what mixopt made and return a matplotlib `Figure`.

The page, notebooks, the command line and MLflow draw by these functions alone. `run.plot`,
`fit.plot` and `trials.plot` call them with their own objects.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
