"""Train a list of trials in worker processes, on this machine or on a cluster's, resumably."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
