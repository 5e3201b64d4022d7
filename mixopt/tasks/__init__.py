"""Downstream tasks: items of text, their tokens, and from log-probabilities to metrics.

A task is a file of items, each a context with choices of which one is the gold answer, or the gold
answer alone. `mixopt.corpus` encodes the items once; whoever has a model scores them.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
