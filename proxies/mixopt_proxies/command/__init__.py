"""The user's own trainer as the proxy: runs a command for each trial and reads its losses.

Importing this does not import torch: the command brings its own environment.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
