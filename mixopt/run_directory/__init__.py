"""The contents of a run directory, and whether each output matches the configuration."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
