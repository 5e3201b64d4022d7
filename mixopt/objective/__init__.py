"""The quantity that is minimised, computed from losses by evaluation domain, and its unit."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
