from .family import (
    Balance as Balance,
    KnownRouter as KnownRouter,
    Read as Read,
    RouterFamily as RouterFamily,
    Scores as Scores,
)
from .registry import (
    FAMILIES as FAMILIES,
    REFUSED as REFUSED,
    ROUTERS as ROUTERS,
    coefficient_of as coefficient_of,
    family_of as family_of,
)
