"""Train trials by tasks that share a folder: started with `mixopt work`, or a Slurm array."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
