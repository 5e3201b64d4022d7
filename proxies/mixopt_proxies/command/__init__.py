"""The user's own trainer as the proxy: a command run for each trial, whose losses are read.

Importing this loads no torch: the command brings its own environment.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
