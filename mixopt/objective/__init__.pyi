from .aggregate import (
    UNITS as UNITS,
    Direction as Direction,
    Kind as Kind,
    LeaveOut as LeaveOut,
    Objective as Objective,
    Scale as Scale,
    Unit as Unit,
)
from .wording import grouped_names as grouped_names
