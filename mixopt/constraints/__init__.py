"""The set of allowed mixtures, and its geometry.

Bounds by domain and group, epochs, a radius around a reference and guardrails. Whether any mixture
satisfies them is decided before anything is fitted; an infeasible set is reported with the smallest
change that makes it feasible.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
