"""Knowledge of each family of mixture-of-experts models: routers, scoring and balancing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixopt.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from mixopt.routing.families.family import (
        Balance as Balance,
        KnownRouter as KnownRouter,
        Read as Read,
        RouterFamily as RouterFamily,
        Scores as Scores,
    )
    from mixopt.routing.families.registry import (
        FAMILIES as FAMILIES,
        REFUSED as REFUSED,
        ROUTERS as ROUTERS,
        coefficient_of as coefficient_of,
        family_of as family_of,
    )
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "family": ["Balance", "KnownRouter", "Read", "RouterFamily", "Scores"],
            "registry": ["FAMILIES", "REFUSED", "ROUTERS", "coefficient_of", "family_of"],
        },
    )
