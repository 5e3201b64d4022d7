"""A mixture in the form and the unit of twelve trainers, and back.

Nothing here needs a trainer: fragments are text, and their Python is parsed, never run.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
