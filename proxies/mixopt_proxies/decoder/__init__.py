"""A Llama-style decoder, optionally with experts, that trains several trials together."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
