"""From weights to the order of samples: exact, resumable, and numpy alone.

`sampler` is the batch sampler of a training loop, `order` deals each global batch's samples to the
domains, `ranks` deals them to the data-parallel ranks.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
