"""The steps of a run in order, and the same answers from tables or from an existing fit."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
