"""The experiment's YAML as checked values that know their file and line.

`Config` is one experiment; a field that is unknown, of the wrong type or out of range is an error
that names file, field and line. What only the corpus can tell is checked when that is open.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
