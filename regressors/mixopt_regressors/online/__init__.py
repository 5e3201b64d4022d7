"""Estimators that change the mixture while training runs, by the entry points `mixopt.estimators`.

An estimator makes one plan at a time, is told what was consumed and lost under it, and makes the
next (`online_estimator`). numpy and scipy alone.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
