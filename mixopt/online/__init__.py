"""Change the mixture while training runs: estimators, and the driver for any training loop.

The interface (`Setting`, `Plan`, `Observation`, `Estimator`) needs only numpy; the driver needs
torch and is imported when used.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
