"""Which mixtures to try: sampled for the first round, chosen by a fit in later ones."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
