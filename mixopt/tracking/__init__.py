"""Keep a record in MLflow, without ever waiting for it or failing with it.

Training appends to files of the run directory (mixopt.tracking.record), and that is all that it
does. MLflow runs in a process of its own (mixopt.tracking.sender), which sends what the run
directory wants and the server does not have, in order and once, now or at the next start, or when
`mixopt sync` asks for it.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
