"""Estimators that change the mixture while training runs, by the entry points `mixopt.estimators`.

An estimator makes a plan, observes tokens and losses under it, and makes the next plan
(`online_estimator`). It needs only numpy and scipy.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
