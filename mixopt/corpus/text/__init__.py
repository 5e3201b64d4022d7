"""Read documents from files, hubs and installed packages; extract, deduplicate and hold out."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
