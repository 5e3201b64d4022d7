"""Sources of a pretraining run's rows: a prepared corpus, or streams."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
