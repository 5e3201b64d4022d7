"""Results of a run: tables for the terminal, figures, the page, and the what-if."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
