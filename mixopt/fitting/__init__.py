"""From a table of trials to a `Fit` that predicts losses with 90% intervals.

Regressors compete on held-out folds beside trivial controls and the noise ceiling. What a
regressor can do beyond `fit` and `predict` is typed in `mixopt.fitting.regressor`; pilots, model
sizes and repetition change what a fit predicts for.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
