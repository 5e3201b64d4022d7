"""Train groups on a cluster of Ray: the executor, its desk, places on nodes, the corpus by hash."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
