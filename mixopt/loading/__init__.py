"""From the order of samples to batches: datasets, loaders, packing, streams, prefetching."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
