"""Track runs in MLflow, without ever waiting for it or failing with it.

Training only appends to files of the run directory (mixopt.tracking.record). A separate process
(mixopt.tracking.sender) sends to MLflow what the server does not have yet, in order and once: now,
at the next start, or with `mixopt sync`.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
