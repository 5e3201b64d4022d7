from .outcomes import (
    code_tags as code_tags,
    open_tracker as open_tracker,
    sync as sync,
    sync_line as sync_line,
    tracked as tracked,
)
from .record import Tracker as Tracker
