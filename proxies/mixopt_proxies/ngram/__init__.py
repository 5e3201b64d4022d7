"""An n-gram model that trains in seconds: for tests and first looks."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
