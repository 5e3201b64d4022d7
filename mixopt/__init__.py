"""How much of each data domain should a language model see? Sweep, fit, propose, sample.

The names below are loaded when they are used, so that `import mixopt` costs next to nothing.
"""

import sys

if getattr(sys, "argv", [""])[:1] == ["-m"] and not sys.flags.safe_path:
    # `python -m mixopt` would import whatever lies in the directory that it is started in.
    sys.path.pop(0)

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
