"""Regressors made of others: weighed by held-out folds, or averaged."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
