"""From weights to the order of samples: exact, resumable, and numpy alone.

`mixopt.sampling.order` is the integer arithmetic behind it.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
