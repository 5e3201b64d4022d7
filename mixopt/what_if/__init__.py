"""What any mixture would give: the law as plain numbers, and its views in a page and a notebook."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
