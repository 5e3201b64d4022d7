"""From a table of trials to a `Fit` that predicts losses with 90% intervals.

Regressors compete on held-out folds beside trivial controls and the noise ceiling. Optional
abilities of a regressor are typed in `mixopt.fitting.regressor`. Pilots, model sizes and
repetition transfer a fit to the full run.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
