from .outcomes import (
    code_tags as code_tags,
    open_tracker as open_tracker,
    sync as sync,
    tracked as tracked,
)
from .record import Tracker as Tracker
